"""AMF 0 and AMF 3."""

from __future__ import annotations

from typing import Any

import pytest

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import amf
from mist.formats.amf import UNDEFINED, Date, EcmaArray, TypedObject, Xml, decode, decode3, decode_all, encode, encode3

GOLDEN0: list[tuple[str, Any]] = [
    ("00 3ff0000000000000", 1.0),
    ("01 01", True),
    ("01 00", False),
    ("02 0003 616263", "abc"),
    ("05", None),
    ("03 0001 61 00 4000000000000000 0001 62 02 0000 000009", {"a": 2.0, "b": ""}),
    ("08 00000001 0001 61 05 000009", EcmaArray(a=None)),
    ("0a 00000002 05 01 01", [None, True]),
    ("0b 4072c00000000000 0000", Date(300.0)),
    ("0f 00000004 3c612f3e", Xml("<a/>")),
    ("10 0002 4162 0001 61 05 000009", TypedObject("Ab", {"a": None})),
]
GOLDEN3: list[tuple[str, Any]] = [
    ("00", UNDEFINED),
    ("01", None),
    ("02", False),
    ("03", True),
    ("04 7f", 127),
    ("04 8100", 128),
    ("04 bfffffff", (1 << 28) - 1),
    ("04 ffffffff", -1),
    ("04 c0808000", -(1 << 28)),
    ("05 3ff8000000000000", 1.5),
    ("06 07 616263", "abc"),
    ("06 01", ""),
    ("07 09 3c612f3e", Xml("<a/>")),
    ("08 01 4072c00000000000", Date(300.0)),
    ("09 05 01 0401 0402", [1, 2]),
    ("09 01 03 61 0401 01", EcmaArray(a=1)),
    ("0a 0b 01 03 61 0401 01", {"a": 1}),
    ("0a 13 01 03 61 0405", {"a": 5}),
    ("0a 0b 05 4162 01", TypedObject("Ab")),
    ("0c 05 0102", b"\x01\x02"),
    ("0d 05 00 00000001 ffffffff", [1, -1]),
    ("0e 03 00 ffffffff", [0xFFFFFFFF]),
    ("0f 03 00 3ff8000000000000", [1.5]),
    ("10 03 00 01 0401", [1]),
    ("11 03 00 06 03 61 0401", EcmaArray(a=1)),
]


@pytest.mark.parametrize(("wire", "value"), GOLDEN0)
def test_golden_amf0(wire: str, value: Any) -> None:
    data = bytes.fromhex(wire)
    found, end = decode(data)
    assert (found, type(found), end) == (value, type(value), len(data))
    assert encode(value) == data


@pytest.mark.parametrize(("wire", "value"), GOLDEN3)
def test_golden_amf3(wire: str, value: Any) -> None:
    data = bytes.fromhex(wire)
    found, end = decode3(data)
    assert (found, type(found), end) == (value, type(value), len(data))


@pytest.mark.parametrize(
    ("wire", "value"), [one for one in GOLDEN3 if one[0][:2] not in ("07", "0d", "0e", "0f", "10", "11")]
)
def test_amf3_round_trip(wire: str, value: Any) -> None:
    found, _ = decode3(encode3(value))
    assert (found, type(found)) == (value, type(value))


def test_typed_objects_keep_their_names() -> None:
    assert decode(encode(TypedObject("Ab")))[0].class_name == "Ab"
    assert decode3(encode3(TypedObject("Ab", {"a": 1})))[0].class_name == "Ab"


def test_amf0_cut_anywhere() -> None:
    data = encode({"a": [1, "two", None, EcmaArray(x=Date(1.0))], "long": "y" * 70000})
    assert decode(data)[0]["long"] == "y" * 70000
    for cut in [*range(80), len(data) - 1, len(data) - 3]:
        with pytest.raises(RemoteProtocolError):
            decode(data[:cut])


def test_amf3_cut_anywhere() -> None:
    data = encode3({"a": [1, "two", None, EcmaArray(x=Date(1.0))], "b": b"\0" * 5})
    for cut in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            decode3(data[:cut])


