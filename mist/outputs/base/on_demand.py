"""A progressive reply from an on-demand stream: one viewer, its own muxer, as fast as its socket takes the bytes.

Packets are muxed from the spans in steps of SEND_BYTES, so a viewer costs little memory however long the keyframe intervals are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from mist.core.checkpoint import Record
from mist.core.kernel_counts import sent_bytes
from mist.core.muxer import Muxer
from mist.errors import LocalProtocolError, MistError, NoSuitableTrack, NotReady, WriteStalled
from mist.formats.tracks import TrackInfo
from mist.net.wire import recovery_record
from mist.stream.on_demand import LoadedSpan, OnDemandReader, places
from mist.stream.parameters import UNLIMITED_RATE, PlaybackParameters
from mist.stream.services import ConnectionRecord, OutputServices

SEND_BYTES: Final = 256 << 10
STALL_SECONDS: Final = 300.0  # a player that pauses stops reading; it may do so for this long
STALLED: Final = f"the viewer took nothing for {STALL_SECONDS:.0f} s"
LAST_CHUNK: Final = b"0\r\n\r\n"
HEADER, SPANS, END = "header", "spans", "end"  # what a viewer is sent next
AHEAD_US: Final = 7_500_000  # sent ahead of the clock, for a viewer that asked for a rate

Saver = Callable[[Mapping[str, Any]], bytes]

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
        self._services: OutputServices
        self._loop: asyncio.AbstractEventLoop
        self._record: ConnectionRecord
        self._chunked = False
        self._saver: Saver | None = None
        self._kept: Record | None = None  # the record, if another process can go on with it
        self._sent = 0  # bytes of the connection
        self._skip = 0  # of what comes next, the viewer has that
        # What was saved last: bytes sent, strings, place.
        self._noted: tuple[int, bytes, Mapping[str, Any]] | None = None

    def place(self) -> dict[str, Any]:
        """Return where the next bytes of media come from, for another process. Raises LocalProtocolError where that cannot be said."""
        raise NotImplementedError

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
        saver: Saver | None = None,
        resumed: bool = False,
    ) -> asyncio.Task[None]:
        """Send in the background. fd is this object's from now on; on_close is called at the end, whatever it is.

        head: bytes before the media. chunked: the media is sent in HTTP chunks, so that the viewer can tell an end from a break.
        saver: makes the state for the record from members; without it no other process can go on. resumed: another process has
        begun, and its place is this object's already.
        """
        self._chunked = chunked
        self._services = services
        self._loop = services.loop
        self._record = record
        self._saver = saver
        self._kept = recovery_record(record)
        if self._kept is not None and saver is None:
            self._kept.give_up()
            self._kept = None
        if self._kept is not None:
            self._sent = sent_bytes(fd) - self._kept.bases[0]
            if resumed:
                head = self._resume(self._kept)
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

    def _resume(self, record: Record) -> bytes:
        """Return what is unsent of the head, and skip what is sent of the media after it."""
        sent_at, _, pending, *_ = record.progress()
        done = self._sent - sent_at
        self._skip = max(0, done - len(pending))
        return pending[done:]

    def save(self, *before: bytes) -> None:
        """Write down what comes next, after the strings `before`: nothing of it is sent yet."""
        if self._kept is None or self._saver is None or self._skip:
            return
        try:
            members = {**self.place(), "chunked": self._chunked}
        except LocalProtocolError:
            return  # the place before this one stays: from there, the same bytes come again
        self._noted = (self._sent, b"".join(before), members)
        self.save_noted(self._kept.received)

    def save_noted(self, received: int) -> None:
        """Write the place that was saved last down again. received: bytes of the connection that are in it now."""
        if self._kept is not None and self._saver is not None and self._noted is not None:
            sent_at, before, members = self._noted
            self._kept.save(sent_at, received, [before], self._saver(members))

    async def _run(self, head: bytes) -> None:
        self.save(head)
        await self._send_bytes(head)
        await self.send_media()
        if self._chunked:
            await self._send_skipped(LAST_CHUNK)

    async def send(self, data: bytes) -> None:
        """Send media. Raises WriteStalled, OSError."""
        if data:
            await self._send_skipped(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            self._record.set_position(self.position_us)

    async def _send_skipped(self, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        if skipped < len(data):
            await self._send_bytes(data[skipped:] if skipped else data)

    async def send_from(self, memory: BinaryIO, position: int, count: int) -> None:
        """Send media that lies in a file, which must not change, without a copy of it. Raises WriteStalled, OSError."""
        ended: asyncio.Future[None] = self._loop.create_future()

        def on_end(error: OSError | None) -> None:
            if not ended.done():
                ended.set_result(None) if error is None else ended.set_exception(error)

        pump = self._services.file_pump
        run = pump.send(self._socket.fileno(), memory.fileno(), position, count, self._record.add_bytes, on_end)
        try:
            while not ended.done():
                before = run.position
                await asyncio.wait((ended,), timeout=STALL_SECONDS)
                if run.position == before and not ended.done():
                    raise WriteStalled(STALLED)
            ended.result()
        finally:
            pump.forget(run)
            self._sent += run.position - position
        self._record.set_position(self.position_us)

    async def _send_bytes(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._loop.sock_sendall(self._socket, data)
        except TimeoutError:
            raise WriteStalled(STALLED) from None
        self._sent += len(data)
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

    def begin_at(self, beginning: Beginning) -> None:
        """Go on somewhere else, with a muxer that knows nothing of what was sent. Raises UnsupportedError, NoSuitableTrack."""
        self._beginning = beginning
        self._began_at = 0.0
        self._infos = self._infos_of(beginning.loaded)
        self._muxer = self._make_muxer(self._infos)
        self._phase = HEADER
        self._number = beginning.loaded.number  # of the span that comes next, and of the packet in it
        self._packet = 0
        self._new_init = False
        self._paced_us = beginning.start_us  # media time that the clock of the pace began with

    def _infos_of(self, loaded: LoadedSpan) -> list[TrackInfo]:
        if max(self._indexes) >= len(loaded.infos):
            raise NoSuitableTrack(f"The stream {self._media.name} has lost a track")
        return [loaded.infos[index] for index in self._indexes]

    def place(self) -> dict[str, Any]:
        """Return span, packet and the muxer's state."""
        beginning = self._beginning
        return {
            "kind": "media",
            "stream": self._media.name,
            "indexes": self._indexes,
            "phase": self._phase,
            "span": self._number,
            "packet": self._packet,
            "new_init": self._new_init,
            "muxer": self._muxer.state().hex(),
            "header": self._header.hex() if self._header is not None and self._phase == HEADER else None,
            "start_us": self.position_us,
            "paced_us": self._paced_us,
            "began_at": self._began_at,
            "from_us": beginning.from_us,
            "to_us": beginning.to_us,
        }

    def go_to(self, saved: Mapping[str, Any]) -> None:
        """Go on at the place that another process had saved; the beginning is that of its span. Raises LocalProtocolError."""
        self._phase, self._number, self._packet = saved["phase"], saved["span"], saved["packet"]
        self._new_init = saved["new_init"]
        self._header = None if saved["header"] is None else bytes.fromhex(saved["header"])
        self.position_us = saved["start_us"]
        self._paced_us, self._began_at = saved["paced_us"], saved["began_at"]
        self._muxer.restore(bytes.fromhex(saved["muxer"]))

    async def send_media(self) -> None:
        """Send from the beginning, or the place that was gone to, to the end that was asked for."""
        beginning = self._beginning
        loaded = beginning.loaded
        self._began_at = self._began_at or self._loop.time()
        if self._phase == HEADER:
            self.position_us = beginning.start_us
            await self.send(self._muxer.header(beginning.start_us) if self._header is None else self._header)
            self._phase = SPANS
        while self._phase == SPANS:
            await self._send_span(loaded)
            number = loaded.number + 1
            if beginning.to_us is not None and loaded.place.to_us >= beginning.to_us:
                break
            if not await self._media.reaches(number):
                break
            loaded = await self._media.span(number)
            infos = self._infos_of(loaded)
            self._number, self._packet, self._new_init = number, 0, infos != self._infos
            if self._new_init:
                self._infos = infos
                if not self._muxer.set_tracks(infos):
                    raise MistError("the tracks change, which the format cannot follow", reason="CLEAN_EOF")
                await self.send(self._muxer.take_output())
        self._phase = END
        self.save()
        self._finish_muxer()
        await self.send(self._muxer.take_output())

    def _finish_muxer(self) -> None:
        finish: Callable[[], None] | None = getattr(self._muxer, "finish", None)
        if finish is not None:
            finish()

    async def _send_span(self, loaded: LoadedSpan) -> None:
        """Mux and send what the viewer wants of one span; the next one is loaded while the last of this one is sent."""
        span = loaded.span
        place_of = places(self._indexes, len(loaded.infos))
        window: dict[str, Any] = dict(self._beginning.window)
        while self._packet < len(span):
            self.save()
            new_init = self._new_init and not self._packet
            self._packet = span.mux(
                self._muxer, place_of, self._packet, limit=self.step_bytes, new_init=new_init, **window
            )
            if self._packet == len(span):
                self._media.prepare(loaded.number + 1)
            self.position_us = span.time_of(self._packet - 1)
            await self.send(self._muxer.take_output())
            await self._pace(self.position_us)

    def _early_seconds(self, position_us: int) -> float:
        """Return how long a packet's time is still away; at most 0 when it may be sent."""
        if self._rate == UNLIMITED_RATE:
            return 0.0
        media_us = position_us - self._paced_us - self._ahead_us
        return self._began_at + media_us / 1e6 / self._rate - self._loop.time()

    async def _pace(self, position_us: int) -> None:
        early = self._early_seconds(position_us)
        if early > 0:
            await asyncio.sleep(early)
