"""DTSC connections that play: those of live streams, which the fan-out serves, and those of on-demand streams."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import Any, Protocol

from mist.core.dtsc import DtscMuxer
from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed
from mist.formats import dtsc_session as d
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Choice
from mist.outputs.base.on_demand import Beginning, OnDemandSender
from mist.outputs.base.session_connection import READ_BYTES
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters
from mist.stream.services import ConnectionRecord, OutputServices


class Player(Protocol):
    """What has a connection's socket once it plays."""

    def started(self) -> None: ...

    def close(self, reason: str) -> None: ...


class LivePlayer:
    """A connection that plays: the fan-out sends, this reads what the peer says and shows that the connection lives."""

    def __init__(
        self,
        services: OutputServices,
        session: d.ListenerSession,
        record: ConnectionRecord,
        choice: Choice,
        peer: str,
        exact: bool,
    ) -> None:
        self.fd = -1
        self.exact = exact
        self.subscription: Any = None
        self._services = services
        self._session = session
        self._record = record
        self._reader = choice.reader
        self._indexes = choice.indexes
        self._peer = peer
        self._sent_bytes = 0
        self._pinged = False
        self._zero_us = choice.reader.wall_clock_offset_us
        self._timer: asyncio.TimerHandle | None = None

    def make_muxer(self, tracks: list[TrackInfo]) -> Muxer:
        """Return the muxer of a group of players."""
        reader = self._reader
        return DtscMuxer(tracks, live=reader.live, unix_zero_us=lambda: reader.wall_clock_offset_us, exact=self.exact)

    def started(self) -> None:
        """Begin to hear and to look after the connection: the fan-out has it."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        self._guarded_handle(b"")

    def _tick(self) -> None:
        """Ping a peer that was sent nothing for a second, and tell it when the stream's wall clock changed."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        zero_us = self._reader.wall_clock_offset_us
        if zero_us != self._zero_us and self.exact:
            self._zero_us = zero_us
            self._session.send_wall_clock((zero_us + 500) // 1000)
            self._guarded_handle(b"")
        sent_bytes = self.subscription.bytes_sent
        if sent_bytes == self._sent_bytes and not self._pinged:
            self._session.send_ping()
            self._guarded_handle(b"")
            self._pinged = self.subscription.bytes_sent == sent_bytes  # it does not read: one ping is enough
        elif sent_bytes != self._sent_bytes:
            self._pinged = False
        self._sent_bytes = self.subscription.bytes_sent

    def close(self, reason: str) -> None:
        """End the connection."""
        self.subscription.close(reason)

    def readable(self) -> None:
        """Read what the peer sent; called by the fan-out."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.subscription.close("CLEAN_REMOTE_CLOSE")
            return
        if not data:
            self.subscription.close("CLEAN_REMOTE_CLOSE")
            return
        self._record.add_bytes(0, len(data))
        self._guarded_handle(data)

    def _guarded_handle(self, data: bytes) -> None:
        try:
            self._handle(data)
        except MistError as error:
            self._services.log.info("DTSC player %s of %s: %s", self._peer, self._reader.name, error)
            self.subscription.close(error.reason)

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, d.KeyDurationAsked):
                self._check_key_duration(event)
            elif isinstance(event, d.PeerFailed):
                raise PeerClosed(f"the peer says: {event.text}")
        output = self._session.take_output()
        if output:
            self.subscription.send(output)

    def _check_key_duration(self, asked: d.KeyDurationAsked) -> None:
        place = asked.track - 1
        longest_ms = 0
        if 0 <= place < len(self._indexes):
            times = [key.dts_us for key in self._reader.keys(self._indexes[place])]
            longest_ms = max((after - before for before, after in itertools.pairwise(times)), default=0) // 1000
        if d.key_duration_fits(asked.duration_ms, longest_ms):
            self._session.send_ok("Key duration matches")
            return
        self.subscription.send(d.command_bytes("error", msg="Key duration mismatch; there are keyframes that you lost"))
        self.subscription.close("CLEAN_INTENDED_STOP")

    def closed(self, reason: str) -> None:
        """Say why when the stream is over, and count the connection out; the fan-out closes the socket."""
        if self._timer is not None:
            self._timer.cancel()
        if reason == "CLEAN_EOF":
            try:
                os.write(self.fd, d.command_bytes("error", msg="The stream has ended"))
            except OSError as error:
                self._services.log.debug("DTSC player %s did not hear the end: %s", self._peer, error)
        self._record.close()
        self._services.close_stream(self._reader)


class FilePlayer(OnDemandSender):
    """A connection that plays an on-demand stream: packets in the order of their times, a few seconds ahead of the clock."""

    def __init__(
        self,
        services: OutputServices,
        session: d.ListenerSession,
        media: OnDemandReader,
        choice: Choice,
        beginning: Beginning,
        parameters: PlaybackParameters,
        exact: bool,
    ) -> None:
        """Make the muxer. Raises UnsupportedError, NoSuitableTrack."""
        reader = choice.reader

        def make_muxer(tracks: list[TrackInfo]) -> Muxer:
            return DtscMuxer(tracks, live=False, unix_zero_us=lambda: reader.wall_clock_offset_us, exact=exact)

        super().__init__(media, choice.indexes, make_muxer, beginning, parameters)
        self._services = services
        self._session = session
        self._task: asyncio.Task[None] | None = None
        self._fd = -1

    def started(self) -> None:
        """Begin to play; `start` does the work."""

    async def _run(self, head: bytes) -> None:
        self._task = asyncio.current_task()
        self._fd = self._socket.fileno()
        self._loop.add_reader(self._fd, self._readable)
        try:
            await super()._run(head)
            self._session.send_error("The stream has ended")
            await self._answer()
        finally:
            self._loop.remove_reader(self._fd)

    def close(self, reason: str) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel(reason)

    async def _pace(self, position_us: int) -> None:
        """Wait until the clock has come near; answer the peer meanwhile, and show that the connection lives."""
        await self._answer()
        while (early := self._early_seconds(position_us)) > 0:
            await asyncio.sleep(min(early, d.IDLE_PING_SECONDS))
            if early > d.IDLE_PING_SECONDS:
                self._session.send_ping()
            await self._answer()

    async def _answer(self) -> None:
        """Send what the session has to say, between two packets."""
        output = self._session.take_output()
        if output:
            await self._send_bytes(output)

    def _readable(self) -> None:
        """Read what the peer sent."""
        try:
            data = os.read(self._fd, READ_BYTES)
            if not data:
                raise PeerClosed("the peer closed the connection")
            self._record.add_bytes(0, len(data))
            for event in self._session.feed(data, time.monotonic()):
                if isinstance(event, d.PeerFailed):
                    raise PeerClosed(f"the peer says: {event.text}")
                if isinstance(event, d.KeyDurationAsked):
                    self._session.send_ok("Key duration noted")
        except (BlockingIOError, InterruptedError):
            return
        except (MistError, OSError) as error:
            self._services.log.info("DTSC player of %s ends: %s", self._media.name, error)
            self._services.loop.remove_reader(self._fd)
            self.close(getattr(error, "reason", "CLEAN_REMOTE_CLOSE"))
