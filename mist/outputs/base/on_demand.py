"""A progressive reply from an on-demand stream: one viewer, its own muxer, as fast as its socket takes the bytes.

Packets are muxed from the spans in steps of SEND_BYTES, so a viewer costs little memory however long the keyframe intervals are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.errors import MistError, NoSuitableTrack, NotReady, WriteStalled
from mist.formats.tracks import TrackInfo
from mist.stream.on_demand import LoadedSpan, OnDemandReader, places
from mist.stream.parameters import UNLIMITED_RATE, PlaybackParameters
from mist.stream.services import ConnectionRecord, OutputServices

SEND_BYTES: Final = 256 << 10
STALL_SECONDS: Final = 300.0  # a player that pauses stops reading; it may do so for this long
LAST_CHUNK: Final = b"0\r\n\r\n"
AHEAD_US: Final = 7_500_000  # sent ahead of the clock, for a viewer that asked for a rate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a viewer begins. from_us: decode time of its first packets, None for the stream's own beginning.

    to_us: decode time before which it ends, None for the stream's end.
    """

    loaded: LoadedSpan
    from_us: int | None
    to_us: int | None

    @property
    def start_us(self) -> int:
        return self.loaded.place.from_us if self.from_us is None else self.from_us

    @property
    def window(self) -> dict[str, int]:
        """The times as `Span.mux` takes them."""
        times = {"from_us": self.from_us, "to_us": self.to_us}
        return {name: time_us for name, time_us in times.items() if time_us is not None}


async def begin(
    media: OnDemandReader, indexes: list[int], parameters: PlaybackParameters, now_unix_us: int
) -> Beginning:
    """Find the span that a viewer begins with, and wait until it is there.

    A start time means the keyframe at it or before it. Raises NotReady, and what is wrong with the file.
    """
    if not await media.reaches(0):
        raise NotReady(f"The stream {media.name} has no media")
    zero_us = media.reader.wall_clock_offset_us or None
    start_us, stop_us = parameters.window(now_unix_us, zero_us, media.place(0).from_us)
    if start_us is None:
        return Beginning(await media.span(0), None, stop_us)
    await media.reaches_time(start_us)
    loaded = await media.span(media.find(start_us))
    main = media.main if media.main in indexes else indexes[0]
    key_us = loaded.span.key_before(main, start_us)
    return Beginning(loaded, loaded.place.from_us if key_us is None else key_us, stop_us)


async def time_window(
    media: OnDemandReader, indexes: list[int], parameters: PlaybackParameters, now_unix_us: int
) -> dict[str, int]:
    """Return the decode times that a viewer asked for as "from_us" and "to_us", as far as it did. Errors as `begin`."""
    asked = (
        parameters.start_us,
        parameters.stop_us,
        parameters.start_unix_s,
        parameters.stop_unix_s,
        parameters.duration_us,
    )
    if not any(one is not None for one in asked):
        return {}
    return (await begin(media, indexes, parameters, now_unix_us)).window


