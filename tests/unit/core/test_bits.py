"""The bit reader and writer against each other, against known codes, and at the end of their data."""

from __future__ import annotations

import random

import pytest

from mist.core.bits import BitReader, BitWriter
from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError

# H.264 tables 9-2 and 9-3.
UNSIGNED_CODES = {"1": 0, "010": 1, "011": 2, "00100": 3, "00101": 4, "0001000": 7, "000010001": 16}
SIGNED_CODES = {"1": 0, "010": 1, "011": -1, "00100": 2, "00101": -2, "00110": 3, "00111": -3}


def packed(text: str) -> bytes:
    return int(text.ljust((len(text) + 7) // 8 * 8, "0"), 2).to_bytes((len(text) + 7) // 8, "big")


@pytest.mark.parametrize(("code", "value"), UNSIGNED_CODES.items())
def test_unsigned_codes(code: str, value: int) -> None:
    reader = BitReader(packed(code))
    assert reader.ue() == value
    assert reader.position == len(code)
    writer = BitWriter()
    writer.ue(value)
    assert (writer.size_bits, writer.getvalue()) == (len(code), packed(code))


@pytest.mark.parametrize(("code", "value"), SIGNED_CODES.items())
def test_signed_codes(code: str, value: int) -> None:
    assert BitReader(packed(code)).se() == value
    writer = BitWriter()
    writer.se(value)
    assert writer.getvalue() == packed(code)


def test_random_fields_come_back() -> None:
    chance = random.Random(7)
    for _ in range(300):
        writer, fields = BitWriter(), []
        for _ in range(20):
            width = chance.randrange(65)
            fields += [("u", width, chance.getrandbits(width)), ("ue", 0, chance.getrandbits(chance.randint(1, 32)))]
            fields.append(("se", 0, chance.randint(-(1 << 31) + 1, (1 << 31) - 1)))
        for kind, width, value in fields:
            if kind == "u":
                writer.u(value, width)
            else:
                getattr(writer, kind)(value)
        reader = BitReader(writer.getvalue())
        for kind, width, value in fields:
            assert (reader.u(width) if kind == "u" else getattr(reader, kind)()) == value
        assert reader.remaining < 8


def test_bytes_peek_align_and_skip() -> None:
    reader = BitReader(b"\xf0\x12\x34\x56\x80", 0)
    assert reader.peek(4) == 15
    reader.skip(4)
    assert reader.take(2) == b"\x01\x23"
    assert reader.flag() is False
    reader.align()
    assert reader.position == 24
    assert reader.take(2) == b"\x56\x80"
    assert reader.remaining == 0
    reader.align()
    writer = BitWriter()
    writer.u(15, 4)
    writer.write(b"\x01\x23")
    writer.align()
    writer.write(b"\x56")
    assert writer.getvalue() == b"\xf0\x12\x30\x56"


def test_the_end_is_an_error_and_moves_nothing() -> None:
    reader = BitReader(b"\x00\xff", 1)
    for read in (lambda: reader.u(9), lambda: reader.skip(9), lambda: reader.take(2), lambda: reader.peek(33)):
        with pytest.raises(TruncatedError):
            read()
        assert reader.position == 8
    assert reader.u(8) == 255
    zeros = BitReader(bytes(4))
    with pytest.raises(TruncatedError):
        zeros.ue()
    assert zeros.position == 0
    cut = BitReader(b"\x01")
    with pytest.raises(TruncatedError):
        cut.ue()
    assert cut.position == 0
    with pytest.raises(TruncatedError):
        BitReader(b"", 1)


def test_codes_over_32_bits_are_refused() -> None:
    assert BitReader(bytes(4) + b"\x80" + bytes(4)).ue() == (1 << 32) - 1
    with pytest.raises(RemoteProtocolError):
        BitReader(bytes(20)).ue()


def test_misuse() -> None:
    with pytest.raises(LocalProtocolError):
        BitReader(bytes(20)).u(65)
    with pytest.raises(LocalProtocolError):
        BitReader(bytes(20)).skip(-1)
    with pytest.raises(LocalProtocolError):
        BitReader(bytes(20)).take(-1)
    with pytest.raises(LocalProtocolError):
        BitWriter().u(4, 2)
    with pytest.raises(LocalProtocolError):
        BitWriter().ue(1 << 32)


@pytest.mark.parametrize(
    ("data", "position", "more"),
    [(b"\x80", 0, False), (b"\xc0", 0, True), (b"\xff\x80", 8, False), (b"\xff\x40\x00", 8, True), (b"\x00", 0, False)],
)
def test_more_rbsp_data(data: bytes, position: int, more: bool) -> None:
    reader = BitReader(data)
    reader.skip(position)
    assert reader.more_rbsp_data() is more
