"""The common query parameters of media URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist.stream.parameters import PlaybackParameters, parse_parameters, safe_file_name, url_token


def test_nothing_asked() -> None:
    parameters = parse_parameters({})
    assert parameters == PlaybackParameters()
    assert parameters.window(10**15, 0, 5) == (None, None)
    assert parameters.catches_up


def test_everything_asked() -> None:
    parameters = parse_parameters(
        {
            "audio": "en",
            "video": "maxbps",
            "meta": "none",
            "subtitle": "",
            "start": "1500",
            "stop": "9000.7",
            "rate": "1.5x",
            "buffer": "2.5",
            "waitkey": "",
            "waittrackcount": "3",
            "mintrackkeys": "1",
            "mintrackms": "100",
            "maxtrackms": "4000",
            "dl": "../../My file;.mp4",
            "tkn": "abc",
            "unknown": "x",
        }
    )
    assert dict(parameters.selectors) == {"audio": "en", "video": "maxbps", "meta": "none"}
    assert (parameters.start_us, parameters.stop_us) == (1_500_000, 9_000_000)
    assert parameters.rate == 0  # a download is sent as fast as it is taken
    assert parameters.buffer_us == 2_500_000
    assert parameters.wait_key
    assert (parameters.wait_track_count, parameters.min_track_keys) == (3, 1)
    assert (parameters.min_track_us, parameters.max_track_us) == (100_000, 4_000_000)
    assert parameters.max_wait_us == 120_000_000
    assert parameters.download == "My file.mp4"
    assert parameters.token == "abc"
    assert not parameters.catches_up


@pytest.mark.parametrize(
    ("query", "window"),
    [
        ({"start": "0"}, (None, None)),
        ({"start": "x"}, (None, None)),
        ({"duration": "2"}, (None, 2_700_000)),
        ({"start": "1000", "stop": "5000", "duration": "2"}, (1_000_000, 3_000_000)),
        ({"startunix": "-10"}, (990_000_000, None)),
        ({"startunix": "36000"}, (37_000_000_000, None)),
        ({"startunix": "1700000500", "stopunix": "1700000600"}, (500_000_000, 600_000_000)),
        ({"startunix": "1700000500", "start": "7"}, (500_000_000, None)),
    ],
)
def test_window(query: dict[str, str], window: tuple[int | None, int | None]) -> None:
    zero_us = 1_700_000_000_000_000
    assert parse_parameters(query).window(zero_us + 1_000_000_000, zero_us, 700_000) == window


def test_unix_times_need_a_wall_clock() -> None:
    assert parse_parameters({"startunix": "-5", "start": "7"}).window(10**15, None, 0) == (7000, None)


@pytest.mark.parametrize(
    ("query", "header", "rate"),
    [
        ({"rate": "0"}, "", 0),
        ({"rate": "2"}, "3", 2),
        ({}, "3", 3),
        ({}, "2.9", 2),
        ({"rate": "-1"}, "", 0),
        ({}, "", 1),
    ]
    + [({"rate": "9e9"}, "", 9), ({"rate": "99999999"}, "", 1000), ({"rate": ""}, "", 1)],
)
def test_rate(query: dict[str, str], header: str, rate: float) -> None:
    assert parse_parameters(query, rate_header=header).rate == rate


def test_downloads() -> None:
    assert parse_parameters({"dl": "1"}).download == ""
    assert parse_parameters({"dl": ""}).download == ""
    assert safe_file_name('a"b\r\nSet-Cookie: x/..') == "abSet-Cookie x"
    assert safe_file_name("/etc/passwd") == "etcpasswd"


def test_token_precedence() -> None:
    assert url_token({"sid": "b", "sessId": "c"}) == "b"
    assert url_token({"tkn": "a", "sid": "b", "jwt": "j"}) == "j"
    assert url_token({"tkn": ""}) == ""


_names = st.sampled_from(
    [
        "start",
        "stop",
        "startunix",
        "stopunix",
        "duration",
        "rate",
        "buffer",
        "waittrackcount",
        "mintrackms",
        "dl",
        "video",
    ]
)


@given(st.dictionaries(_names, st.text(st.sampled_from("0123456789.-+ekxNaIf"), max_size=40)))
def test_any_text_stays_inside_64_bits(query: dict[str, str]) -> None:
    parameters = parse_parameters(query)
    for time in parameters.window(1_700_000_000_000_000, 0, 0):
        assert time is None or -(1 << 63) < time < 1 << 63
    assert 0 <= parameters.rate <= 1000
