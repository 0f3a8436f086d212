"""Pushes as the controller sees them: asked for, started by rules, listed, and told of when they end."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mist.controller.push_rules import Rule, judge, matches
from mist.errors import ConfigError, MistError, NotFound
from mist.stream.names import sanitise
from mist.stream.push import with_values
from mist.stream.state import StreamStatus
from mist.stream.variables import all_values, substitute

if TYPE_CHECKING:
    from mist.controller.state import Controller

LOG_LINES: Final = 10
DEFAULT_WAIT_SECONDS: Final = 3
MAX_REMEMBERED: Final = 10_000
FRESH_SECONDS: Final = 10.0  # after which a push of which the main process does not tell was lost with it


@dataclass(frozen=True, slots=True)
class Running:
    """A push as the main process knows it. ended: its result is there."""

    number: int
    stream: str
    requested: str
    target: str
    status: Mapping[str, Any] | None
    ended: bool


def _known(running: Iterable[Running]) -> set[tuple[str, str]]:
    """Return stream and target of pushes, both as it was asked for and as it is used."""
    return {(one.stream, target) for one in running for target in (one.requested, one.target)}


def _as_known(pattern: str) -> str:
    """Return a pattern with its stream's name as the server writes that. Raises NotFound."""
    return pattern if pattern.startswith("#") else sanitise(pattern)


class _Remembered(dict[str, dict[str, str]]):
    """The variables of streams, looked up once: there may be a thousand rules of one stream."""

    def __init__(self, look_up: Callable[[str], dict[str, str]]) -> None:
        self._look_up = look_up

    def __missing__(self, stream: str) -> dict[str, str]:
        found = self[stream] = self._look_up(stream)
        return found


