"""Vorbis: the identification header, and of the setup header the modes, which tell a packet's duration.

Init data are the three header packets (identification, comments, setup), laced.   Spec: Vorbis I sections 3.2, 4.2, 4.3, 6, 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.errors import RemoteProtocolError, TruncatedError
from mist.formats import xiph

IDENTIFICATION: Final = b"\x01vorbis"
COMMENTS: Final = b"\x03vorbis"
SETUP: Final = b"\x05vorbis"
IDENTIFICATION_BYTES: Final = 30

_CODEBOOK_SYNC: Final = 0x564342
_PLAIN_MAPPING: Final = 0


@dataclass(frozen=True, slots=True)
class Identification:
    """An identification header. short_block_samples, long_block_samples: 64 to 8192, powers of two. bit_rate_bps: nominal, 0 unknown."""

    channels: int
    sample_rate_hz: int
    bit_rate_bps: int
    short_block_samples: int
    long_block_samples: int


def parse_identification(data: bytes) -> Identification:
    """Parse an identification header; raise RemoteProtocolError.   Spec: Vorbis I section 4.2.2."""
    if len(data) < IDENTIFICATION_BYTES:
        raise TruncatedError("a Vorbis identification header of under 30 bytes", offset=len(data), spec="Vorbis I 4.2.2")
    channels, rate = data[11], int.from_bytes(data[12:16], "little")
    bit_rate = int.from_bytes(data[20:24], "little", signed=True)
    short, long = data[28] & 15, data[28] >> 4
    if data[:7] != IDENTIFICATION or data[7:11] != bytes(4) or not channels or not rate or not 6 <= short <= long <= 13:
        raise RemoteProtocolError("a broken Vorbis identification header", offset=0, spec="Vorbis I section 4.2.2")
    return Identification(channels, rate, max(bit_rate, 0), 1 << short, 1 << long)


def parse_headers(init_data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the three header packets of init data; raise RemoteProtocolError."""
    packets = xiph.unlace(init_data)
    if len(packets) != 3 or not packets[1].startswith(COMMENTS) or not packets[2].startswith(SETUP):
        raise RemoteProtocolError("no three Vorbis headers", offset=0, spec="Vorbis I section 4.2")
    return packets[0], packets[1], packets[2]


def describe(init_data: bytes) -> Identification:
    """Return the identification header of init data; raise RemoteProtocolError."""
    return parse_identification(parse_headers(init_data)[0])


def build_init_data(identification: bytes, comments: bytes, setup: bytes) -> bytes:
    """Return init data of the three header packets. Comments with a picture are left out: init data is kept in memory."""
    if len(comments) > xiph.LONG_COMMENTS_BYTES:
        comments = COMMENTS + xiph.build_comments() + b"\x01"
    return xiph.lace((identification, comments, setup))


@lru_cache(maxsize=64)
def long_modes(setup: bytes, channels: int) -> tuple[bool, ...]:
    """Return for each mode of a setup header whether its blocks are long; raise RemoteProtocolError.

    Spec: Vorbis I section 4.2.4. The modes come last, so all before them is read over.
    """
    if not setup.startswith(SETUP):
        raise RemoteProtocolError("no Vorbis setup header", offset=0, spec="Vorbis I section 4.2.4")
    bits = _Bits(setup, len(SETUP))
    for _ in range(bits.u(8) + 1):
        _skip_codebook(bits)
    bits.skip(16 * (bits.u(6) + 1))
    for _ in range(bits.u(6) + 1):
        _skip_floor(bits)
    for _ in range(bits.u(6) + 1):
        _skip_residue(bits)
    for _ in range(bits.u(6) + 1):
        _skip_mapping(bits, channels)
    modes = []
    for _ in range(bits.u(6) + 1):
        modes.append(bool(bits.u(1)))
        bits.skip(40)
    if not bits.u(1):
        raise RemoteProtocolError("no framing bit", offset=bits.position >> 3, spec="Vorbis I section 4.2.4")
    return tuple(modes)


