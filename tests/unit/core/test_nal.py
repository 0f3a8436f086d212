"""Both framings of NAL units, and emulation prevention."""

from __future__ import annotations

import random

import pytest

from mist.core import nal
from mist.errors import LimitExceededError, LocalProtocolError, TruncatedError

SPS, PPS, IDR = b"\x67\x42\xc0\x0d", b"\x68\xce\x0f\xc8", b"\x65\x88\x84\x00\x10\xff"
UNITS = [SPS, PPS, IDR]
PREFIXED = b"\0\0\0\4" + SPS + b"\0\0\0\4" + PPS + b"\0\0\0\6" + IDR


def test_golden() -> None:
    annexb = b"".join(b"\0\0\0\1" + unit for unit in UNITS)
    assert nal.split_length_prefixed(PREFIXED) == UNITS
    assert nal.join_length_prefixed(UNITS) == PREFIXED
    assert nal.length_prefixed_to_annexb(PREFIXED) == annexb
    assert nal.annexb_to_length_prefixed(annexb) == PREFIXED
    assert nal.split_annexb(annexb) == UNITS


@pytest.mark.parametrize(
    "stream",
    [
        b"\0\0\1" + SPS + b"\0\0\1" + PPS + b"\0\0\1" + IDR,
        b"\0\0\0\0\0\1" + SPS + b"\0\0\0\0\1" + PPS + b"\0\0\1" + IDR + b"\0\0\0",
        b"junk\0\0\1" + SPS + b"\0\0\1\0\0\1" + PPS + b"\0\0\1" + IDR + b"\0\0\1",
    ],
)
def test_any_start_codes_and_zeros(stream: bytes) -> None:
    assert nal.split_annexb(stream) == UNITS
    assert nal.annexb_to_length_prefixed(stream) == PREFIXED


@pytest.mark.parametrize("stream", [b"", b"\0\0", b"\0\0\1", b"\0\0\0\1", b"no start code", b"\1\1\1"])
def test_nothing_to_find(stream: bytes) -> None:
    assert nal.split_annexb(stream) == []
    assert nal.annexb_to_length_prefixed(stream) == b""


def test_every_cut_of_length_prefixed_data() -> None:
    whole = {0: 0, 8: 1, 16: 2, len(PREFIXED): 3}
    for size in range(len(PREFIXED) + 1):
        cut = PREFIXED[:size]
        if size in whole:
            assert len(nal.split_length_prefixed(cut)) == whole[size]
            continue
        for function in (nal.split_length_prefixed, nal.length_prefixed_to_annexb):
            with pytest.raises(TruncatedError):
                function(cut)
        assert nal.nal_types(cut, False) == 0
        assert len(nal.select_units(cut, (1 << 64) - 1)) == size // 8 - (size >= 24)


@pytest.mark.parametrize("length_size", [1, 2, 3, 4])
def test_length_sizes(length_size: int) -> None:
    data = b"".join(len(unit).to_bytes(length_size, "big") + unit for unit in [*UNITS, b""])
    assert nal.split_length_prefixed(data, length_size) == UNITS
    assert nal.change_length_size(data, length_size) == PREFIXED
    assert nal.length_prefixed_to_annexb(data, length_size) == nal.length_prefixed_to_annexb(PREFIXED)
    assert nal.nal_types(data, False, length_size) == 1 << 7 | 1 << 8 | 1 << 5


def test_types_and_selection() -> None:
    assert nal.nal_types(PREFIXED, False) == 1 << 7 | 1 << 8 | 1 << 5
    assert nal.select_units(PREFIXED, 1 << 8) == [PPS]
    assert nal.select_units(PREFIXED, 1 << 5, False, 2) == [IDR[:2]]
    hevc = nal.join_length_prefixed([b"\x40\x01\x0c", b"\x26\x01\xaf"])
    assert nal.nal_types(hevc, True) == 1 << 32 | 1 << 19
    assert nal.select_units(hevc, 1 << 32, True) == [b"\x40\x01\x0c"]


def test_limits_and_misuse() -> None:
    with pytest.raises(LimitExceededError):
        nal.split_annexb(b"\0\0\1\x41" * (nal.MAX_NAL_UNITS + 1))
    with pytest.raises(LimitExceededError):
        nal.split_length_prefixed(b"\0\0\0\1\x41" * (nal.MAX_NAL_UNITS + 1))
    with pytest.raises(LimitExceededError):
        nal.select_units(b"\0\0\0\1\x41" * (nal.MAX_NAL_UNITS + 1), 2)
    for size in (0, 5):
        with pytest.raises(LocalProtocolError):
            nal.split_length_prefixed(PREFIXED, size)
    with pytest.raises(TruncatedError):
        nal.split_length_prefixed(b"\xff\xff\xff\xff" + SPS)


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        (b"\x00\x00\x00", b"\x00\x00\x03\x00\x03"),
        (b"\x00\x00\x01\x65", b"\x00\x00\x03\x01\x65"),
        (b"\x00\x00\x03\x80", b"\x00\x00\x03\x03\x80"),
        (b"\x00\x00\x04\x80", b"\x00\x00\x04\x80"),
        (b"\x00\x00\x00\x00\x01", b"\x00\x00\x03\x00\x00\x03\x01"),
        (b"", b""),
    ],
)
def test_emulation_prevention(plain: bytes, escaped: bytes) -> None:
    assert nal.escape(plain) == escaped
    assert nal.unescape(escaped) == plain or plain.endswith(b"\0")


def test_random_units_survive_everything() -> None:
    chance = random.Random(11)
    for _ in range(500):
        units = [
            nal.escape(
                b"\x41" + bytes(chance.choice((0, 0, 1, 2, 3, 200)) for _ in range(chance.randrange(30))) + b"\x80"
            )
            for _ in range(chance.randint(1, 5))
        ]
        prefixed = nal.join_length_prefixed(units)
        annexb = nal.length_prefixed_to_annexb(prefixed)
        assert nal.split_annexb(annexb) == units
        assert nal.annexb_to_length_prefixed(annexb) == prefixed
        assert nal.split_length_prefixed(prefixed) == units
        assert [nal.escape(nal.unescape(unit)) for unit in units] == units
