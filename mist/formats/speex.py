"""Speex: the header packet.   Spec: The Speex Codec Manual, section "Ogg file format"; RFC 5574 section 3."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mist.errors import RemoteProtocolError, TruncatedError

MAGIC: Final = b"Speex   "
HEADER_BYTES: Final = 80
MAX_PACKET_SAMPLES: Final = 1 << 20
MAX_EXTRA_HEADERS: Final = 64
FLASH_RATE_HZ: Final = 16000  # what Speex in FLV and RTMP is, without saying so (FLV E.4.2.1)

_FIELDS: Final = struct.Struct("<8s20s13i")
_FRAME_SAMPLES: Final = {8000: 160, 16000: 320, 32000: 640}  # narrowband, wideband, ultra-wideband
_SPEC: Final = "Speex manual, Ogg file format"


@dataclass(frozen=True, slots=True)
class Header:
    """A header packet. frame_samples: of one frame; a packet holds frames_per_packet. extra_headers: packets behind the comments."""

    sample_rate_hz: int
    mode: int
    channels: int
    bit_rate_bps: int
    frame_samples: int
    variable_rate: bool
    frames_per_packet: int
    extra_headers: int

    @property
    def packet_samples(self) -> int:
        return self.frame_samples * self.frames_per_packet


def parse_header(data: bytes) -> Header:
    """Parse a header packet; raise RemoteProtocolError."""
    if len(data) < HEADER_BYTES:
        raise TruncatedError("a Speex header of under 80 bytes", offset=len(data), spec=_SPEC)
    magic, _, _, size, rate, mode, _, channels, bit_rate, frame, variable, frames, extra, _, _ = _FIELDS.unpack_from(
        data
    )
    frames = max(frames, 1)
    if magic != MAGIC or size < HEADER_BYTES or rate <= 0 or not 1 <= channels <= 2 or not 0 <= mode <= 2:
        raise RemoteProtocolError("a broken Speex header", offset=0, spec=_SPEC)
    if not 0 < frame * frames <= MAX_PACKET_SAMPLES or not 0 <= extra <= MAX_EXTRA_HEADERS:
        raise RemoteProtocolError("a Speex header with impossible sizes", offset=56, spec=_SPEC)
    return Header(rate, mode, channels, max(bit_rate, 0), frame, bool(variable), frames, extra)


def build_header(sample_rate_hz: int = FLASH_RATE_HZ, channels: int = 1) -> bytes:
    """Return a header packet for a stream that has none, of one frame a packet."""
    rate = sample_rate_hz if sample_rate_hz in _FRAME_SAMPLES else FLASH_RATE_HZ
    mode = (8000, 16000, 32000).index(rate)
    version = b"1.2.1"
    return _FIELDS.pack(
        MAGIC, version, 1, HEADER_BYTES, rate, mode, 4, channels, -1, _FRAME_SAMPLES[rate], 0, 1, 0, 0, 0
    )
