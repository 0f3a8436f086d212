"""The JSON dialect of the control API."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError
from mist.formats.json_text import MAX_DEPTH, dumps, loads_lenient


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"b": 1, "a": [True, False, None], "B": {}}, '{"B":{},"a":[true,false,null],"b":1}'),
        ([], "[]"),
        ((1, (2,)), "[1,[2]]"),
        ({3, 1, 2}, "[1,2,3]"),
        ({2: "two"}, '{"2":"two"}'),
        ('a"b\\c\n\t\r\b\f\x00\x7f/', r'"a\"b\\c\n\t\r\b\f\u0000\u007F/"'),
        ("\u00e9\u20ac\U0001f600", r'"\u00E9\u20AC\uD83D\uDE00"'),
        ("x\udcff", r'"x\u00FF"'),
        (b"\x01d\x00\xc3\xa9", r'"\u0001d\u0000\u00C3\u00A9"'),
        (-(1 << 63), "-9223372036854775808"),
        (0.1, "0.1"),
        (29.97, "29.97"),
        (1 / 3, "0.3333333333333333"),
        (1e22, "1e+22"),
        (sys.float_info.max, "1.7976931348623157e+308"),  # with 16 digits it would be more than a double can be
        (5.0, "5"),
        (math.nan, "null"),
        ([math.inf], "[null]"),
    ],
)
def test_dumps(value: object, text: str) -> None:
    assert dumps(value) == text


def test_dumps_refuses_what_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        dumps(object())
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(LocalProtocolError):
        dumps(nested)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,2.5,-3,"x"],"b":{"c":null}}', {"a": [1, 2.5, -3, "x"], "b": {"c": None}}),
        ("{'a':'it\"s','b':\"it's\"}", {"a": 'it"s', "b": "it's"}),
        ("  \ufeff; {a: 'b' \"c\" = 1;}", {"b": "c"}),
        ('{"a":1,}', {"a": 1}),
        ("[1,,2,]", [1, 2]),
        ('[1 2 "x"]', [1, 2, "x"]),
        ('[tru, False, nul, "x"]', [True, False, None, "x"]),
        ('{"a":true maybe,"b":none}', {"a": True, "b": None}),
        ('{"a","b":1}', {"a": None, "b": 1}),
        ('{"a":}', {"a": None}),
        ('{"a":1,"a":2}', {"a": 2}),
        ("1e5", 100_000),
        ("1.5e1", 15),
        ("1.25e1", 12.5),
        ("[1e999,-1e999]", [1.7976931348623157e308, -1.7976931348623157e308]),
        ("9" * 5000, (1 << 63) - 1),
        ("-" + "9" * 30, -(1 << 63)),
        ("[-,1,-2,--3]", [1, -2, -3]),
        ("- -7 8", -7),
        ("[.5]", [5]),
        ("[-.5]", [5]),
        ("[3.]", [3.0]),
        ("", None),
        ("   ", None),
        ("-", None),
        ("null", None),
        (r'"\u00e9\uD83D\uDE00\n\/\q"', "\u00e9\U0001f600\n/q"),
        (r'"\uD83D" x', "\ufffd"),
        (r'"\u12"', "u12"),
        (b'"caf\xe9 caf\xc3\xa9"', "caf\u00e9 caf\u00e9"),
        ('"x"}{"y"', "x"),
        ("}]1", 1),
    ],
)
def test_loads(text: str | bytes, value: object) -> None:
    assert loads_lenient(text) == value


@pytest.mark.parametrize("text", ["{", "[1,2", '"abc', '{"a":"b', '{"a":1', "'\\", '["\\u00'])
def test_loads_refuses_half_a_text(text: str) -> None:
    with pytest.raises(TruncatedError):
        loads_lenient(text)


def test_limits() -> None:
    assert loads_lenient("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(LimitExceededError):
            loads_lenient(text)
    with pytest.raises(LimitExceededError):
        loads_lenient("[1,2,3]", max_characters=6)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(_values)
def test_round_trip(value: Any) -> None:
    text = dumps(value)
    assert json.loads(text) == value
    assert loads_lenient(text) == value
    assert all(" " <= character <= "~" for character in text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_sixteen_digits(value: float) -> None:
    back = loads_lenient(dumps([value]))[0]
    assert back == pytest.approx(value, rel=1e-15, abs=0)


@given(st.text(st.sampled_from("{}[]\"'\\u12eE-+.,:tfn \x00é"), max_size=60))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    try:
        value = loads_lenient(text)
    except RemoteProtocolError:
        return
    assert loads_lenient(dumps(value)) == value
