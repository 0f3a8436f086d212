"""The process that decides about viewers: runs USER_NEW once a session, checks tokens, and ends what may not go on.

It starts with the first question (`Attendant`); where neither handlers of USER_NEW nor keys are configured nobody asks. It does not
need the controller, and can be killed at any moment: what it decided is noted (`Verdicts`), and who watches is in the connection records.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from mist.core.checkpoint import CheckpointTable
from mist.errors import AccessDenied, MistError
from mist.net.key_sets import KeySets
from mist.runtime.channel import Channel, Message
from mist.runtime.door import DoorWorker, answer
from mist.runtime.family import SESSIONS
from mist.runtime.leftovers import all_records, open_records
from mist.runtime.program import Server
from mist.runtime.spawner_link import SpawnerLink
from mist.runtime.verdicts import Verdicts
from mist.stream.session_access import (
    DENIED_SECONDS,
    KEPT_SECONDS,
    USER_NEW,
    Verdict,
    Viewer,
    is_guarded,
    key_sets,
    literal_keys,
    playback_claims,
    publishing_stream,
)
from mist.stream.session_identity import Kind, SessionModes, identify
from mist.stream.token_keys import Entry, unverified_claims

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
FOREVER: Final = float("inf")
Sighting = tuple[str, str, str, str]


class SessionProcess(DoorWorker):
    """Answers `admit`, `publish` and `invalidate` on its socket."""

    program = key = SESSIONS

    def __init__(self, server: Server, channel: Channel, door: socket.socket) -> None:
        super().__init__(server, channel, door)
        self._link = SpawnerLink(server.instance, self.loop)
        self._verdicts = Verdicts(server.instance.session_notes)
        self._asking: dict[str, asyncio.Task[Verdict]] = {}
        self._tables: dict[tuple[str, int], CheckpointTable] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None]
        self._sets = KeySets()
        self._modes = SessionModes.from_config(self.snapshot["config"])

    def started(self) -> None:
        self._look()  # who goes on was admitted: that comes before all questions
        super().started()
        self._sets.follow(key_sets(self.snapshot))
        self._watching = self._run(self._watch())

    def is_occupied(self) -> bool:
        return bool(self._running)

    def _retire(self) -> None:
        self._watching.cancel()  # the next process does
        super()._retire()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.end_when_left()

    def reconfigured(self) -> None:
        """Take other keys and handlers: what a token allowed is looked at again, and what was refused may ask again."""
        self._modes = SessionModes.from_config(self.snapshot["config"])
        self._sets.follow(key_sets(self.snapshot))
        self._verdicts.reconsider()

    # -- questions -------------------------------------------------------------------------------------------------

    def asked(self, visitor: Channel, message: Message) -> None:
        what = message.get("do")
        if what == "admit":
            self._run(self._admit(visitor, message))
        elif what == "publish":
            self._run(self._publish(visitor, message))
        elif what == "invalidate":
            self._invalidate([str(name) for name in message.get("streams", ())])
        else:
            answer(visitor, message, {"error": "NotFound", "text": "no such question"})

    async def _admit(self, visitor: Channel, message: Message) -> None:
        stream, host, token, connector = (str(message[name]) for name in ("stream", "host", "token", "connector"))
        session = identify(Kind.VIEWER, self._modes, stream, host, token, connector)
        viewer = Viewer(session, stream, host, token, connector, str(message["url"]))
        verdict = self._verdicts.get(session)
        if verdict is None or (not verdict.allowed and verdict.until <= time.time()):
            verdict = await self._decided(viewer, first=True)
        verdict.seen = time.time()
        answer(visitor, message, {"allowed": verdict.allowed})

    async def _publish(self, visitor: Channel, message: Message) -> None:
        try:
            stream = publishing_stream(await self._keys(), str(message["token"]), str(message["host"]), time.time())
        except AccessDenied as error:
            answer(visitor, message, {"error": "AccessDenied", "text": str(error)})
        else:
            answer(visitor, message, {"stream": stream})

    def _invalidate(self, streams: Sequence[str]) -> None:
        """Forget refusals of some streams, and let what goes on be decided again."""
        wanted = frozenset(streams)
        for verdict in self._verdicts:
            if verdict.viewer.stream not in wanted:
                continue
            if verdict.allowed:
                self._run(self._again(verdict.viewer))
            else:
                self._verdicts.forget(verdict.viewer.session)

    async def _again(self, viewer: Viewer) -> None:
        await self._decided(viewer, first=False)
        self._look()

    # -- decisions -------------------------------------------------------------------------------------------------

    async def _keys(self) -> list[Entry]:
        return [*literal_keys(self.snapshot), *await self._sets.keys()]

    async def _decided(self, viewer: Viewer, *, first: bool) -> Verdict:
        """Decide about a session, once for all who ask at the same time."""
        task = self._asking.get(viewer.session)
        if task is None:
            task = self._asking[viewer.session] = self.loop.create_task(self._decide(viewer, first=first))
            task.add_done_callback(lambda _: self._asking.pop(viewer.session, None))
        return await asyncio.shield(task)

    async def _decide(self, viewer: Viewer, *, first: bool) -> Verdict:
        now = time.time()
        before = self._verdicts.get(viewer.session)
        try:
            claims = playback_claims(await self._keys(), viewer, now)
        except AccessDenied:
            handled = bool(self.triggers.wanted(USER_NEW, viewer.stream))
            allowed = await self.triggers.allows(USER_NEW, viewer.stream, viewer.lines(first=first))
            if not handled and before is not None and before.by_token:
                allowed = False  # its token ended, and nobody else answers for it
            until = FOREVER if allowed else min(time.time() + DENIED_SECONDS, _begins(viewer.token, now))
            verdict = Verdict(viewer, allowed, until, now)
        else:
            verdict = Verdict(viewer, True, float(claims.get("exp", FOREVER)), now, by_token=True)
        if not verdict.allowed:
            log.info("Session %s of %s from %s was refused", viewer.session, viewer.stream, viewer.host)
        self._verdicts.keep(verdict)
        return verdict

    # -- sessions that go on -----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not is_guarded(self.snapshot):
                self._verdicts.clear()
                continue
            self._look()
            now = time.time()
            for verdict in self._verdicts:
                session = verdict.viewer.session
                if (verdict.allowed and verdict.seen + KEPT_SECONDS < now) or (
                    verdict.until <= now and not verdict.allowed
                ):
                    self._verdicts.forget(session)
                elif verdict.until <= now and session not in self._asking:
                    self._run(self._again(verdict.viewer))

    def _look(self) -> None:
        """Note which sessions have connections, and end those of sessions that may not go on."""
        now = time.time()
        wanted: dict[str, list[int]] = {}
        present = set(all_records(self.server.instance).values())
        self._tables = {key: table for key, table in self._tables.items() if key in present}
        for key in present:
            table = self._tables.get(key) or open_records(key[0])
            if table is None:
                continue
            self._tables[key] = table
            for row in table.snapshot(2**62):  # active ones only
                self._sighted(row, now, wanted)
        if wanted:
            try:
                self._link.tell({"do": "end_connections", "records": wanted})
            except MistError as error:
                log.error("Sessions that may not go on could not be ended: %s", error)

    def _sighted(self, row: Sequence[Any], now: float, wanted: dict[str, list[int]]) -> None:
        number, _, pid, connector, stream, host, token = row[:7]
        if not stream or self._modes.kind_of(connector) is not Kind.VIEWER:
            return
        session = identify(Kind.VIEWER, self._modes, stream, host, token, connector)
        verdict = self._verdicts.get(session)
        if verdict is None:  # it was admitted before this process began
            viewer = Viewer(session, stream, host, token, connector, "")
            self._verdicts.keep(Verdict(viewer, True, now if unverified_claims(token) else FOREVER, now))
        elif verdict.allowed:
            verdict.seen = now
        else:
            wanted.setdefault(str(pid), []).append(number)

    # -- end -------------------------------------------------------------------------------------------------------

    def stopping(self, reason: str) -> None:
        self.stop_listening()
        for task in (*self._running, *self._asking.values()):
            task.cancel()
        self.spawn(self._wind_up())

    async def _wind_up(self) -> None:
        self._sets.close()
        self.finish()


def _begins(token: str, now: float) -> float:
    """Return when a token that is not valid yet begins to be, unverified."""
    begins = unverified_claims(token).get("nbf")
    return float(begins) if isinstance(begins, int | float) and begins > now else FOREVER
