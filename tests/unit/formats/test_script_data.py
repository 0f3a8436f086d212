"""Script data as JSON documents and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mist.core.script_data import MAX_SCRIPT_BYTES, metadata_body, script_body
from mist.errors import LimitExceededError
from mist.formats import amf
from mist.formats.script_data import document_of

TEXT = b'["onTextData",{"type":"Text","text":"h\xc3\xa9"}]'


@pytest.mark.parametrize(
    ("values", "document"),
    [
        (["onTextData", amf.EcmaArray(type="Text", text="h\u00e9")], TEXT),
        (["onFI", {"sd": "22-11-2026", "n": 1.0, "half": 0.5}], b'["onFI",{"sd":"22-11-2026","n":1,"half":0.5}]'),
        (["onCuePoint", [True, None, amf.UNDEFINED, float("nan")]], b'["onCuePoint",[true,null,null,null]]'),
        (["a", amf.Date(86400000.0), amf.Xml("<x/>"), b"\0\1", amf.TypedObject("C", {"i": 3})], b'["a",86400000,"<x/>","AAE=",{"i":3}]'),
        (["onJSON", {"gps": [1.5, 2]}], b'{"gps":[1.5,2]}'),
        (["onJSON"], b'["onJSON"]'),
    ],
)  # fmt: skip
def test_a_message_is_a_document(values: list[Any], document: bytes) -> None:
    assert document_of(values) == document


def test_what_names_itself_over_and_over_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["me"] = endless
    wide: list[Any] = []
    for _ in range(20):
        wide = [wide] * 10
    for value in (endless, wide):
        with pytest.raises(LimitExceededError):
            document_of(["x", value])
    with pytest.raises(LimitExceededError):
        document_of(["x", "y" * (2 << 20)])


@pytest.mark.parametrize(
    "document",
    [TEXT, b'{"a":{"b":[1,-2.5,"c",null,true]},"d":""}', b"[1,2]", b"7", b'["onMetaData",{"width":1}]', b"[]"],
)
def test_a_document_comes_back(document: bytes) -> None:
    values = amf.decode_all(script_body(document))
    assert isinstance(values[0], str) and values[0] not in ("onMetaData", "@setDataFrame")
    assert json.loads(document_of(values)) == json.loads(document)


def test_what_has_no_form_in_amf_is_left_out() -> None:
    deep = b"[" * 40 + b"]" * 40
    for document in (deep, b"[" * 100_000, json.dumps("x" * MAX_SCRIPT_BYTES).encode(), b"1" + b"0" * 400):
        assert script_body(document) == b""
    assert amf.decode_all(script_body(b"no json \xff")) == ["onJSON", "no json \ufffd"]
    assert amf.decode_all(script_body(json.dumps({"": 1, "long": "z" * 70_000}).encode())) == [
        "onJSON",
        {"long": "z" * 70_000},
    ]


def test_metadata_is_what_readers_expect() -> None:
    name, values = amf.decode_all(
        metadata_body({"width": 128, "stereo": True, "videoTrackIdInfoMap": {"1": {"width": 2.0}}})
    )
    assert name == "onMetaData" and isinstance(values, amf.EcmaArray)
    assert values == {"width": 128.0, "stereo": True, "videoTrackIdInfoMap": {"1": {"width": 2.0}}}
