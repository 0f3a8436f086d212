"""WAVEFORMATEX, in which Matroska keeps the set-up of A_MS/ACM tracks.   Spec: RFC 2361 section 3, the A_MS/ACM mapping."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mist.errors import TruncatedError

EXTENSIBLE: Final = 0xFFFE
_FIXED: Final = struct.Struct("<HHIIHH")
_SUBFORMAT_AT: Final = 24  # where an extensible format's real tag stands


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """The fields. tag: the format's number; of an extensible one that of its sub-format. extra: what follows for the codec."""

    tag: int
    channels: int
    sample_rate_hz: int
    bytes_per_second: int
    block_bytes: int
    sample_bits: int
    extra: bytes = b""


def parse_wave_format(data: bytes) -> WaveFormat:
    """Parse a WAVEFORMATEX, with or without the size at its end; raise TruncatedError."""
    if len(data) < _FIXED.size:
        raise TruncatedError(f"a WAVEFORMATEX of {len(data)} bytes", offset=len(data), spec="RFC 2361 section 3")
    tag, channels, rate, speed, block, bits = _FIXED.unpack_from(data)
    extra = data[18 : 18 + int.from_bytes(data[16:18], "little")]
    if tag == EXTENSIBLE and len(data) >= _SUBFORMAT_AT + 2:
        tag = int.from_bytes(data[_SUBFORMAT_AT : _SUBFORMAT_AT + 2], "little")
    return WaveFormat(tag, channels, rate, speed, block, bits, extra)


def build_wave_format(wave: WaveFormat) -> bytes:
    """Return a WAVEFORMATEX with its size field."""
    head = _FIXED.pack(
        wave.tag, wave.channels, wave.sample_rate_hz, wave.bytes_per_second, wave.block_bytes, wave.sample_bits
    )
    return head + len(wave.extra).to_bytes(2, "little") + wave.extra