class _Bits:
    """A position in bytes that moves by bits, least significant first.   Spec: Vorbis I section 2."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data = data
        self.position = start * 8

    def u(self, count: int) -> int:
        """Read a number of at most 32 bits."""
        first = self.position >> 3
        window = int.from_bytes(self.data[first : first + 5], "little")
        value = window >> (self.position & 7) & (1 << count) - 1
        self.skip(count)
        return value

    def skip(self, count: int) -> None:
        """Move on by count bits."""
        self.position += count
        if self.position > len(self.data) * 8:
            raise TruncatedError("a Vorbis setup header ends early", offset=len(self.data), spec="Vorbis I section 4.2.4")


def _broken(bits: _Bits, part: str, spec: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"a broken {part} in a Vorbis setup header", offset=bits.position >> 3, spec=spec)


def _skip_codebook(bits: _Bits) -> None:
    if bits.u(24) != _CODEBOOK_SYNC:
        raise _broken(bits, "codebook", "Vorbis I section 3.2.1")
    dimensions, entries = bits.u(16), bits.u(24)
    if bits.u(1):
        _skip_ordered_lengths(bits, entries)
    elif bits.u(1):
        for _ in range(entries):
            if bits.u(1):
                bits.skip(5)
    else:
        bits.skip(5 * entries)
    lookup = bits.u(4)
    if lookup > 2:
        raise _broken(bits, "codebook", "Vorbis I section 3.2.1")
    if lookup:
        bits.skip(64)
        value_bits = bits.u(4) + 1
        bits.skip(1)
        bits.skip(value_bits * (entries * dimensions if lookup == 2 else _lookup1_values(entries, dimensions)))


def _skip_ordered_lengths(bits: _Bits, entries: int) -> None:
    bits.skip(5)
    current = rounds = 0
    while current < entries:
        current += bits.u((entries - current).bit_length())
        rounds += 1
        if current > entries or rounds > 32:
            raise _broken(bits, "codebook", "Vorbis I section 3.2.1")


def _lookup1_values(entries: int, dimensions: int) -> int:
    """Return the greatest number whose power of dimensions is not over entries.   Spec: Vorbis I section 9.2.3."""
    if not dimensions or not entries:
        return 0
    value = round(entries ** (1 / dimensions))
    while value > 1 and not _power_within(value, dimensions, entries):
        value -= 1
    while _power_within(value + 1, dimensions, entries):
        value += 1
    return value


def _power_within(value: int, exponent: int, bound: int) -> bool:
    """Tell whether value ** exponent is at most bound, without a number of a million bits."""
    return value < 2 or (exponent <= bound.bit_length() and value**exponent <= bound)


def _skip_floor(bits: _Bits) -> None:
    kind = bits.u(16)
    if kind == 0:
        bits.skip(8 + 16 + 16 + 6 + 8)
        bits.skip(8 * (bits.u(4) + 1))
        return
    if kind != 1:
        raise _broken(bits, "floor", "Vorbis I section 4.2.4")
    partitions = [bits.u(4) for _ in range(bits.u(5))]
    dimensions = []
    for _ in range(max(partitions, default=-1) + 1):
        dimensions.append(bits.u(3) + 1)
        subclasses = bits.u(2)
        bits.skip(8 * ((1 << subclasses) + (1 if subclasses else 0)))
    bits.skip(2)
    range_bits = bits.u(4)
    bits.skip(range_bits * sum(dimensions[number] for number in partitions))


def _skip_residue(bits: _Bits) -> None:
    if bits.u(16) > 2:
        raise _broken(bits, "residue", "Vorbis I section 8.6.1")
    bits.skip(24 + 24 + 24)
    classifications = bits.u(6) + 1
    bits.skip(8)
    books = 0
    for _ in range(classifications):
        books += bits.u(3).bit_count()
        if bits.u(1):
            books += bits.u(5).bit_count()
    bits.skip(8 * books)


def _skip_mapping(bits: _Bits, channels: int) -> None:
    if bits.u(16) != _PLAIN_MAPPING:
        raise _broken(bits, "mapping", "Vorbis I section 4.2.4")
    submaps = bits.u(4) + 1 if bits.u(1) else 1
    if bits.u(1):
        bits.skip((bits.u(8) + 1) * 2 * (channels - 1).bit_length())
    if bits.u(2):
        raise _broken(bits, "mapping", "Vorbis I section 4.2.4")
    if submaps > 1:
        bits.skip(4 * channels)
    bits.skip(24 * submaps)


def codec_string() -> str:
    """Return "vorbis"."""
    return "vorbis"
