"""EBML: variable-length integers and elements, read and written."""

from __future__ import annotations

import pytest

from mist.core.ebml import (
    MAX_CHILDREN,
    element,
    element_id,
    element_size,
    float_element,
    float_value,
    sized,
    split_elements,
    text_value,
    unsigned_element,
    unsigned_value,
    void_element,
)
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "80"), (1, "81"), (126, "fe"), (127, "407f"), (16382, "7ffe"), (16383, "203fff"),
        (2097150, "3ffffe"), (2097151, "101fffff"), ((1 << 56) - 2, "01fffffffffffffe"),
    ],
)  # fmt: skip
def test_sizes(value: int, written: str) -> None:
    assert element_size(value).hex() == written
    if value < 1000:
        assert split_elements(bytes.fromhex("ec") + element_size(value) + bytes(value)) == [(0xEC, bytes(value))]


def test_sizes_that_cannot_be_written() -> None:
    for write in (element_size, sized):
        with pytest.raises(LocalProtocolError):
            write((1 << 56) - 1)
    assert sized(5).hex() == "0100000000000005"


@pytest.mark.parametrize(
    ("number", "written"), [(0xEC, "ec"), (0x4282, "4282"), (0x2AD7B1, "2ad7b1"), (0x1A45DFA3, "1a45dfa3")]
)
def test_ids(number: int, written: str) -> None:
    assert element_id(number).hex() == written
    assert split_elements(element(number, b"x")) == [(number, b"x")]


def test_longer_sizes_than_needed_are_read() -> None:
    for length in range(1, 9):
        size = (3 | 1 << 7 * length).to_bytes(length, "big")
        assert split_elements(b"\xec" + size + b"abc") == [(0xEC, b"abc")]


@pytest.mark.parametrize(
    ("data", "error", "offset"),
    [
        ("0080", RemoteProtocolError, 10),  # an ID of five bytes
        ("ec00", RemoteProtocolError, 10),  # a size of nine bytes
        ("ec80ec85", TruncatedError, 12),
        ("ec", TruncatedError, 10),
        ("ecff", TruncatedError, 10),  # an unknown size, which only Segments and Clusters may have
        ("42", TruncatedError, 10),
    ],
)
def test_broken_elements(data: str, error: type[RemoteProtocolError], offset: int) -> None:
    with pytest.raises(error) as caught:
        split_elements(bytes.fromhex(data), 10)
    assert caught.value.offset == offset
    assert caught.value.spec


def test_children_are_bounded() -> None:
    assert len(split_elements(b"\xec\x80" * MAX_CHILDREN)) == MAX_CHILDREN
    with pytest.raises(LimitExceededError):
        split_elements(b"\xec\x80" * (MAX_CHILDREN + 1))


def test_values() -> None:
    assert unsigned_element(0xD7, 0).hex() == "d78100"
    assert unsigned_element(0xD7, 256).hex() == "d7820100"
    assert unsigned_value(b"") == 0
    assert unsigned_value(b"\x01\x00") == 256
    with pytest.raises(RemoteProtocolError):
        unsigned_value(bytes(9))
    assert float_element(0xB5, 48000.0).hex() == "b58840e7700000000000"
    assert float_value(bytes.fromhex("40e7700000000000")) == 48000
    assert float_value(bytes.fromhex("473b8000")) == 48000
    assert float_value(b"") == 0
    with pytest.raises(RemoteProtocolError):
        float_value(b"\x00\x00")
    assert text_value(b"eng\0\0") == "eng"
    assert text_value(b"\xff") == "\ufffd"


@pytest.mark.parametrize("size", [2, 3, 9, 10, 11, 80, 200])
def test_voids_have_the_size_asked_for(size: int) -> None:
    made = void_element(size)
    assert len(made) == size
    assert [number for number, _ in split_elements(made)] == [0xEC]
    with pytest.raises(LocalProtocolError):
        void_element(1)
