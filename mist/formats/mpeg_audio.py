"""MPEG audio layers I to III: frame headers.   Spec: ISO/IEC 11172-3 clause 2.4.1.3, ISO/IEC 13818-3 clause 2.4.2.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mist.errors import RemoteProtocolError, TruncatedError

HEADER_BYTES: Final = 4

# Bit rates in kbit/s by layer, for MPEG-1 and for MPEG-2 and 2.5; index 0 is free format.
_BITRATES_V1: Final = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOW: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BITRATES_V2: Final = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: _LOW,
    3: _LOW,
}
_RATES_HZ: Final = (44100, 48000, 32000)
_RATE_SHIFT: Final = {3: 0, 2: 1, 0: 2}  # by the version bits: MPEG-1, MPEG-2, MPEG-2.5
_MONO: Final = 3


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """One frame header.

    version: 1, 2, or 25 for MPEG-2.5. layer: 1 to 3. bitrate_bps, frame_bytes: 0 for free format.
    samples: of each channel in the frame. frame_bytes: with the header.
    """

    version: int
    layer: int
    bitrate_bps: int
    sample_rate_hz: int
    channels: int
    samples: int
    frame_bytes: int
    protected: bool


def parse_header(data: bytes, offset: int = 0) -> FrameHeader:
    """Parse the frame header at offset.

    Raises TruncatedError for under 4 bytes (more may come); RemoteProtocolError where there is no header.
    """
    if len(data) - offset < HEADER_BYTES:
        raise TruncatedError("an MPEG audio header of under 4 bytes", offset=offset)
    value = int.from_bytes(data[offset : offset + HEADER_BYTES], "big")
    version_bits, layer = value >> 19 & 3, 4 - (value >> 17 & 3)
    bitrate_index, rate_index = value >> 12 & 15, value >> 10 & 3
    if value >> 21 != 0x7FF or version_bits == 1 or layer == 4 or bitrate_index == 15 or rate_index == 3:
        raise RemoteProtocolError("no MPEG audio header", offset=offset, spec="ISO/IEC 11172-3 clause 2.4.2.3")
    bitrate = (_BITRATES_V1 if version_bits == 3 else _BITRATES_V2)[layer][bitrate_index] * 1000
    rate = _RATES_HZ[rate_index] >> _RATE_SHIFT[version_bits]
    samples = 384 if layer == 1 else 576 if layer == 3 and version_bits != 3 else 1152
    padding = value >> 9 & 1
    slot_bytes = 4 if layer == 1 else 1
    frame_bytes = (samples // 8 // slot_bytes * bitrate // rate + padding) * slot_bytes
    return FrameHeader(
        {3: 1, 2: 2, 0: 25}[version_bits], layer, bitrate, rate, 1 if value >> 6 & 3 == _MONO else 2,
        samples, frame_bytes if bitrate else 0, not value >> 16 & 1,
    )  # fmt: skip


def codec_string(layer: int = 3) -> str:
    """Return "mp4a.40.34" for layer III, "mp4a.40.33" and "mp4a.40.32" for II and I.   Spec: ISO/IEC 14496-3 table 1.17."""
    return f"mp4a.40.{31 + layer}"
