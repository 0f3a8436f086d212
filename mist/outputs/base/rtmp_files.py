"""RTMP connections that play an on-demand stream: a few seconds ahead of the clock, with seeking, pauses, and an end that is told.

What the player says is read as everywhere: looked at, written down, and only then taken from the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mist.core.kernel_counts import received_bytes, skip_received
from mist.core.muxer import Muxer
from mist.core.rtmp_chunks import RtmpPlayMuxer
from mist.errors import MistError, PeerClosed
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.server import ServerSession
from mist.formats.tracks import TrackInfo
from mist.outputs.base.on_demand import Beginning, OnDemandSender, begin
from mist.outputs.base.resumed import pack_saved
from mist.outputs.base.session_connection import READ_BYTES
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters
from mist.stream.services import OutputServices

STEP_BYTES: Final = 32 << 10  # muxed at once: what is sent ahead is exact to that
LEAST_AHEAD_US: Final = 3_000_000
ENDED = "ended"  # what a player is sent next, after the end: nothing
ENDED_SECONDS: Final = 60.0  # for which a player that got everything may still seek


class _Interrupted(Exception):
    """The player wants something else than what is being sent."""


def asked_times(parameters: PlaybackParameters, request: m.PlayRequested) -> PlaybackParameters:
    """Return the parameters with the start and the length of the play command, which are milliseconds, where it has them."""
    if request.start > 0:
        parameters = replace(parameters, start_us=int(request.start * 1000), start_unix_s=None)
    if request.duration > 0:
        parameters = replace(parameters, duration_us=int(request.duration * 1000))
    return parameters


class RtmpFilePlayer(OnDemandSender):
    """A connection that plays an on-demand stream.

    It is sent as much ahead of the clock as its player says that it buffers. At the end it waits for the player to seek or to leave.
    """

    step_bytes = STEP_BYTES

    def __init__(
        self,
        services: OutputServices,
        session: ServerSession,
        media: OnDemandReader,
        indexes: list[int],
        beginning: Beginning,
        parameters: PlaybackParameters,
    ) -> None:
        """Make the muxer. Raises UnsupportedError, NoSuitableTrack."""
        if not parameters.rate_given:
            parameters = replace(parameters, rate=1.0, rate_given=True)

        def make_muxer(tracks: list[TrackInfo]) -> Muxer:
            length_us = media.index.end_us - media.place(0).from_us if media.complete else 0
            return RtmpPlayMuxer(tracks, duration_us=length_us)

        super().__init__(media, indexes, make_muxer, beginning, parameters)
        self._services = services
        self._session = session
        self._parameters = parameters
        self._task: asyncio.Task[None] | None = None
        self._fd = -1
        self._said = asyncio.Event()  # the player said something
        self._paused = False
        self._seek_us: int | None = None
        self._sent_bytes = 0
        self._owed = b""  # said by the session, not sent
        self.saved: Mapping[str, Any] = {}  # what another process needs besides the place
        self.goes_on = False

    def close(self, reason: str) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel(reason)

    # -- another process

    def place(self) -> dict[str, Any]:
        """Return where the next bytes come from."""
        return {**super().place(), "sent_bytes": self._sent_bytes}

    def state(self, place: Mapping[str, Any]) -> bytes:
        """Return what another process needs to go on from a place."""
        self._owed += self._session.take_output()
        heard = {
            "paused": self._paused,
            "seek_us": self._seek_us,
            "ahead_us": self._ahead_us,
            "owed": self._owed.hex(),
        }
        return pack_saved({**self.saved, **place, **heard, "kind": "film"}, self._session.export_state())

    def go_to(self, saved: Mapping[str, Any]) -> None:
        """Go on where another process was. Raises LocalProtocolError."""
        super().go_to(saved)
        self._paused, self._seek_us, self._ahead_us = saved["paused"], saved["seek_us"], saved["ahead_us"]
        self._sent_bytes = saved["sent_bytes"]
        self._owed = bytes.fromhex(saved["owed"])
        self.goes_on = True

    def _take_over(self, head: bytes) -> None:
        """Take note of what is written down already, and take from the kernel what is in that. head: what is unsent."""
        assert self._kept is not None
        sent_at, received, pending, *_ = self._kept.progress()
        self._noted = (sent_at, pending, self.place())
        looked_at = received - (received_bytes(self._fd) - self._kept.bases[1])
        if looked_at > 0:
            skip_received(self._fd, looked_at)

    # -- sending

    async def _run(self, head: bytes) -> None:
        self._task = asyncio.current_task()
        self._fd = self._socket.fileno()
        if self.goes_on:
            self._take_over(head)
        else:
            self.save(head)
        self._loop.add_reader(self._fd, self._readable)
        try:
            await self._send_bytes(head)
            if not self.goes_on:
                self._take(b"")  # what came with the request
            while True:
                try:
                    if self._phase != ENDED:
                        await self.send_media()
                        await self._say_end()
                    if not await self._wait_for_seek():
                        return
                except _Interrupted:
                    pass
                await self._seek()
        finally:
            self._loop.remove_reader(self._fd)

    async def send(self, data: bytes) -> None:
        """Send media."""
        self._sent_bytes += len(data)
        await super().send(data)

    async def _say_end(self) -> None:
        sent_us = self.position_us - self._beginning.start_us
        self._session.send_play_complete(self._media.name, sent_us, self._sent_bytes)
        self._phase = ENDED
        await self._answer()

    async def _wait_for_seek(self) -> bool:
        """Wait until a player that got everything wants something of it again; False when it does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDED_SECONDS):
                while self._seek_us is None:
                    await self._hear()
        return self._seek_us is not None

    async def _seek(self) -> None:
        """Go on at the keyframe at or before the wanted time."""
        wanted_us = self._seek_us
        assert wanted_us is not None
        wish = replace(self._parameters, start_us=max(wanted_us, 1), start_unix_s=None, duration_us=None)
        beginning = await begin(self._media, self._indexes, wish, time.time_ns() // 1000)
        if self._seek_us == wanted_us:  # it wants nothing else meanwhile
            self._seek_us = None
        to_us = self._beginning.to_us
        self.begin_at(Beginning(beginning.loaded, beginning.from_us, to_us))
        self._session.send_seek_start(self._media.name, beginning.start_us // 1000)
        await self._answer()

    async def _pace(self, position_us: int) -> None:
        """Wait until the clock has come near and the player wants more."""
        await self._answer()
        while self._seek_us is None:
            if self._paused:
                before = self._loop.time()
                await self._hear()
                self._began_at += self._loop.time() - before
            elif (early := self._early_seconds(position_us)) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(early):
                        await self._hear()
            else:
                return
        raise _Interrupted

    async def _hear(self) -> None:
        """Wait until the player says something, and answer what needs no more than an answer."""
        await self._said.wait()
        self._said.clear()
        await self._answer()

    async def _answer(self) -> None:
        """Send what the session has to say, between two messages."""
        output = self._owed + self._session.take_output()
        if output:
            self._owed = b""
            self.save(output)
            await self._send_bytes(output)

    # -- hearing

    def _readable(self) -> None:
        """Read what the player sent."""
        try:
            data = self._socket.recv(READ_BYTES, socket.MSG_PEEK)
            if not data:
                raise PeerClosed("the player closed the connection")
            self._hear_bytes(data)
        except (BlockingIOError, InterruptedError):
            return
        except (MistError, OSError) as error:
            self._services.log.info("RTMP player of %s ends: %s", self._media.name, error)
            self._loop.remove_reader(self._fd)
            self.close(getattr(error, "reason", "CLEAN_REMOTE_CLOSE"))

    def _hear_bytes(self, data: bytes) -> None:
        """Take bytes from the player, and from the kernel once they are written down. Raises MistError, OSError."""
        kept = self._kept
        self._record.add_bytes(0, len(data))
        if kept is None:
            self._take(data)
        else:
            kept.blame(True)
            try:
                self._take(data)
            finally:
                kept.blame(False)
            self.save_noted(kept.received + len(data))
        skip_received(self._fd, len(data))

    def _take(self, data: bytes) -> None:
        """Take bytes from the player. Raises MistError."""
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, m.StreamEnded):
                raise PeerClosed("the player has seen enough")
            if isinstance(event, m.PauseRequested):
                self._paused = event.paused
            elif isinstance(event, m.SeekRequested):
                self._seek_us = int(max(event.time_ms, 0.0) * 1000)
            elif isinstance(event, m.BufferLengthSet) and self._parameters.buffer_us is None:
                self._ahead_us = max(event.time_ms * 1000, LEAST_AHEAD_US)
        self._said.set()
