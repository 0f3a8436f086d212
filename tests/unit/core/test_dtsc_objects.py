"""DTSC's typed objects: golden bytes in both directions, bounds, and what is broken."""

from __future__ import annotations

from typing import Any

import pytest

from mist.core.dtsc_objects import MAX_DEPTH, MAX_VALUES, parse_object, serialize_object, serialize_value
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError

# One object for each type byte, by hand.
GOLDEN: dict[str, tuple[str, dict[str, Any]]] = {
    "command": ("e0 0003 636d64 02 00000004 70696e67 0000ee", {"cmd": b"ping"}),
    "integers": ("e0 0001 61 01 0000000000000028 0001 62 01 ffffffffffffffff 0000ee", {"a": 40, "b": -1}),
    "null": ("e0 0001 61 03 0000ee", {"a": None}),
    "double": ("e0 0001 61 04 4004000000000000 0000ee", {"a": 2.5}),
    "array": ("e0 0001 61 0a 01 0000000000000001 03 0000ee 0000ee", {"a": [1, None]}),
    "object in an object": ("e0 0001 61 e0 0001 62 02 00000000 0000ee 0000ee", {"a": {"b": b""}}),
    "empty": ("e0 0000ee", {}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    text, value = GOLDEN[name]
    data = bytes.fromhex(text)
    assert parse_object(data) == value
    assert serialize_object(value) == data


def test_other_marks_are_read() -> None:
    """The alternative type byte of objects, and any third byte of an end."""
    assert parse_object(bytes.fromhex("ff 0001 61 01 0000000000000007 000000")) == {"a": 7}


def test_text_and_booleans_are_written() -> None:
    assert parse_object(serialize_object({"a": "\u00e4", "b": True})) == {"a": "\u00e4".encode(), "b": 1}
    assert serialize_value(b"x") == bytes.fromhex("02 00000001 78")


def test_names_that_are_not_utf8_go_round() -> None:
    data = bytes.fromhex("e0 0002 fffe 03 0000ee")
    assert serialize_object(parse_object(data)) == data


def test_only_the_object_is_read() -> None:
    data = b"head" + serialize_object({"a": 1}) + b"tail"
    assert parse_object(data, 4) == {"a": 1}


@pytest.mark.parametrize("name", GOLDEN)
def test_every_cut_is_noticed(name: str) -> None:
    data = bytes.fromhex(GOLDEN[name][0])
    for size in range(len(data)):
        with pytest.raises(TruncatedError):
            parse_object(data[:size])


@pytest.mark.parametrize("text", ["01 0000000000000000", "e0 0001 61 05 0000ee", "e0 0001 61 0b 0000ee"])
def test_unknown_types(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_object(bytes.fromhex(text))


def test_sizes_that_lie() -> None:
    for text in ("e0 0001 61 02 ffffffff 61 0000ee", "e0 ffff 61 01"):
        with pytest.raises(TruncatedError):
            parse_object(bytes.fromhex(text))


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = {"a": value}
    assert parse_object(serialize_object(value)) == value
    deep = b"\xe0" + b"\0\1a\xe0" * 10_000
    with pytest.raises(LimitExceededError):
        parse_object(deep)
    for _ in range(3):
        value = {"a": value}
    with pytest.raises(LocalProtocolError):
        serialize_object(value)


def test_count_is_bounded() -> None:
    data = b"\xe0\0\1a\x0a" + b"\x03" * (MAX_VALUES + 1) + b"\0\0\xee\0\0\xee"
    with pytest.raises(LimitExceededError):
        parse_object(data)


def test_what_cannot_be_written() -> None:
    with pytest.raises(LocalProtocolError):
        serialize_object({"": 1})
    with pytest.raises(OverflowError):
        serialize_object({"a": 1 << 63})
