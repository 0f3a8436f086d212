"""A connection that plays an on-demand stream and may speak meanwhile: a few seconds ahead of the clock, and in any process.

What the player says is read as everywhere: looked at, written down, and only then taken from the kernel. What it is answered goes
between two packets.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from mist.core.kernel_counts import received_bytes, skip_received
from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed, WriteStalled
from mist.formats.tracks import TrackInfo
from mist.outputs.base.on_demand import Beginning, OnDemandSender
from mist.outputs.base.resumed import pack_saved
from mist.outputs.base.session_connection import READ_BYTES
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters
from mist.stream.services import ConnectionRecord, OutputServices

KIND: Final = "film"  # of a record's state
ENDED: Final = "ended"  # what a player is sent next, after the end: nothing
MAX_OWED_BYTES: Final = 64 << 10  # of answers, to a player that asks and does not read


class TalkingSession(Protocol):
    """What of a protocol's session is used here."""

    def take_output(self) -> bytes: ...


class FilmPlayer(OnDemandSender):
    """Sends a film at the speed of its clock, unless the player asked for another. A protocol implements what follows `_play`."""

    protocol: str
    peer = "player"

    def __init__(
        self,
        services: OutputServices,
        session: TalkingSession,
        media: OnDemandReader,
        indexes: list[int],
        make_muxer: Callable[[list[TrackInfo]], Muxer],
        beginning: Beginning,
        parameters: PlaybackParameters,
    ) -> None:
        """Make the muxer. Raises UnsupportedError, NoSuitableTrack."""
        if not parameters.rate_given:
            parameters = replace(parameters, rate=1.0, rate_given=True)
        super().__init__(media, indexes, make_muxer, beginning, parameters)
        self._services = services
        self._output = session.take_output
        self._parameters = parameters
        self._task: asyncio.Task[None] | None = None
        self._fd = -1
        self._owed = b""  # said by the session, not sent
        self.saved: Mapping[str, Any] = {}  # what another process needs besides the place
        self.goes_on = False

    async def _play(self) -> None:
        """Send everything."""
        raise NotImplementedError

    def _take(self, data: bytes) -> None:
        """Take bytes from the player. Raises MistError."""
        raise NotImplementedError

    def _session_state(self) -> bytes:
        """Return what the session needs in another process."""
        raise NotImplementedError

    def _heard(self) -> dict[str, Any]:
        """Return what the player has said so far, for another process."""
        return {}

    def close(self, reason: str) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel(reason)

    # -- another process

    def state(self, place: Mapping[str, Any]) -> bytes:
        """Return what another process needs to go on from a place."""
        self._owed += self._output()
        heard = {**self._heard(), "owed": self._owed.hex()}
        return pack_saved({**self.saved, **place, **heard, "kind": KIND}, self._session_state())

    def go_to(self, saved: Mapping[str, Any]) -> None:
        """Go on where another process was. Raises LocalProtocolError."""
        super().go_to(saved)
        self._owed = bytes.fromhex(saved["owed"])
        self.goes_on = True

    def _take_over(self) -> None:
        """Take note of what is written down already, and take from the kernel what is in that."""
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
            self._take_over()
        else:
            self.save(head)
        self._loop.add_reader(self._fd, self._readable)
        try:
            await self._send_bytes(head)
            if not self.goes_on:
                self._take(b"")  # what came with the request
            await self._play()
        finally:
            self._loop.remove_reader(self._fd)

    async def _answer(self) -> None:
        """Send what the session has to say, between two messages."""
        output = self._owed + self._output()
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
                raise PeerClosed(f"the {self.peer} closed the connection")
            self._hear_bytes(data)
            if len(self._owed) > MAX_OWED_BYTES:
                raise WriteStalled(f"the {self.peer} does not read what it is answered")
        except (BlockingIOError, InterruptedError):
            return
        except (MistError, OSError) as error:
            self._loop.remove_reader(self._fd)
            self._broken(error)

    def _broken(self, error: MistError | OSError) -> None:
        """End a connection that its peer has closed, or on which it said what it must not."""
        self._services.log.info("%s player of %s ends: %s", self.protocol, self._media.name, error)
        self.close(getattr(error, "reason", "CLEAN_REMOTE_CLOSE"))

    def _hear_bytes(self, data: bytes) -> None:
        """Take bytes from the player, and from the kernel once they are written down. Raises MistError, OSError."""
        kept = self._kept
        self._record.add_bytes(0, len(data))
        if kept is None:
            self._take(data)
            self._owed += self._output()
            self._socket.recv(len(data))  # behind it may be no TCP, of which bytes cannot be skipped
            return
        kept.blame(True)
        try:
            self._take(data)
        finally:
            kept.blame(False)
        self.save_noted(kept.received + len(data))
        skip_received(self._fd, len(data))


class ResumedFilm:
    """A film that another process had begun: its stream is opened first.

    make: returns the player, for the beginning that it had but for the span, which is that of the place where it goes on.
    """

    def __init__(
        self,
        services: OutputServices,
        sock: socket.socket,
        record: ConnectionRecord,
        saved: Mapping[str, Any],
        make: Callable[[OnDemandReader, Beginning], FilmPlayer],
    ) -> None:
        self._services = services
        self._socket = sock
        self._record = record
        self._saved = saved
        self._make = make
        self._player: FilmPlayer | None = None
        self._task = services.loop.create_task(self._start())

    async def _start(self) -> None:
        services, record, saved = self._services, self._record, self._saved
        try:
            reader = await services.open_stream(str(saved["stream"]))
            try:
                media = services.on_demand(reader)
                player = self._make(media, Beginning(await media.span(saved["span"]), saved["from_us"], saved["to_us"]))
                player.go_to(saved)
            except BaseException:
                services.close_stream(reader)
                raise
        except (MistError, OSError, asyncio.CancelledError) as error:
            services.log.info("A viewer of %s ends: it could not be continued: %s", saved["stream"], error)
            self._socket.close()
            record.close()
            return

        def closed() -> None:
            record.close()
            services.close_stream(reader)

        self._player = player
        fd = self._socket.detach()
        player.start(services, fd, b"", record, closed, chunked=False, saver=player.state, resumed=True)

    def close(self, reason: str) -> None:
        """End the connection."""
        if self._player is not None:
            self._player.close(reason)
        else:
            self._task.cancel()
