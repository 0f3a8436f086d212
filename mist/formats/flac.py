"""FLAC: stream information and frame headers.   Spec: RFC 9639 sections 8.2 and 9.1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.core.bits import BitReader
from mist.errors import RemoteProtocolError, TruncatedError

STREAM_INFO_BYTES: Final = 34
MAX_FRAME_HEADER_BYTES: Final = 16
MIN_BLOCK_SAMPLES: Final = 16

_SYNC: Final = 0x7FFC  # 15 bits: sync code 14 bits and a reserved 0
_RATES_HZ: Final = (
    0,
    88200,
    176400,
    192000,
    8000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    96000,
)
_SAMPLE_BITS: Final = (0, 8, 12, -1, 16, 20, 24, 32)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A STREAMINFO block. Sizes in samples and bytes; 0 where unknown."""

    min_block_samples: int
    max_block_samples: int
    min_frame_bytes: int
    max_frame_bytes: int
    sample_rate_hz: int
    channels: int
    sample_bits: int
    total_samples: int
    md5: bytes


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A frame header. sample_rate_hz, sample_bits: 0 where STREAMINFO tells. number: of the frame, or of its first sample.

    header_bytes: with the checksum.
    """

    variable_block: bool
    block_samples: int
    sample_rate_hz: int
    channels: int
    sample_bits: int
    number: int
    header_bytes: int


@lru_cache(maxsize=64)
def parse_stream_info(data: bytes) -> StreamInfo:
    """Parse a STREAMINFO block (34 bytes, without block header); raise RemoteProtocolError.   Spec: RFC 9639 section 8.2."""
    if len(data) < STREAM_INFO_BYTES:
        raise TruncatedError(
            "a STREAMINFO of under 34 bytes",
            offset=len(data),
            spec="RFC 9639 section 8.2",
        )
    bits = BitReader(data)
    sizes = (bits.u(16), bits.u(16), bits.u(24), bits.u(24))
    rate, channels, depth = bits.u(20), bits.u(3) + 1, bits.u(5) + 1
    if not rate or depth < 4 or sizes[1] < MIN_BLOCK_SAMPLES or sizes[0] > sizes[1]:
        raise RemoteProtocolError("a broken STREAMINFO", offset=0, spec="RFC 9639 section 8.2")
    return StreamInfo(*sizes, rate, channels, depth, bits.u(36), data[18:34])


def build_stream_info(info: StreamInfo) -> bytes:
    """Return the STREAMINFO block (34 bytes, without block header)."""
    value = info.sample_rate_hz << 44 | info.channels - 1 << 41 | info.sample_bits - 1 << 36 | info.total_samples
    sizes = info.min_block_samples.to_bytes(2, "big") + info.max_block_samples.to_bytes(2, "big")
    sizes += info.min_frame_bytes.to_bytes(3, "big") + info.max_frame_bytes.to_bytes(3, "big")
    return sizes + value.to_bytes(8, "big") + info.md5


def build_dfla(stream_info: bytes) -> bytes:
    """Return the payload of MP4's dfLa box, with version and flags, for a STREAMINFO block.

    Spec: Encapsulation of FLAC in ISOBMFF section 3.3.2.
    """
    return bytes(4) + b"\x80" + len(stream_info).to_bytes(3, "big") + stream_info


def parse_frame_header(data: bytes) -> FrameHeader:
    """Parse the frame header at the start of data, and check its checksum.

    Raises TruncatedError; RemoteProtocolError where there is none.   Spec: RFC 9639 section 9.1.
    """
    bits = BitReader(data[:MAX_FRAME_HEADER_BYTES])
    if bits.u(15) != _SYNC:
        raise RemoteProtocolError("no FLAC frame", offset=0, spec="RFC 9639 section 9.1")
    variable = bits.flag()
    block_code, rate_code, channel_code, depth_code = (
        bits.u(4),
        bits.u(4),
        bits.u(4),
        bits.u(3),
    )
    if not block_code or rate_code == 15 or channel_code > 10 or depth_code == 3 or bits.flag():
        raise RemoteProtocolError("a broken FLAC frame header", offset=2, spec="RFC 9639 section 9.1")
    number = _read_coded_number(bits)
    block = _block_samples(bits, block_code)
    rate = _sample_rate(bits, rate_code)
    header_bytes = bits.position // 8 + 1
    if bits.u(8) != crc8(data[: header_bytes - 1]):
        raise RemoteProtocolError(
            "the checksum of a FLAC frame header",
            offset=0,
            spec="RFC 9639 section 9.1.8",
        )
    channels = channel_code + 1 if channel_code < 8 else 2
    return FrameHeader(variable, block, rate, channels, _SAMPLE_BITS[depth_code], number, header_bytes)


def _read_coded_number(bits: BitReader) -> int:
    """Read a number of up to 36 bits coded like UTF-8.   Spec: RFC 9639 section 9.1.5."""
    first = bits.u(8)
    if first < 0x80:
        return first
    length = 8 - (first ^ 0xFF).bit_length()  # leading ones
    if length < 2 or length > 7:
        raise RemoteProtocolError("a broken FLAC frame number", offset=4, spec="RFC 9639 section 9.1.5")
    value = first & (0x7F >> length)
    for _ in range(length - 1):
        byte = bits.u(8)
        if byte >> 6 != 2:
            raise RemoteProtocolError("a broken FLAC frame number", offset=4, spec="RFC 9639 section 9.1.5")
        value = value << 6 | byte & 0x3F
    return value


def _block_samples(bits: BitReader, code: int) -> int:
    if code in (6, 7):
        return bits.u(8 if code == 6 else 16) + 1
    if code == 1:
        return 192
    return 576 << (code - 2) if code < 6 else 256 << (code - 8)


def _sample_rate(bits: BitReader, code: int) -> int:
    if code < len(_RATES_HZ):
        return _RATES_HZ[code]
    if code == 12:
        return bits.u(8) * 1000
    return bits.u(16) * (1 if code == 13 else 10)


def crc8(data: bytes) -> int:
    """Return the checksum of a frame header: polynomial x^8 + x^2 + x + 1, start 0.   Spec: RFC 9639 section 9.1.8."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) ^ (0x107 if value & 0x80 else 0)
    return value


def codec_string() -> str:
    """Return "flac", which browsers and HLS take (Chromium's MP4 demuxer names it so too)."""
    return "flac"
