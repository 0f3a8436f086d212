"""On-demand streams sent to another server, which takes live ones: at the speed of their clock, to their end.

Another process can go on with such a connection at the byte, but for one over TLS, as with a player's.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed
from mist.formats.tracks import TrackInfo
from mist.net.dial import Dialled
from mist.outputs.base import Choice
from mist.outputs.base.continued import reopened_film
from mist.outputs.base.film_player import ENDED, KIND, FilmPlayer
from mist.outputs.base.on_demand import SEND_BYTES, Beginning, begin
from mist.outputs.base.publishing import FAREWELL_SECONDS, LOST, STOPPED, Destination, let_go
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import UNLIMITED_RATE, PlaybackParameters
from mist.stream.push import LeftConnection, PushStatus
from mist.stream.services import OutputServices

ONE_PACKET: Final = 1  # bytes at least that are muxed at once
HANG_UP_SECONDS: Final = 20.0  # for a server that was told the end
NOTE_US: Final = 1_000_000  # of media, until it is noted again how far the film is

AT_US: Final = "at_us"  # members of the note
TO_US: Final = "to_us"

MakeMuxer = Callable[[list[TrackInfo]], Muxer]


class _Left(Exception):
    """The push is to end before its film does."""


class FilmPublishing:
    """A push of an on-demand stream."""

    def __init__(
        self,
        services: OutputServices,
        destination: Destination,
        status: PushStatus,
        parameters: PlaybackParameters,
        saved: Mapping[str, Any],
    ) -> None:
        """saved: what the next process needs besides, as JSON has it."""
        self._services = services
        self._destination = destination
        self._status = status
        # Nothing ahead of the clock, unless it is asked for: the server hands it on as it comes.
        self._parameters = parameters if parameters.buffer_us is not None else replace(parameters, buffer_us=0)
        self._saved = saved

    async def run(self, dialled: Dialled, choice: Choice, make_muxer: MakeMuxer, record: Any) -> None:
        """Send until the film's end. Raises MistError."""
        status, relay = self._status, dialled.relay
        media = self._services.on_demand(choice.reader)
        try:
            wish = _where_it_was(self._status, self._parameters)
            beginning = await begin(media, choice.indexes, wish, time.time_ns() // 1000)
            film = self._film(media, choice.indexes, make_muxer, beginning, secure=relay is not None)
        except BaseException:
            dialled.close()
            raise
        head = self._destination.session.take_output()
        fd = dialled.sock.detach()
        status.first_ms = beginning.start_us // 1000
        film.saved = {**self._saved, "began": status.began, "first_ms": status.first_ms}
        if relay is None:  # the keys of TLS are in this process alone
            status.keep_connection(record, fd)
        try:
            await film.send_all(fd, head, record)
        finally:
            if relay is not None:
                await relay.wait_sent(FAREWELL_SECONDS)
                relay.close()

    async def go_on(self, left: LeftConnection, saved: Mapping[str, Any], make_muxer: MakeMuxer) -> bool:
        """Go on with a connection of another process until the film's end; False when that cannot be. Raises MistError.

        saved: of `take_left`.
        """
        services, status = self._services, self._status
        try:
            reader = await reopened_film(services, str(saved["stream"]), status)
        except MistError as error:
            services.log.warning(LOST, error)
            let_go(left)
            return False
        try:
            media = services.on_demand(reader)
            beginning = Beginning(await media.span(saved["span"]), saved["from_us"], saved["to_us"])
            film = self._film(media, list(saved["indexes"]), make_muxer, beginning, secure=False)
            film.go_to(saved)
        except MistError as error:
            services.log.warning(LOST, error)
            services.close_stream(reader)
            let_go(left)
            return False
        film.saved = {name: saved[name] for name in (*self._saved, "began", "first_ms")}
        status.began, status.tracks, status.first_ms = saved["began"], list(saved["indexes"]), saved["first_ms"]
        try:
            status.keep_connection(left.record, left.fd)
            await film.send_all(left.fd, b"", left.record)
        finally:
            left.record.close()
            services.close_stream(reader)
        return True

    def _film(
        self, media: OnDemandReader, indexes: list[int], make_muxer: MakeMuxer, beginning: Beginning, *, secure: bool
    ) -> _Film:
        return _Film(
            self._services,
            self._destination,
            self._status,
            media,
            indexes,
            make_muxer,
            beginning,
            self._parameters,
            secure=secure,
        )


class _Film(FilmPlayer):
    """The connection on which the server waits."""

    peer = "server"

    def __init__(
        self,
        services: OutputServices,
        destination: Destination,
        status: PushStatus,
        media: OnDemandReader,
        indexes: list[int],
        make_muxer: MakeMuxer,
        beginning: Beginning,
        parameters: PlaybackParameters,
        *,
        secure: bool,
    ) -> None:
        """Make the muxer. Raises UnsupportedError, NoSuitableTrack."""
        super().__init__(services, destination.session, media, indexes, make_muxer, beginning, parameters)
        self.protocol = destination.protocol
        self.step_bytes = SEND_BYTES if self._rate == UNLIMITED_RATE else ONE_PACKET
        self._destination = destination
        self._status = status
        self._secure = secure
        self._noted_us: int | None = None
        self._failure: MistError | None = None
        self._leaving = False
        self._stirred = asyncio.Event()  # the server said something, or the push is to end
        self._hung_up = asyncio.Event()

    async def send_all(self, fd: int, head: bytes, record: Any) -> None:
        """Send until the film's end. fd is this object's from now on. Raises MistError."""
        status = self._status
        task = self.start(
            self._services, fd, head, record, lambda: None, chunked=False, saver=self.state, resumed=self.goes_on
        )
        status.leave = self._leave
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self._leave()
            await asyncio.wait((task,), timeout=FAREWELL_SECONDS)
            task.cancel(STOPPED)
            raise
        finally:
            status.leave = None
        if self._failure is not None:
            raise self._failure
        if task.cancelled():
            raise PeerClosed("the connection was closed")
        try:
            task.result()
        except OSError as error:
            raise PeerClosed(f"the connection broke: {error}") from None

    def _leave(self) -> None:
        """End behind the packet that is being sent."""
        self._leaving = True
        self._stirred.set()

    def _log_end(self, error: BaseException) -> None:
        """Leave that to the push, whose result it is."""

    # -- sending

    async def _play(self) -> None:
        if self._phase != ENDED:
            with suppress(_Left):
                await self.send_media()
            self._owed += self._destination.farewell()
            self._phase = ENDED
            await self._answer()
        if not self._secure and not self._leaving:
            # The server hangs up first: closing while something of it is unread would take back what it has not received yet.
            self._socket.shutdown(socket.SHUT_WR)
            with suppress(TimeoutError):
                async with asyncio.timeout(HANG_UP_SECONDS):
                    await self._hung_up.wait()

    async def send(self, data: bytes) -> None:
        """Send media, and tell how far it is."""
        await super().send(data)
        self._status.bytes, self._status.last_ms = self._sent, self.position_us // 1000
        if self._noted_us is None or self.position_us - self._noted_us >= NOTE_US:
            self._note_where()

    def _note_where(self) -> None:
        """Let a process that has to connect again begin here."""
        self._noted_us, note = self.position_us, self._status.note
        if note is None:
            return
        try:
            note.write({AT_US: self.position_us, TO_US: self._beginning.to_us}, AT_US, dict)
        except OSError as error:
            self._services.log.debug("If this process dies, its film begins again: %s", error)

    async def _pace(self, position_us: int) -> None:
        """Wait until the clock has come near, and answer the server meanwhile."""
        await self._answer()
        while not self._leaving and (early := self._early_seconds(position_us)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(early):
                    await self._stirred.wait()
            self._stirred.clear()
            await self._answer()
        if self._leaving:
            raise _Left

    # -- hearing

    def _session_state(self) -> bytes:
        return self._destination.session.export_state()

    def _take(self, data: bytes) -> None:
        for event in self._destination.session.feed(data, time.monotonic()):
            self._destination.heard(event)
        self._stirred.set()

    def _broken(self, error: MistError | OSError) -> None:
        if self._phase == ENDED:
            self._hung_up.set()
            return
        self._failure = error if isinstance(error, MistError) else PeerClosed(f"the connection broke: {error}")
        self.close(self._failure.reason)


def _where_it_was(status: PushStatus, parameters: PlaybackParameters) -> PlaybackParameters:
    """Return the parameters, but for a film that a process before this one had begun its place as the start."""
    try:
        left = None if status.note is None else status.note.read()
    except (OSError, ValueError):
        left = None
    if left is None or AT_US not in left[0]:
        return parameters
    at_us, to_us = left[0][AT_US], left[0][TO_US]
    return replace(parameters, start_us=at_us, stop_us=to_us, start_unix_s=None, stop_unix_s=None, duration_us=None)


def is_film(saved: Mapping[str, Any]) -> bool:
    """Tell whether a connection that another process had was sending an on-demand stream. saved: of `take_left`."""
    return saved.get("kind") == KIND
