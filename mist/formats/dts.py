"""DTS: the header of core frames.   Spec: ETSI TS 102 114 clause 5.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mist.core.bits import BitReader
from mist.errors import RemoteProtocolError, TruncatedError

SYNC_WORD: Final = 0x7FFE8001
HEADER_BYTES: Final = 13
MIN_FRAME_BYTES: Final = 96

# By SFREQ (table 5-5), RATE (table 5-7) and PCMR (table 5-17); 0 where the table says invalid, open or variable.
_RATES_HZ: Final = (0, 8000, 16000, 32000, 0, 0, 11025, 22050, 44100, 0, 0, 12000, 24000, 48000, 0, 0)
_BITRATES_KBPS: Final = (
    32, 56, 64, 96, 112, 128, 192, 224, 256, 320, 384, 448, 512, 576, 640, 768,
    960, 1024, 1152, 1280, 1344, 1408, 1411, 1472, 1536, 0, 0, 0, 0, 0, 0, 0,
)  # fmt: skip
_SAMPLE_BITS: Final = (16, 16, 20, 20, 0, 24, 24, 0)
_CHANNELS: Final = (1, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 6, 7, 8, 8)  # by AMODE, table 5-4


@dataclass(frozen=True, slots=True)
class CoreHeader:
    """One core frame. channels: with the low-frequency one; 0 unknown. bitrate_bps: 0 where it is not a constant.

    frame_bytes: without extension substreams. samples: of each channel.
    """

    samples: int
    frame_bytes: int
    sample_rate_hz: int
    bitrate_bps: int
    channels: int
    sample_bits: int


def parse_header(data: bytes, offset: int = 0) -> CoreHeader:
    """Parse the core frame header at offset.

    Raises TruncatedError for under 13 bytes (more may come); RemoteProtocolError where there is no header.
    """
    if len(data) - offset < HEADER_BYTES:
        raise TruncatedError(f"a DTS header of under {HEADER_BYTES} bytes", offset=offset)
    bits = BitReader(data[offset : offset + 16])
    if bits.u(32) != SYNC_WORD:
        raise RemoteProtocolError("no DTS synchronisation word", offset=offset, spec="ETSI TS 102 114 clause 5.3.1")
    bits.skip(6)  # FTYPE, SHORT
    checked = bits.flag()
    blocks, frame_bytes, mode = bits.u(7) + 1, bits.u(14) + 1, bits.u(6)
    rate, bitrate = _RATES_HZ[bits.u(4)], _BITRATES_KBPS[bits.u(5)] * 1000
    bits.skip(10)  # up to ASPF
    low_frequency = bits.u(2)
    bits.skip(1 + (16 if checked else 0) + 7)  # HFLAG, HCRC, FILTS, VERNUM, CHIST
    if not rate or frame_bytes < MIN_FRAME_BYTES or blocks < 6 or low_frequency == 3:
        raise RemoteProtocolError("a broken DTS header", offset=offset, spec="ETSI TS 102 114 clause 5.3.1")
    channels = _CHANNELS[mode] + (low_frequency != 0) if mode < len(_CHANNELS) else 0
    return CoreHeader(blocks * 32, frame_bytes, rate, bitrate, channels, _SAMPLE_BITS[bits.u(3)])
