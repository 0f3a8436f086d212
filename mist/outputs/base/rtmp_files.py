"""RTMP connections that play an on-demand stream, with seeking, pauses, and an end that is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.core.rtmp_chunks import RtmpPlayMuxer
from mist.errors import PeerClosed
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.server import ServerSession
from mist.formats.tracks import TrackInfo
from mist.outputs.base.film_player import ENDED, FilmPlayer
from mist.outputs.base.on_demand import Beginning, begin
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters
from mist.stream.services import OutputServices

STEP_BYTES: Final = 32 << 10  # muxed at once: what is sent ahead is exact to that
LEAST_AHEAD_US: Final = 3_000_000
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


class RtmpFilePlayer(FilmPlayer):
    """A connection that plays an on-demand stream.

    It is sent as much ahead of the clock as its player says that it buffers. At the end it waits for the player to seek or to leave.
    """

    protocol = "RTMP"
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

        def make_muxer(tracks: list[TrackInfo]) -> Muxer:
            length_us = media.index.end_us - media.place(0).from_us if media.complete else 0
            return RtmpPlayMuxer(tracks, duration_us=length_us)

        super().__init__(services, session, media, indexes, make_muxer, beginning, parameters)
        self._session = session
        self._said = asyncio.Event()  # the player said something
        self._paused = False
        self._seek_us: int | None = None
        self._sent_bytes = 0

    # -- another process

    def place(self) -> dict[str, Any]:
        """Return where the next bytes come from."""
        return {**super().place(), "sent_bytes": self._sent_bytes}

    def _heard(self) -> dict[str, Any]:
        return {"paused": self._paused, "seek_us": self._seek_us, "ahead_us": self._ahead_us}

    def _session_state(self) -> bytes:
        return self._session.export_state()

    def go_to(self, saved: Mapping[str, Any]) -> None:
        """Go on where another process was. Raises LocalProtocolError."""
        super().go_to(saved)
        self._paused, self._seek_us, self._ahead_us = saved["paused"], saved["seek_us"], saved["ahead_us"]
        self._sent_bytes = saved["sent_bytes"]

    # -- sending

    async def _play(self) -> None:
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
