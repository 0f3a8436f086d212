"""MPEG-1 and MPEG-2 video: sequence and picture headers.   Spec: ISO/IEC 13818-2 clause 6.2.2, 6.2.3; ISO/IEC 11172-2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mist.core.bits import BitReader
from mist.errors import RemoteProtocolError

PICTURE: Final = 0x00
LAST_SLICE: Final = 0xAF
USER_DATA: Final = 0xB2
SEQUENCE: Final = 0xB3
EXTENSION: Final = 0xB5
GROUP: Final = 0xB8

I_PICTURE: Final = 1
HEADER_BYTES: Final = 12
_SEQUENCE_EXTENSION: Final = 1
_START: Final = b"\0\0\1"
MAX_HEADERS: Final = 64  # before the first slice of a picture

# Pictures and seconds by frame_rate_code, table 6-4.
FRAME_RATES: Final = (
    (0, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """A sequence header with its extension, if any. frame_rate: pictures and seconds; (0, 1) for a reserved code.

    extended: this is MPEG-2. low_delay: no picture is presented later than it is decoded. bitrate_bps: 0 where it varies.
    """

    width: int
    height: int
    frame_rate: tuple[int, int]
    bitrate_bps: int = 0
    extended: bool = False
    low_delay: bool = False
    progressive: bool = True

    @property
    def frame_rate_mhz(self) -> int:
        """Frames per 1000 seconds, rounded."""
        over, under = self.frame_rate
        return (over * 1000 + under // 2) // under


def iterate_headers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (start code, what follows it) of the headers before the first slice, at most MAX_HEADERS."""
    at = data.find(_START)
    for _ in range(MAX_HEADERS):
        if at < 0 or at + 3 >= len(data) or PICTURE < data[at + 3] <= LAST_SLICE:
            return
        end = data.find(_START, at + 4)
        yield data[at + 3], data[at + 4 : end if end >= 0 else len(data)]
        at = end


def parse_sequence(data: bytes) -> SequenceHeader:
    """Parse the first sequence header in data, with the extension that follows it.

    Raises RemoteProtocolError where there is none, or one without a picture size.
    """
    found: SequenceHeader | None = None
    for code, body in iterate_headers(data):
        if code == SEQUENCE and found is None:
            found = _parse_header(body)
        elif code == EXTENSION and found is not None and body and body[0] >> 4 == _SEQUENCE_EXTENSION:
            found = _extended(found, body)
            break
        elif code == PICTURE:
            break
    if found is None:
        raise RemoteProtocolError("no sequence header", spec="ISO/IEC 13818-2 clause 6.2.2.1")
    if not found.width or not found.height:
        raise RemoteProtocolError("a sequence without picture size", spec="ISO/IEC 13818-2 clause 6.3.3")
    return found


def _parse_header(body: bytes) -> SequenceHeader:
    bits = BitReader(body)
    width, height = bits.u(12), bits.u(12)
    bits.skip(4)
    code, rate = bits.u(4), bits.u(18)
    frame_rate = FRAME_RATES[code] if code < len(FRAME_RATES) else (0, 1)
    return SequenceHeader(width, height, frame_rate, 0 if rate == 0x3FFFF else rate * 400)


def _extended(header: SequenceHeader, body: bytes) -> SequenceHeader:
    """Add what a sequence extension says.   Spec: ISO/IEC 13818-2 clause 6.2.2.3."""
    bits = BitReader(body)
    bits.skip(12)
    progressive = bits.flag()
    bits.skip(2)
    width, height = bits.u(2) << 12 | header.width, bits.u(2) << 12 | header.height
    bitrate = bits.u(12) * 400 << 18
    bits.skip(1 + 8)
    low_delay = bits.flag()
    over, under = bits.u(2) + 1, bits.u(5) + 1
    frame_rate = (header.frame_rate[0] * over, header.frame_rate[1] * under)
    bitrate = header.bitrate_bps + bitrate if header.bitrate_bps else 0
    return SequenceHeader(width, height, frame_rate, bitrate, True, low_delay, progressive)


def picture_type(data: bytes) -> int:
    """Return picture_coding_type (1 I, 2 P, 3 B) of the first picture in data; 0 without one."""
    for code, body in iterate_headers(data):
        if code == PICTURE:
            return body[1] >> 3 & 7 if len(body) > 1 else 0
    return 0


def is_keyframe(payload: bytes) -> bool:
    """Tell whether decoding can begin here: a sequence header and an I picture."""
    codes = {code for code, _ in iterate_headers(payload)}
    return SEQUENCE in codes and picture_type(payload) == I_PICTURE
