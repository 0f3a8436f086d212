"""VP8 frame headers.   Spec: RFC 6386 section 9.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mist.errors import RemoteProtocolError, TruncatedError

START_CODE: Final = b"\x9d\x01\x2a"
KEYFRAME_HEADER_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class KeyframeHeader:
    """The uncompressed part of a keyframe. width, height: pixels; version: 0 to 3."""

    version: int
    shown: bool
    width: int
    height: int


def is_keyframe(payload: bytes) -> bool:
    """Tell whether a frame is a keyframe, by its first bit."""
    return len(payload) >= KEYFRAME_HEADER_BYTES and not payload[0] & 1


def parse_keyframe(payload: bytes) -> KeyframeHeader:
    """Parse the header of a keyframe; raise RemoteProtocolError for anything else."""
    if len(payload) < KEYFRAME_HEADER_BYTES:
        raise TruncatedError(
            "a VP8 keyframe of under 10 bytes",
            offset=len(payload),
            spec="RFC 6386 section 9.1",
        )
    if payload[0] & 1 or payload[3:6] != START_CODE:
        raise RemoteProtocolError("not a VP8 keyframe", offset=0, spec="RFC 6386 section 9.1")
    width = int.from_bytes(payload[6:8], "little") & 0x3FFF
    height = int.from_bytes(payload[8:10], "little") & 0x3FFF
    if not width or not height:
        raise RemoteProtocolError("a VP8 picture without size", offset=6, spec="RFC 6386 section 9.1")
    return KeyframeHeader((payload[0] >> 1) & 7, bool(payload[0] & 0x10), width, height)


def codec_string() -> str:
    """Return "vp8"."""
    return "vp8"
