"""What the controller is made of, and one command that is being answered."""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mist.controller.config import Config
from mist.controller.log_ring import History, LogRing
from mist.controller.memory import Memory
from mist.controller.permissions import Caller
from mist.controller.processes import StreamProcesses, runs
from mist.controller.pushes import Pushes
from mist.controller.reports import Reports
from mist.controller.sessions import Session, shown_address
from mist.controller.statistics import KEPT, LAYOUT, Statistics, StreamTotals
from mist.controller.store import Store
from mist.controller.streams import StreamWatch
from mist.controller.system_load import SystemLoad, boot_time, default_memory_bound
from mist.controller.turns import Turns
from mist.controller.variables import Variables
from mist.errors import ConfigError, MistError
from mist.formats.json_text import Written, dumps
from mist.stream.services import ControlServices
from mist.stream.session_identity import Kind
from mist.stream.triggers import TRIGGERS, asks_for_tags

MAX_CALL_MS: Final = 2**53  # of one call that somebody reports
FEW_SESSIONS: Final = 100  # what is known of so many is written in 3 ms
TEXTS_AT_ONCE: Final = 50  # of streams, in a piece of a reply
MANY: Final = 200  # streams, which nobody is to wait for until the text of all is made


class Controller:
    """The parts of the controller, and the wires between them.

    clock: unix seconds. monotonic: seconds that never go back. identity: sixteen characters, new with each start.
    endpoint: host and port of the API once it listens. udp_address: the same for datagrams. on_second: what is told the
    streams' states and counters each second.
    """

    def __init__(
        self,
        services: ControlServices,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.services = services
        self.store = store
        self.log = services.log
        self.clock = clock
        self.monotonic = monotonic
        self.statistics = Statistics(services.log)
        self.watch = StreamWatch(services)
        self.reports = Reports(self.statistics, self.watch, boot_time())
        self.log_ring = LogRing()
        self.pushes = Pushes(self)
        self.processes = StreamProcesses(runs)
        self.memory = Memory(services.load_state, services.save_state, services.run_beside, services.log)
        self.memory.keep("statistics", self.statistics, KEPT, LAYOUT)
        self.memory.keep("pushes", self.pushes, ("_told",))
        self.memory.keep("log lines", self.log_ring, ("_lines", "total"))
        self.access_ring = History()
        self.statistics.on_end = self._session_ended
        self.on_second: set[Callable[[list[list[Any]]], None]] = set()
        self.udp_address: tuple[str, int] | None = None
        self.load = SystemLoad()
        self.variables = Variables(self)
        # The streams of a configuration, and what `stream_rows` says of them while nobody uses them.
        self._idle_rows: tuple[Mapping[str, Any] | None, dict[str, list[Any]]] = (None, {})
        self._told_counts: dict[str, dict[str, int]] = {}
        self._told_tags: dict[str, list[str]] = {}
        self.statistics.on_stream_end = self._stream_ended
        self.lock = asyncio.Lock()
        self.identity = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))
        self.endpoint: tuple[str, int] = ("0.0.0.0", 0)
        self.on_publish: Callable[[], None] = lambda: None
        store.on_commit = self.publish
        store.on_checked = services.prepare_streams

    def _session_ended(self, session: Session) -> None:
        self.access_ring.add(access_row(session))
        if session.kind is Kind.VIEWER and self.services.triggers.wanted("USER_END", session.home):
            self.services.triggers.notify("USER_END", session.home, session.end_lines())

    def publish(self, config: Config) -> None:
        """Give a configuration to the parts of the controller and to all processes."""
        snapshot = config.snapshot()
        memory = snapshot["config"]["memory"]
        memory["total_bytes"] = memory["total_bytes"] or default_memory_bound()
        if unsaved := self.store.unsaved():
            snapshot["unsaved"] = unsaved
        if self.store.bad_file:
            snapshot["bad_file"] = self.store.bad_file
        self._told_tags = self.reports.changed_tags() if asks_for_tags(self.store.server) else {}
        if self._told_tags:
            snapshot["stream_tags"] = self._told_tags
        self.statistics.configure(snapshot)
        self.watch.configure(snapshot)
        self.services.publish_config(snapshot)
        self.on_publish()
        self.variables.check()

    def tell_tags(self) -> None:
        """Give changed tags of active streams to all processes, if handlers of triggers ask for them."""
        if asks_for_tags(self.store.server) and self.reports.changed_tags() != self._told_tags:
            self.publish(self.store.config)

    def _stream_ended(self, name: str, totals: StreamTotals) -> None:
        """Fire STREAM_END."""
        counts = (totals.down, totals.up, *totals.total[:3], totals.viewseconds)
        self.services.triggers.notify("STREAM_END", name, [name, *map(str, counts)])

    def count_trigger(self, name: str, took_ms: Any, *, failed: bool) -> None:
        """Count a handler's call that was made elsewhere. took_ms: None for a failure that is counted apart."""
        if name not in TRIGGERS:
            return
        counts = self._told_counts.setdefault(name, {"count": 0, "ms": 0, "fails": 0})
        if took_ms is not None:
            counts["count"] += 1
            counts["ms"] += int(took_ms) if isinstance(took_ms, (int, float)) and 0 <= took_ms < MAX_CALL_MS else 0
        counts["fails"] += failed

    async def trigger_counts(self) -> dict[str, dict[str, int]]:
        """Return {trigger: {"count", "ms", "fails"}} of all handlers' calls."""
        found = {name: dict(counts) for name, counts in (await self.services.triggers.statistics()).items()}
        for name, told in self._told_counts.items():
            counts = found.setdefault(name, {"count": 0, "ms": 0, "fails": 0})
            for key, number in told.items():
                counts[key] += number
        return found

    async def shown(self, names: Collection[str], make: Callable[[str], Any]) -> Any:
        """Return an object with what is made for each name: as it is, or, when there are many, as text that is made in turns."""
        if len(names) <= MANY:
            return {name: make(name) for name in names}
        turns = Turns()
        texts: list[str] = []
        for name in sorted(names):
            texts.append(f"{dumps(name)}:{dumps(make(name))}")
            await turns()
        joined = (",".join(texts[at : at + TEXTS_AT_ONCE]) for at in range(0, len(texts), TEXTS_AT_ONCE))
        return Written([("," if number else "{") + text for number, text in enumerate(joined)] + ["}"])

    def warn(self, config: Config) -> None:
        """Log what nobody knows in a configuration."""
        for line in config.warnings:
            self.log.warning("%s", line, extra={"kind": "CONF"})

    def commit(self) -> None:
        """Publish what calls changed. A configuration that is not acceptable as a whole is dropped, and the log says why."""
        try:
            self.store.commit(self.monotonic())
        except ConfigError as error:
            self.log.error("The change was not made: %s", error)

    async def commit_in_turns(self) -> None:
        """Do what `commit` does, so that others get their turn meanwhile."""
        try:
            await self.store.commit_in_turns(self.monotonic())
        except ConfigError as error:
            self.log.error("The change was not made: %s", error)

    async def reload(self, why: str) -> str:
        """Read the configuration file again; returns why the running configuration was kept, or "". The log says it, too."""
        try:
            await self.store.reload()
        except (MistError, OSError) as error:
            self.log.error("%s: the configuration stays as it was: %s", why, error)
            return f"the configuration stays as it was: {error}"
        self.log.info("%s: read %s", why, self.store.path, extra={"kind": "CONF"})
        return ""

    async def reload_asked(self, changed_only: bool) -> str:
        """Read the file again for the operator; returns why not, or "".

        changed_only: a file that is as it was stays unread, and changes that are not in it yet are saved.
        """
        async with self.lock:
            if changed_only and not self.store.file_changed():
                await self.store.write_due(self.monotonic(), at_once=True)
                return ""
            return await self.reload("Reload")

    def tick(self) -> None:
        """Do what is due once a second."""
        self.load.sample()
        self.variables.check()
        self.statistics.tick(self.services.connections(), int(self.clock()))
        self.tell_tags()
        self.pushes.tick()
        sessions = len(self.statistics.live) + len(self.statistics.ended)
        self.memory.write(self.monotonic(), much=sessions > FEW_SESSIONS)
        if self.on_second:
            rows = self.stream_rows()
            for told in tuple(self.on_second):
                told(rows)

    def stream_rows(self) -> list[list[Any]]:
        """Return name, state, viewers, inputs, outputs and tags of all configured and active streams."""
        counted, configured = self.statistics.streams, self.watch.configured
        if configured is not self._idle_rows[0]:
            tags = {name: " ".join(sorted(self.watch.configured_tags(name))) for name in configured}
            self._idle_rows = configured, {name: [name, 0, 0, 0, 0, text] for name, text in tags.items()}
        rows = dict(self._idle_rows[1])
        active = set(self.services.streams())
        for name in {*counted, *active}:
            now = counted[name].now if name in counted else (0, 0, 0)
            status = int(self.watch.status(name)) if name in active else 0
            rows[name] = [name, status, *now[:3], " ".join(self.reports.tags(name))]
        return [rows[name] for name in sorted(rows)]

    async def check(self) -> None:
        """Do what is due every three seconds; files are read and written in a thread."""
        if self.store.file_changed():
            async with self.lock:
                await self.reload("The configuration file was changed")
        self.watch.check()
        await self.store.write_due(self.monotonic())


def access_row(session: Session) -> list[Any]:
    """Return a session that ended as `/ws` shows it."""
    return [
        session.ended, session.id, session.stream, session.protocol, shown_address(session.host), session.connected_s,
        session.up, session.down, session.tag_text,
    ]  # fmt: skip


@dataclass(slots=True)
class Command:
    """One command object of a request, and the reply that its calls add to.

    caller: who asks. host: the name by which the client calls the server, or "". secure: whether it does so over TLS.
    named_streams: the streams that an incomplete `streams` reply is to show; None for a complete one or none.
    denied: the calls that the caller may not make. refused: streams that handlers of triggers want to stay as they are.
    """

    values: Mapping[str, Any]
    caller: Caller
    host: str = ""
    secure: bool = False
    denied: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    reply: dict[str, Any] = field(default_factory=dict)
    named_streams: list[str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def minimal(self) -> bool:
        """Whether only what was asked for goes into the reply."""
        return "minimal" in self.values

    def names(self, call: str) -> list[str]:
        """Return the texts that a call is given as a string, as a list, or as the keys of an object."""
        value = self.values[call]
        if isinstance(value, str):
            return [value]
        return [name for name in value if isinstance(name, str)] if isinstance(value, list | dict) else []
