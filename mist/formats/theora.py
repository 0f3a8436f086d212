"""Theora: the identification header, and which packets are key frames.

Init data are the three header packets (identification, comments, setup), laced.   Spec: Theora specification (2017) sections 6.2, 7.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.errors import RemoteProtocolError, TruncatedError
from mist.formats import xiph

IDENTIFICATION: Final = b"\x80theora"
COMMENTS: Final = b"\x81theora"
SETUP: Final = b"\x82theora"
IDENTIFICATION_BYTES: Final = 42
COUNTS_FROM_ONE: Final = 0x030201  # the version since which the first frame's granule position is 1

_SPEC: Final = "Theora specification section 6.2"


@dataclass(frozen=True, slots=True)
class Identification:
    """An identification header. width, height: of the picture, pixels. granule_shift: bits that count frames since the key frame."""

    version: int
    width: int
    height: int
    rate_numerator: int
    rate_denominator: int
    bit_rate_bps: int
    granule_shift: int

    @property
    def frame_rate_mhz(self) -> int:
        return (self.rate_numerator * 1000 + self.rate_denominator // 2) // self.rate_denominator


@lru_cache(maxsize=64)
def parse_identification(data: bytes) -> Identification:
    """Parse an identification header; raise RemoteProtocolError.   Spec: Theora specification section 6.2."""
    if len(data) < IDENTIFICATION_BYTES:
        raise TruncatedError("a Theora identification header of under 42 bytes", offset=len(data), spec=_SPEC)
    version = int.from_bytes(data[7:10], "big")
    blocks = int.from_bytes(data[10:12], "big"), int.from_bytes(data[12:14], "big")
    width, height = int.from_bytes(data[14:17], "big"), int.from_bytes(data[17:20], "big")
    rate = int.from_bytes(data[22:26], "big"), int.from_bytes(data[26:30], "big")
    if data[:7] != IDENTIFICATION or version >> 8 != 0x0302:
        raise RemoteProtocolError("not a Theora identification header", offset=0, spec=_SPEC)
    if not all((*blocks, *rate)) or not 0 < width <= blocks[0] * 16 or not 0 < height <= blocks[1] * 16:
        raise RemoteProtocolError("a broken Theora identification header", offset=10, spec=_SPEC)
    shift = (data[40] << 8 | data[41]) >> 5 & 31
    return Identification(version, width, height, *rate, int.from_bytes(data[37:40], "big"), shift)


def parse_headers(init_data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the three header packets of init data; raise RemoteProtocolError."""
    packets = xiph.unlace(init_data)
    if len(packets) != 3 or not packets[1].startswith(COMMENTS) or not packets[2].startswith(SETUP):
        raise RemoteProtocolError("no three Theora headers", offset=0, spec="Theora specification section 6.1")
    return packets[0], packets[1], packets[2]


def describe(init_data: bytes) -> Identification:
    """Return the identification header of init data; raise RemoteProtocolError."""
    return parse_identification(parse_headers(init_data)[0])


def build_init_data(identification: bytes, comments: bytes, setup: bytes) -> bytes:
    """Return init data of the three header packets. Comments with a picture are left out: init data is kept in memory."""
    if len(comments) > xiph.LONG_COMMENTS_BYTES:
        comments = COMMENTS + xiph.build_comments()
    return xiph.lace((identification, comments, setup))


def is_keyframe(payload: bytes) -> bool:
    """Tell whether a packet is an intra frame. An empty packet repeats the frame before.   Spec: section 7.1."""
    return bool(payload) and not payload[0] & 0xC0
