"""Opus: identification headers and packet durations.

Spec: RFC 7845 section 5.1 (OpusHead), RFC 6716 section 3 (packets), Opus in ISOBMFF 0.8.1 (dOps).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError

MAGIC: Final = b"OpusHead"
HEAD_BYTES: Final = 19  # without a channel mapping table
SAMPLE_RATE_HZ: Final = 48000
MAX_PACKET_SAMPLES: Final = 5760  # 120 ms, RFC 6716 section 3.2.5
DEFAULT_PRE_SKIP: Final = 312

# Samples at 48 kHz of one frame by the configuration in the first byte, RFC 6716 table 2.
_FRAME_SAMPLES: Final = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4


@dataclass(frozen=True, slots=True)
class OpusHead:
    """An identification header.

    pre_skip_samples: at 48 kHz. input_rate_hz: of the original, for information. gain: Q7.8 dB, signed.
    mapping: one byte a channel, b"" in mapping family 0.
    """

    channels: int
    pre_skip_samples: int = DEFAULT_PRE_SKIP
    input_rate_hz: int = SAMPLE_RATE_HZ
    gain: int = 0
    family: int = 0
    streams: int = 1
    coupled: int = 0
    mapping: bytes = b""


@lru_cache(maxsize=64)
def parse_head(data: bytes) -> OpusHead:
    """Parse an OpusHead with its magic; raise RemoteProtocolError.   Spec: RFC 7845 section 5.1."""
    if len(data) < HEAD_BYTES:
        raise TruncatedError(
            "an OpusHead of under 19 bytes",
            offset=len(data),
            spec="RFC 7845 section 5.1",
        )
    channels, family = data[9], data[18]
    if data[:8] != MAGIC or data[8] & 0xF0 or not channels:
        raise RemoteProtocolError("not an OpusHead", offset=0, spec="RFC 7845 section 5.1")
    streams, coupled, mapping = 1, int(channels == 2), b""
    if family:
        if len(data) < HEAD_BYTES + 2 + channels:
            raise TruncatedError(
                "an OpusHead without its channel mapping",
                offset=len(data),
                spec="RFC 7845 5.1.1",
            )
        streams, coupled, mapping = data[19], data[20], data[21 : 21 + channels]
        if not streams or coupled > streams:
            raise RemoteProtocolError(
                "a broken Opus channel mapping",
                offset=19,
                spec="RFC 7845 section 5.1.1",
            )
    elif channels > 2:
        raise RemoteProtocolError(
            f"{channels} channels in mapping family 0",
            offset=9,
            spec="RFC 7845 section 5.1.1.1",
        )
    return OpusHead(
        channels, int.from_bytes(data[10:12], "little"), int.from_bytes(data[12:16], "little"),
        int.from_bytes(data[16:18], "little", signed=True), family, streams, coupled, mapping,
    )  # fmt: skip


def build_head(head: OpusHead) -> bytes:
    """Return the OpusHead with its magic; raise LocalProtocolError where the mapping does not fit the channels."""
    if not 1 <= head.channels <= 255 or (head.family and len(head.mapping) != head.channels):
        raise LocalProtocolError(f"an Opus mapping of {len(head.mapping)} for {head.channels} channels")
    data = MAGIC + bytes((1, head.channels)) + head.pre_skip_samples.to_bytes(2, "little")
    data += head.input_rate_hz.to_bytes(4, "little") + head.gain.to_bytes(2, "little", signed=True)
    data += bytes((head.family,))
    return data + bytes((head.streams, head.coupled)) + head.mapping if head.family else data


def build_dops(head: OpusHead) -> bytes:
    """Return the payload of MP4's dOps box: the same, big-endian.   Spec: Opus in ISOBMFF section 4.3.2."""
    data = bytes((0, head.channels)) + head.pre_skip_samples.to_bytes(2, "big")
    data += head.input_rate_hz.to_bytes(4, "big") + head.gain.to_bytes(2, "big", signed=True) + bytes((head.family,))
    return data + bytes((head.streams, head.coupled)) + head.mapping if head.family else data


def parse_dops(data: bytes) -> OpusHead:
    """Parse the payload of MP4's dOps box; raise RemoteProtocolError.   Spec: Opus in ISOBMFF section 4.3.2."""
    if len(data) < 11 or data[0]:
        raise RemoteProtocolError("not a dOps box", offset=0, spec="Opus in ISOBMFF section 4.3.2")
    swapped = MAGIC + b"\x01" + data[1:2] + data[3:1:-1] + data[7:3:-1] + data[9:7:-1] + data[10:]
    return parse_head(swapped)


def packet_samples(payload: bytes) -> int:
    """Return the duration of a packet in samples at 48 kHz.

    Raises RemoteProtocolError for an empty packet, or one over MAX_PACKET_SAMPLES.   Spec: RFC 6716 section 3.
    """
    if not payload:
        raise TruncatedError("an empty Opus packet", offset=0, spec="RFC 6716 section 3.1")
    code = payload[0] & 3
    if code == 3:
        if len(payload) < 2:
            raise TruncatedError(
                "an Opus packet without frame count",
                offset=1,
                spec="RFC 6716 section 3.2.5",
            )
        frames = payload[1] & 0x3F
    else:
        frames = 2 if code else 1
    samples = _FRAME_SAMPLES[payload[0] >> 3] * frames
    if not frames or samples > MAX_PACKET_SAMPLES:
        raise RemoteProtocolError(
            f"an Opus packet of {samples} samples",
            offset=1,
            spec="RFC 6716 section 3.2.5",
        )
    return samples


def packet_is_stereo(payload: bytes) -> bool:
    """Tell whether a packet's first byte says stereo.   Spec: RFC 6716 section 3.1."""
    return bool(payload and payload[0] & 4)


def codec_string() -> str:
    """Return "opus"."""
    return "opus"
