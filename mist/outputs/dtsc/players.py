"""DTSC connections that play: those of live streams, which the fan-out serves, and those of on-demand streams."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from mist.core.dtsc import DtscMuxer
from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed
from mist.formats import dtsc_session as d
from mist.formats.tracks import TrackInfo
from mist.outputs.base import selection
from mist.outputs.base.film_player import ENDED, FilmPlayer, ResumedFilm
from mist.outputs.base.on_demand import Beginning
from mist.outputs.base.resumed import pack_saved, resume_viewer
from mist.stream.capability import Capability
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import parse_parameters
from mist.stream.reader import StreamReader
from mist.stream.services import ConnectionRecord, OutputServices

HANG_UP_SECONDS: Final = 20.0  # for a peer that was told the end


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
        reader: StreamReader | None,
        indexes: list[int],
        peer: str,
        exact: bool,
    ) -> None:
        """reader: given back at the end; None when the stream has gone."""
        self.fd = -1
        self.exact = exact
        self.subscription: Any = None
        self.saved: dict[str, Any] = {}
        self.gives_back = True
        self._services = services
        self._session = session
        self._record = record
        self._reader = reader
        self._indexes = indexes
        self._peer = peer
        self._sent_bytes = 0
        self._pinged = False
        self._zero_us = reader.wall_clock_offset_us if reader is not None else 0
        self._timer: asyncio.TimerHandle | None = None

    def make_muxer(self, tracks: list[TrackInfo]) -> Muxer:
        """Return the muxer of a group of players."""
        return player_muxer(self._reader, tracks, self.exact)

    def started(self) -> None:
        """Begin to hear and to look after the connection: the fan-out has it."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        self._guarded_handle(b"")

    def _tick(self) -> None:
        """Ping a peer that was sent nothing for a second, and tell it when the stream's wall clock changed."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        zero_us = self._reader.wall_clock_offset_us if self._reader is not None else self._zero_us
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
            self.subscription.receive(self._received)
        except (PeerClosed, OSError):
            self.subscription.close("CLEAN_REMOTE_CLOSE")

    def state(self) -> bytes:
        """Return what another process needs to hear the peer."""
        return pack_saved(self.saved, self._session.export_playing())

    def _received(self, data: bytes) -> bytes:
        self._record.add_bytes(0, len(data))
        self._guarded_handle(data)
        return self.state()

    def _guarded_handle(self, data: bytes) -> None:
        try:
            self._handle(data)
        except MistError as error:
            self._services.log.info("DTSC player %s of %s: %s", self._peer, self.saved["stream"], error)
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
        if self._reader is not None and 0 <= place < len(self._indexes):
            times = [key.dts_us for key in self._reader.keys(self._indexes[place])]
            longest_ms = max((after - before for before, after in itertools.pairwise(times)), default=0) // 1000
        if d.key_duration_fits(asked.duration_ms, longest_ms):
            self._session.send_ok("Key duration matches")
            return
        self.subscription.send(d.command_bytes("error", msg="Key duration mismatch; there are keyframes that you lost"))
        # What was said in answer to received bytes is sent once those are taken.
        self._services.loop.call_soon(self.subscription.close, "CLEAN_INTENDED_STOP")

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
        if self._reader is not None and self.gives_back:
            self._services.close_stream(self._reader)

    def resume(self, sock: socket.socket, capability: Capability) -> None:
        """Go on with what another process had saved. Raises MistError, OSError."""
        parameters = parse_parameters(self.saved["asked"])
        self.fd = sock.fileno()
        self.gives_back = False
        self.subscription, self._reader = resume_viewer(
            self._services,
            sock,
            self._record,
            self.saved,
            lambda reader, tracks: player_muxer(reader, tracks, self.exact),
            lambda reader, states: selection(reader, parameters, capability, "")(states),
            on_close=self.closed,
            on_readable=self.readable,
        )
        self._zero_us = self._reader.wall_clock_offset_us if self._reader is not None else 0
        self.started()


def player_muxer(reader: StreamReader | None, tracks: list[TrackInfo], exact: bool) -> Muxer:
    """Return the muxer of a group of players. reader: None for a stream that has gone."""
    if reader is None:
        return DtscMuxer(tracks, live=True, exact=exact)
    return DtscMuxer(tracks, live=reader.live, unix_zero_us=lambda: reader.wall_clock_offset_us, exact=exact)


def resume_play(
    services: OutputServices,
    capability: Capability,
    sock: socket.socket,
    peer: str,
    record: Any,
    saved: dict[str, Any],
    state: bytes,
) -> LivePlayer:
    """Go on with a player of another process. Raises MistError, OSError."""
    session = d.ListenerSession.resume_playing(state, time.monotonic())
    player = LivePlayer(services, session, record, None, saved["indexes"], peer, saved["exact"])
    player.saved = saved
    player.resume(sock, capability)
    return player


class FilePlayer(FilmPlayer):
    """A connection that plays an on-demand stream: packets in the order of their times, a few seconds ahead of the clock."""

    protocol = "DTSC"

    def __init__(
        self,
        services: OutputServices,
        session: d.ListenerSession,
        media: OnDemandReader,
        indexes: list[int],
        beginning: Beginning,
        asked: Mapping[str, str],
    ) -> None:
        """Make the muxer. asked: the parameters of `play`. Raises UnsupportedError, NoSuitableTrack."""
        reader = media.reader
        exact = asked.get(d.EXACT) == "1"

        def make_muxer(tracks: list[TrackInfo]) -> Muxer:
            return DtscMuxer(tracks, live=False, unix_zero_us=lambda: reader.wall_clock_offset_us, exact=exact)

        super().__init__(services, session, media, indexes, make_muxer, beginning, parse_parameters(asked))
        self._session = session
        self.saved = {"asked": dict(asked)}

    def started(self) -> None:
        """Begin to play; `start` does the work."""

    def _session_state(self) -> bytes:
        return self._session.export_playing()

    async def _play(self) -> None:
        if self._phase != ENDED:
            await self.send_media()
            self._session.send_error("The stream has ended")
            self._phase = ENDED
            await self._answer()
        # The peer hangs up first: closing while something of it is unread would take back what it has not received yet.
        self._socket.shutdown(socket.SHUT_WR)
        await asyncio.sleep(HANG_UP_SECONDS)

    async def _pace(self, position_us: int) -> None:
        """Wait until the clock has come near; answer the peer meanwhile, and show that the connection lives."""
        await self._answer()
        while (early := self._early_seconds(position_us)) > 0:
            await asyncio.sleep(min(early, d.IDLE_PING_SECONDS))
            if early > d.IDLE_PING_SECONDS:
                self._session.send_ping()
            await self._answer()

    def _take(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, d.PeerFailed):
                raise PeerClosed(f"the peer says: {event.text}")
            if isinstance(event, d.KeyDurationAsked):
                self._session.send_ok("Key duration noted")


def resume_film(
    services: OutputServices, sock: socket.socket, record: Any, saved: dict[str, Any], state: bytes
) -> ResumedFilm:
    """Go on with an on-demand stream that another process had begun to send. Raises MistError."""
    session = d.ListenerSession.resume_playing(state, time.monotonic())

    def make(media: OnDemandReader, beginning: Beginning) -> FilePlayer:
        return FilePlayer(services, session, media, list(saved["indexes"]), beginning, saved["asked"])

    return ResumedFilm(services, sock, record, saved, make)
