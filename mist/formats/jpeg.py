"""JPEG pictures: the frame header.   Spec: ITU-T T.81 clause B.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError

START_OF_IMAGE: Final = b"\xff\xd8"
MAX_SEGMENTS: Final = 256  # before the frame header; cameras send a handful, colour profiles a dozen

_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN: Final = 0xDA


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What SOF says. height: 0 where the DNL segment tells it later. precision: bits of a sample."""

    width: int
    height: int
    components: int
    precision: int


def parse_frame_header(data: bytes) -> FrameHeader:
    """Find and parse the frame header of a picture.

    Raises TruncatedError where data ends before it; RemoteProtocolError where there is none.
    """
    if data[:2] != START_OF_IMAGE:
        raise RemoteProtocolError("not a JPEG picture", offset=0, spec="ITU-T T.81 clause B.2.1")
    at = 2
    for _ in range(MAX_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 4 > len(data):
            raise TruncatedError("a JPEG picture without a frame header", offset=at)
        marker = data[at + 1]
        if data[at] != 0xFF or marker == _START_OF_SCAN:
            raise RemoteProtocolError("no frame header before the scan", offset=at, spec="ITU-T T.81 clause B.2.1")
        if marker in _BARE:
            at += 2
            continue
        if marker in _FRAMES:
            return _parse_frame(data, at + 4)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise LimitExceededError(f"no frame header in {MAX_SEGMENTS} segments", offset=at)


def _parse_frame(data: bytes, at: int) -> FrameHeader:
    if at + 6 > len(data):
        raise TruncatedError("a JPEG frame header that is cut", offset=at)
    height, width = int.from_bytes(data[at + 1 : at + 3], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
    if not width:
        raise RemoteProtocolError("a JPEG picture without width", offset=at + 3, spec="ITU-T T.81 clause B.2.2")
    return FrameHeader(width, height, data[at + 5], data[at])
