"""Live sources that arrive as bytes of a file format: pipes, programs, and http servers that send without end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from mist.core.demuxer import PacketList
from mist.errors import MistError, RemoteProtocolError, TransportError, UnsupportedError
from mist.stream.continued_tracks import FORGET_TRACKS_SECONDS
from mist.stream.source_intake import SourceIntake

if TYPE_CHECKING:
    from mist.formats.containers import Container
    from mist.stream.services import InputServices

SILENCE_SECONDS: Final = 20.0
MAX_AHEAD_US: Final = 5_000_000  # of real time: what is more waits in the source
MAX_STEP_US: Final = 5_000_000  # between packets: what is more is a jump
FASTER_PER_MILLE: Final = 1  # than our clock a source may run for ever


class RealTime:
    """Tells how long a source that is ahead of real time is left waiting.

    Times that jump, to either side, are another time base, and no media that would take so long.
    """

    def __init__(self) -> None:
        self._began_us: int | None = None
        self._newest_us: int | None = None
        self._media_us = 0

    def note(self, dts_us: int) -> None:
        """Take the decode time of the next packet of any track."""
        step_us = 0 if self._newest_us is None else dts_us - self._newest_us
        if 0 < step_us <= MAX_STEP_US:
            self._media_us += step_us
        if self._newest_us is None or step_us > 0 or step_us < -MAX_STEP_US:
            self._newest_us = dts_us

    def wait_us(self, now_us: int) -> int:
        """Return how long to wait before more is read. A source that is late begins its time anew."""
        if self._began_us is None:
            self._began_us = now_us
        passed_us = now_us - self._began_us
        ahead_us = self._media_us - passed_us - passed_us * FASTER_PER_MILLE // 1000
        if ahead_us < 0:
            self._began_us, self._media_us = now_us, 0
        return max(ahead_us - MAX_AHEAD_US, 0)


def silence_seconds(services: InputServices) -> float:
    """Return how long a source that is connected may say nothing."""
    return float(services.config.get("inputtimeout") or SILENCE_SECONDS)


async def play_bytes(
    services: InputServices,
    name: str,
    container: Container,
    read: Callable[[], Awaitable[bytes]],
    silence_s: float | None,
    head: bytes = b"",
) -> int:
    """Write a source into the stream as it comes, not faster than in real time; return how many packets that was.

    name: of the source, for messages. read: returns what is there, b"" at the end. silence_s: how long a source may say
    nothing, None for ever. head: what was read already.
    Raises TransportError for a source that was silent for longer, MistError for what its bytes are.
    """
    if container.make_demuxer is None:
        raise UnsupportedError(f"{name}: mist does not read {container.name}")
    demuxer = container.make_demuxer()
    sink = PacketList()
    demuxer.attach(sink)
    intake = SourceIntake(services.publisher, services.record, services.log)
    forget = services.loop.call_later(FORGET_TRACKS_SECONDS, intake.forget_left)
    pace = RealTime()
    pending, over, position = head, False, 0
    try:
        while (wanted := demuxer.want()) is not None:
            skipped = wanted[0] - position
            if skipped < 0:
                raise UnsupportedError(
                    f"byte {wanted[0]} is needed after byte {position}: a file like this cannot be played as it comes",
                    offset=position,
                )
            if not pending and not over:
                pending = await _read(name, read, silence_s)
                over = not pending
                services.record.add_bytes(0, len(pending))
            if skipped and not over:
                position += min(skipped, len(pending))
                pending = pending[skipped:]
                continue
            piece, pending = pending[: wanted[1]], pending[wanted[1] :]
            position += len(piece)
            demuxer.feed(piece)
            if demuxer.ready:
                intake.describe(demuxer.tracks)
            packets = sink.take()
            for packet in packets:
                intake.write(packet)
                pace.note(packet.dts_us)
            if packets:
                await asyncio.sleep(pace.wait_us(time.monotonic_ns() // 1000) / 1e6)
    except RemoteProtocolError as error:
        raise MistError(f"{name}, byte {position}: {error}", reason=error.reason) from None
    finally:
        forget.cancel()
    return intake.packets_written


async def _read(source: str, read: Callable[[], Awaitable[bytes]], silence_s: float | None) -> bytes:
    try:
        async with asyncio.timeout(silence_s):
            return await read()
    except TimeoutError:
        raise TransportError(f"{source}: nothing came for {silence_s or 0:g} s") from None