class Sender:
    """Sends one viewer media over a socket that was taken from its response, waiting for it as it takes them."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.position_us = 0
        self._socket: socket.socket
        self._loop: asyncio.AbstractEventLoop
        self._record: ConnectionRecord
        self._chunked = False

    async def send_media(self) -> None:
        """Send everything, with `send`."""
        raise NotImplementedError

    def start(
        self,
        services: OutputServices,
        fd: int,
        head: bytes,
        record: ConnectionRecord,
        on_close: Callable[[], None],
        *,
        chunked: bool,
    ) -> asyncio.Task[None]:
        """Send in the background. fd is this object's from now on; on_close is called at the end, whatever it is.

        head: bytes before the media. chunked: the media is sent in HTTP chunks, so that the viewer can tell an end from a break.
        """
        self._chunked = chunked
        self._loop = services.loop
        self._record = record
        sock = self._socket = socket.socket(fileno=fd)
        sock.setblocking(False)
        task = services.loop.create_task(self._run(head))

        def stop(reason: str) -> None:
            task.cancel(reason)

        kept = services.keep_socket(fd, stop)

        def ended(done: asyncio.Task[None]) -> None:
            sock.close()
            kept("CLEAN_EOF" if not done.cancelled() and done.exception() is None else "CLEAN_REMOTE_CLOSE")
            on_close()
            if not done.cancelled() and (error := done.exception()) is not None:
                self._log_end(error)

        task.add_done_callback(ended)
        return task

    def _log_end(self, error: BaseException) -> None:
        if isinstance(error, (MistError, OSError)):
            log.info("A viewer of %s ends: %s", self.stream, error)
        else:
            log.error("A viewer of %s failed", self.stream, exc_info=error)

    async def _run(self, head: bytes) -> None:
        await self._send_bytes(head)
        await self.send_media()
        if self._chunked:
            await self._send_bytes(LAST_CHUNK)

    async def send(self, data: bytes) -> None:
        """Send media. Raises WriteStalled, OSError."""
        if data:
            await self._send_bytes(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            self._record.set_position(self.position_us)

    async def _send_bytes(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._loop.sock_sendall(self._socket, data)
        except TimeoutError:
            raise WriteStalled(f"the viewer took nothing for {STALL_SECONDS:.0f} s") from None
        self._record.add_bytes(len(data), 0)


class OnDemandSender(Sender):
    """Sends one viewer what it asked for, in the format of a muxer of its own."""

    step_bytes = SEND_BYTES

    def __init__(
        self,
        media: OnDemandReader,
        indexes: list[int],
        make_muxer: Callable[[list[TrackInfo]], Muxer],
        beginning: Beginning,
        parameters: PlaybackParameters,
        header: bytes | None = None,
    ) -> None:
        """Make the muxer. header: what is sent instead of the muxer's own. Raises UnsupportedError, NoSuitableTrack."""
        super().__init__(media.name)
        self._media = media
        self._indexes = indexes
        self._make_muxer = make_muxer
        self.begin_at(beginning)
        self._header = header
        self._rate = parameters.rate if parameters.rate_given else UNLIMITED_RATE
        self._ahead_us = AHEAD_US if parameters.buffer_us is None else parameters.buffer_us
        self._began_at = 0.0

    def begin_at(self, beginning: Beginning) -> None:
        """Go on somewhere else, with a muxer that knows nothing of what was sent. Raises UnsupportedError, NoSuitableTrack."""
        self._beginning = beginning
        self._infos = self._infos_of(beginning.loaded)
        self._muxer = self._make_muxer(self._infos)

    def _infos_of(self, loaded: LoadedSpan) -> list[TrackInfo]:
        if max(self._indexes) >= len(loaded.infos):
            raise NoSuitableTrack(f"The stream {self._media.name} has lost a track")
        return [loaded.infos[index] for index in self._indexes]

    async def send_media(self) -> None:
        """Send from the beginning to the end that was asked for."""
        beginning = self._beginning
        loaded = beginning.loaded
        self._began_at = self._loop.time()
        self.position_us = beginning.start_us
        await self.send(self._muxer.header(beginning.start_us) if self._header is None else self._header)
        new_init = False
        while True:
            await self._send_span(loaded, new_init)
            number = loaded.number + 1
            if beginning.to_us is not None and loaded.place.to_us >= beginning.to_us:
                break
            if not await self._media.reaches(number):
                break
            loaded = await self._media.span(number)
            infos = self._infos_of(loaded)
            new_init = infos != self._infos
            if new_init:
                self._infos = infos
                if not self._muxer.set_tracks(infos):
                    raise MistError("the tracks change, which the format cannot follow", reason="CLEAN_EOF")
        self._finish_muxer()
        await self.send(self._muxer.take_output())

    def _finish_muxer(self) -> None:
        finish: Callable[[], None] | None = getattr(self._muxer, "finish", None)
        if finish is not None:
            finish()

    async def _send_span(self, loaded: LoadedSpan, new_init: bool) -> None:
        """Mux and send what the viewer wants of one span; the next one is loaded while the last of this one is sent."""
        span = loaded.span
        place_of = places(self._indexes, len(loaded.infos))
        window: dict[str, Any] = dict(self._beginning.window)
        number = 0
        while number < len(span):
            number = span.mux(
                self._muxer, place_of, number, limit=self.step_bytes, new_init=new_init and not number, **window
            )
            if number == len(span):
                self._media.prepare(loaded.number + 1)
            self.position_us = span.time_of(number - 1)
            await self.send(self._muxer.take_output())
            await self._pace(self.position_us)

    def _early_seconds(self, position_us: int) -> float:
        """Return how long a packet's time is still away; at most 0 when it may be sent."""
        if self._rate == UNLIMITED_RATE:
            return 0.0
        media_us = position_us - self._beginning.start_us - self._ahead_us
        return self._began_at + media_us / 1e6 / self._rate - self._loop.time()

    async def _pace(self, position_us: int) -> None:
        early = self._early_seconds(position_us)
        if early > 0:
            await asyncio.sleep(early)