def test_commands_with_amf3_inside() -> None:
    data = encode("connect", 1.0) + b"\x11" + encode3({"app": "live"})
    assert decode_all(data) == ["connect", 1.0, {"app": "live"}]


def test_references() -> None:
    data = bytes.fromhex("0a 00000002 03 0001 61 05 000009 07 0001")
    value = decode(data)[0]
    assert value == [{"a": None}, {"a": None}] and value[0] is value[1]
    text_twice = bytes.fromhex("09 05 01 06 07 616263 06 00")
    assert decode3(text_twice)[0] == ["abc", "abc"]
    same_traits = bytes.fromhex("09 05 01 0a 13 01 03 61 0401 0a 01 0402")
    assert decode3(same_traits)[0] == [{"a": 1}, {"a": 2}]
    same_object = bytes.fromhex("09 05 01 0a 0b 01 01 0a 02")
    value = decode3(same_object)[0]
    assert value[0] is value[1]
    for broken in ("0a 00000001 07 0009", "07 0000"):
        with pytest.raises(RemoteProtocolError):
            decode(bytes.fromhex(broken))
    for broken in ("06 02", "0a 04", "09 02", "0a 01"):
        with pytest.raises(RemoteProtocolError):
            decode3(bytes.fromhex(broken))


def test_arrays_that_are_named_and_numbered() -> None:
    assert decode3(bytes.fromhex("09 05 03 61 0401 01 0402 0403"))[0] == {"a": 1, "0": 2, "1": 3}


def test_wrapped_collections_and_other_externalizables() -> None:
    name = b"flex.messaging.io.ArrayCollection"
    data = bytes([0x0A, 7, len(name) * 2 + 1]) + name + bytes.fromhex("09 03 01 0405")
    assert decode3(data)[0] == [5]
    with pytest.raises(UnsupportedError):
        decode3(bytes.fromhex("0a 07 03 41"))


def test_metadata_without_its_end_marker() -> None:
    """Some encoders end onMetaData's array with 00 00 alone."""
    assert decode(bytes.fromhex("08 00000000 0001 61 05 0000"))[0] == {"a": None}


def test_text_in_another_code_page() -> None:
    assert decode(b"\x02\x00\x02\xc4x")[0] == "\ufffdx"


@pytest.mark.parametrize("wire", ["04", "0e", "12", "ff", "", "02 0005 61", "0a ffffffff", "10 ffff"])
def test_broken_amf0(wire: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes.fromhex(wire))


def test_depth_and_size_are_bounded() -> None:
    with pytest.raises(LimitExceededError):
        decode(b"\x0a\x00\x00\x00\x01" * 100 + b"\x05")
    with pytest.raises(LimitExceededError):
        decode3(b"\x09\x03\x01" * 100 + b"\x01")
    with pytest.raises(LimitExceededError):
        decode(b"\x0a\x00\x01\x86\xa0" + b"\x05" * 100_000)
    with pytest.raises(LimitExceededError):
        decode3(b"\x0d" + encode3(bytes(70_000))[1:4] + bytes(1 << 20))
    with pytest.raises(TruncatedError):
        decode3(b"\x09\xff\xff\xff\xff\x01")


def test_what_has_no_form() -> None:
    for value in (object(), b"bytes", {"k" * 70000: 1}):
        with pytest.raises(LocalProtocolError):
            encode(value)
    for value in (object(), {"": 1}):
        with pytest.raises(LocalProtocolError):
            encode3(value)
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    for write in (encode, encode3):
        with pytest.raises(LocalProtocolError):
            write(deep)


def test_undefined_is_one_false_value() -> None:
    assert decode(b"\x06")[0] is UNDEFINED and not UNDEFINED and repr(UNDEFINED) == "UNDEFINED"
    assert decode(b"\x0d")[0] is UNDEFINED
    assert encode(UNDEFINED) == b"\x06" and amf.encode3(UNDEFINED) == b"\x00"
