"""Firing triggers, from any process: the process that runs the handlers is asked, and only if there are handlers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mist.errors import MistError
from mist.runtime.channel import Loop
from mist.runtime.instance import Instance
from mist.runtime.spawner_link import Link
from mist.stream.triggers import Handler, decide, due, handlers, replace_value
from mist.stream.variables import custom_values, substitute

log = logging.getLogger(__name__)

# Longer than the longest that one handler may take (5 attempts of 5 s), so that it is the handlers' process that gives up.
ANSWER_SECONDS: Final = 60.0


class TriggerLink:
    """Fires triggers for one process."""

    def __init__(self, instance: Instance, loop: Loop, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Take a function that returns the whole configuration as it is now."""
        self._link = Link(instance.trigger_socket, "The process of the triggers", loop, ANSWER_SECONDS)
        self._snapshot = snapshot
        self._counted: Mapping[str, Mapping[str, int]] = {}

    def wanted(self, name: str, stream: str = "") -> list[Handler]:
        """Return the handlers of a trigger, so that a payload that is dear to make is only made for somebody."""
        return handlers_of(self._snapshot(), name, stream)

    def notify(self, name: str, stream: str, lines: Sequence[str], *, once: str = "") -> None:
        """Tell the handlers of a trigger whose answer does not matter.

        once: what is told, for one that may be told again by another process: the handlers hear it the first time only.
        """

        def answered(answer: Mapping[str, Any] | None) -> None:
            if answer is None:
                log.warning("The trigger %s was not fired, or nobody knows whether it was", name)

        if self.wanted(name, stream):
            question = message(name, stream, lines)
            self._link.ask_then({**question, "once": once} if once else question, answered)

    async def allows(self, name: str, stream: str, lines: Sequence[str]) -> bool:
        """Fire a trigger and return whether all its handlers allow."""
        found = due(name, self.wanted(name, stream), lines)
        return not found or decide(await self._results(found, name, stream, lines))

    async def replace(self, name: str, stream: str, lines: Sequence[str], value: str) -> str:
        """Fire a trigger and return what its handlers make of a value."""
        found = self.wanted(name, stream)
        return replace_value(value, await self._results(found, name, stream, lines)) if found else value

    async def _results(
        self, found: Sequence[Handler], name: str, stream: str, lines: Sequence[str]
    ) -> list[tuple[Handler, str | None]]:
        try:
            answer = await self._link.ask(message(name, stream, lines))
        except MistError as error:
            log.error("The handlers of %s gave no answer, their defaults count: %s", name, error)
            return [(handler, None) for handler in found]
        return _results_of(answer)

    def decide_then(self, name: str, stream: str, lines: Sequence[str], then: Callable[[bool], None]) -> None:
        """Fire a trigger from a process without asyncio; `then` is told whether all handlers allow."""
        found = self.wanted(name, stream)
        if not found:
            then(True)
            return

        def answered(answer: Mapping[str, Any] | None) -> None:
            then(decide([(one, None) for one in found] if answer is None else _results_of(answer)))

        self._link.ask_then(message(name, stream, lines), answered)

    async def statistics(self) -> Mapping[str, Mapping[str, int]]:
        """Return what became of the handlers' calls; see `Handlers`."""
        if not (self._snapshot().get("config") or {}).get("triggers"):
            return self._counted  # as it was with the last handlers
        try:
            self._counted = (await self._link.ask({"do": "statistics"}))["triggers"]
        except MistError as error:
            log.warning("There are no statistics of triggers: %s", error)
        return self._counted

    async def test(self, name: str, stream: str, lines: Sequence[str]) -> list[dict[str, Any]]:
        """Fire a trigger at its handlers, all of which are waited for; see `Handlers`."""
        if not due(name, self.wanted(name, stream), lines):
            return []
        answer = await self._link.ask({**message(name, stream, lines), "test": True})
        return [
            {
                "handler": one["target"],
                "blocking": one["blocking"],
                "answer": one["answer"],
                "error": one["error"],
                "ms": one["ms"],
            }
            for one in answer["results"]
        ]

    async def variable(self, name: str, target: str, seconds: float) -> str:
        """Return the new value of a custom variable; see `Handlers`."""
        question = {"do": "variable", "name": name, "target": target, "seconds": seconds}
        answer = await self._link.ask(question, seconds=seconds + ANSWER_SECONDS)
        return str(answer["value"])

    def close(self) -> None:
        self._link.close()


def _results_of(answer: Mapping[str, Any]) -> list[tuple[Handler, str | None]]:
    return [
        (Handler(one["target"], one["blocking"], default=one["default"]), one["answer"]) for one in answer["results"]
    ]


def message(name: str, stream: str, lines: Sequence[str]) -> dict[str, Any]:
    """Return what the process of the triggers is told."""
    return {
        "do": "fire",
        "trigger": name,
        "stream": stream,
        "payload": "\n".join(lines),
        "pid": os.getpid(),
        "unix_ms": time.time_ns() // 1_000_000,
    }


def handlers_of(snapshot: Mapping[str, Any], name: str, stream: str) -> list[Handler]:
    """Return the handlers of a trigger that a stream concerns, with the values of custom variables in their settings."""
    found = handlers(snapshot.get("config") or {}, name, stream, tags_of(snapshot, stream))
    if not found or not snapshot.get("variables"):
        return found
    values = custom_values(snapshot)
    return [one.filled(lambda text: substitute(text, values) if "$" in text else text) for one in found]


def tags_of(snapshot: Mapping[str, Any], stream: str) -> Sequence[str]:
    """Return the tags of a stream: those that it was given while it is active, too, else the configured ones."""
    given: Sequence[str] | None = (snapshot.get("stream_tags") or {}).get(stream)
    if given is not None:
        return given
    streams = snapshot.get("streams") or {}
    settings = streams.get(stream) or streams.get(stream.partition("+")[0]) or {}
    return settings.get("tags") or ()