class Pushes:
    """Starts and ends pushes. Called once a second; what takes long runs beside."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._starting: dict[tuple[str, str], bool] = {}  # streams and targets; whether they are still wanted
        self._fresh: deque[tuple[float, Running]] = deque()  # begun, and when; oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._waited: dict[tuple[str, str], int] = {}  # by rule and stream: seconds that its push is missing
        self._ready: set[str] = set()
        self._told: dict[int, None] = {}  # ended pushes whose trigger has been fired

    # -- what runs -------------------------------------------------------------------------------------------------

    def all(self) -> list[Running]:
        """Return all pushes that run or have ended lately, and those that were begun since the main process told of them."""
        told = [
            Running(
                one["number"], one["stream"], one["requested"], one["target"], one["status"], one["result"] is not None
            )
            for one in self._controller.services.pushes()
        ]
        newest, since = max((one.number for one in told), default=0), self._controller.clock() - FRESH_SECONDS
        while self._fresh and (self._fresh[0][1].number <= newest or self._fresh[0][0] < since):
            self._fresh.popleft()
        return told + [one for _, one in self._fresh]

    def running(self) -> list[Running]:
        """Return the pushes that run."""
        return [one for one in self.all() if not one.ended]

    def shown(self) -> list[list[Any]] | None:
        """Return what `push_list` shows: number, stream, target as asked for and as used, log lines, status."""
        rows = []
        said = self._lines()
        for one in self.running():
            row: list[Any] = [one.number, one.stream, one.requested, one.target]
            lines = said[f"push {one.number}"][-LOG_LINES:]
            if lines or one.status:
                row.append(lines or None)
            if one.status:
                row.append(dict(one.status))
            rows.append(row)
        return rows or None

    def _lines(self) -> defaultdict[str, list[list[Any]]]:
        """Return the lines of the log by the program that wrote them."""
        found: defaultdict[str, list[list[Any]]] = defaultdict(list)
        for row in self._controller.log_ring.history.last(1000):
            found[row[5]].append(row)
        return found

    # -- starting and stopping -------------------------------------------------------------------------------------

    def start(self, pattern: str, target: str) -> None:
        """Start pushes of all streams that a pattern means, unless they run. Raises NotFound for what names none."""
        for stream in self.streams(_as_known(pattern), configured=True):
            self._begin(stream, target)

    def streams(self, pattern: str, *, configured: bool = False) -> list[str]:
        """Return the streams that a pattern means: active ones, with a name in full that one in any case."""
        if not pattern.startswith("#") and not pattern.endswith("+"):
            return [pattern]
        watch = self._controller.watch
        names = {*self._active(), *(watch.configured if configured and pattern.startswith("#") else ())}
        return sorted(name for name in names if matches(pattern, name, self._tags(name)))

    def stop_streams(self, pattern: str, *, gracefully: bool = False) -> None:
        """End the pushes of a stream, or of the wildcard streams that a pattern means; those that a handler is asked about do not begin."""
        try:
            pattern = _as_known(pattern)
        except NotFound as error:
            self._controller.log.info("No push has ended: %s", error)
            return
        for stream, target in [one for one in self._starting if matches(pattern, one[0], set())]:
            self._starting[stream, target] = False
        self.stop((one.number for one in self.running() if matches(pattern, one.stream, set())), gracefully=gracefully)

    def stop(self, numbers: Iterable[int], *, gracefully: bool = False) -> None:
        """End pushes; gracefully, when their destinations have taken what there is."""
        for number in numbers:
            self._spawn(self._stop(number, gracefully=gracefully))

    def _begin(self, stream: str, target: str, known: set[tuple[str, str]] | None = None) -> bool:
        """Start a push unless it runs or is about to; returns whether. known: streams and targets of those that run."""
        known = _known(self.running()) if known is None else known
        wanted = (stream, target)
        try:
            used = self._used_target(stream, target)
        except ConfigError as error:
            self._controller.log.error("The push to %s was not started: %s", target, error, extra={"stream": stream})
            return False
        if wanted in known or (stream, used) in known or wanted in self._starting:
            return False
        self._starting[stream, target] = True
        self._spawn(self._start(stream, target))
        return True

    def _used_target(self, stream: str, target: str) -> str:
        """Return a target with its variables replaced. Raises ConfigError."""
        values = self.variables(stream)
        return with_values(target, lambda text: substitute(text, values))

    async def _start(self, stream: str, target: str) -> None:
        controller = self._controller
        try:
            wanted = await controller.services.triggers.replace("PUSH_OUT_START", stream, [stream, target], target)
            if not wanted.strip():
                controller.log.info(
                    "A handler of PUSH_OUT_START stopped the push to %s", target, extra={"stream": stream}
                )
                return
            if not self._starting[stream, target]:
                return
            used = self._used_target(stream, wanted)
            number = await controller.services.start_push(stream, target, used)
            self._fresh.append((controller.clock(), Running(number, stream, target, used, None, False)))
            if not self._starting[stream, target]:
                await self._stop(number, gracefully=False)
        except MistError as error:
            controller.log.error("The push to %s was not started: %s", target, error, extra={"stream": stream})
        finally:
            del self._starting[stream, target]

    async def _stop(self, number: int, *, gracefully: bool) -> None:
        try:
            await self._controller.services.stop_push(number, gracefully=gracefully)
        except MistError as error:
            self._controller.log.info("%s", error)

    def _spawn(self, work: Any) -> None:
        task = self._controller.services.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- each second -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Apply the rules, and tell of pushes that have ended."""
        ready = set(self._active())
        fresh, self._ready = ready - self._ready, ready
        self._apply_rules(ready, fresh)
        self._tell_ends()

    def _apply_rules(self, ready: set[str], fresh: set[str]) -> None:
        controller = self._controller
        rules: dict[str, Rule] = controller.store.document.get("auto_push") or {}
        if not rules:
            self._waited.clear()
            return
        now = int(controller.clock())
        settings = controller.store.document.get("push_settings") or {}
        wait, most = int(settings.get("wait", DEFAULT_WAIT_SECONDS)), int(settings.get("maxspeed", 0))
        running: defaultdict[str, list[Running]] = defaultdict(list)  # by target
        known = _known(self.running())
        for one in self.running():
            running[one.requested].append(one)
        variables = _Remembered(self.variables)
        started = 0
        done: list[str] = []
        for number, rule in list(rules.items()):
            streams = [name for name in sorted(ready) if matches(rule["stream"], name, self._tags(name))]
            ours = self._of_rule(rule, running[rule["target"]])
            if judge(rule, now, variables[rule["stream"]]).over:
                self.stop(one.number for one in ours)
                done.append(number)
                continue
            begun = False
            for name in streams:
                if not judge(rule, now, variables[name]).active:
                    self.stop(one.number for one in ours if one.stream == name)
                    continue
                if any(one.stream == name for one in ours):
                    self._waited.pop((number, name), None)
                    begun = True
                    continue
                at_once = name in fresh
                if not at_once and not wait and "scheduletime" not in rule:
                    continue
                waited = self._waited[number, name] = self._waited.get((number, name), 0) + 1
                if (at_once or waited >= wait) and not (most and started >= most) and not self._inhibited(rule, name):
                    self._waited.pop((number, name), None)
                    started += self._begin(name, rule["target"], known)
            if begun and "scheduletime" in rule and "completetime" not in rule:
                done.append(number)
        for number in done:
            del rules[number]
        if done:
            controller.commit()
        for rule_and_stream in [one for one in self._waited if one[0] not in rules or one[1] not in ready]:
            del self._waited[rule_and_stream]

    def _of_rule(self, rule: Rule, running: list[Running]) -> list[Running]:
        """Return those of the pushes to a rule's target whose streams it means."""
        return [one for one in running if matches(rule["stream"], one.stream, self._tags(one.stream))]

    def _inhibited(self, rule: Rule, stream: str) -> bool:
        patterns = rule.get("inhibit") or ()
        tags = self._tags(stream)
        return any(matches(str(one), stream, tags) for one in ([patterns] if isinstance(patterns, str) else patterns))

    def _tell_ends(self) -> None:
        """Fire PUSH_END for each push that has ended since the last look."""
        ended = [one for one in self.all() if one.ended and one.number not in self._told]
        said = self._lines() if ended else {}
        for one in ended:
            self._told[one.number] = None
            while len(self._told) > MAX_REMEMBERED:
                del self._told[next(iter(self._told))]
            lines = said.get(f"push {one.number}", [])[-LOG_LINES:]
            payload = [
                str(one.number),
                one.stream,
                one.requested,
                one.target,
                json.dumps(lines, separators=(",", ":")) if lines else "",
                json.dumps(one.status, separators=(",", ":")) if one.status else "",
            ]
            self._controller.services.triggers.notify("PUSH_END", one.stream, payload)

    # -- streams ---------------------------------------------------------------------------------------------------

    def _active(self) -> list[str]:
        watch = self._controller.watch
        return [name for name in self._controller.services.streams() if watch.status(name) == StreamStatus.READY]

    def _tags(self, stream: str) -> set[str]:
        return set(self._controller.reports.tags(stream))

    def variables(self, stream: str) -> dict[str, str]:
        """Return the variables of a stream: those of the configuration, and the built-in ones."""
        custom = self._controller.store.document.get("variables") or {}
        values = {
            name: str(entry.get("value", "")) for name, entry in sorted(custom.items()) if isinstance(entry, dict)
        }
        return all_values(values, stream, datetime.fromtimestamp(self._controller.clock()))
