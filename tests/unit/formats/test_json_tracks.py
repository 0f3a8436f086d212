"""Metadata tracks as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import UnsupportedError
from mist.formats.json_tracks import CALLBACK_NAME, JsonMuxer
from mist.formats.tracks import ID3, JSON, META, SUBTITLE, VIDEO, TrackInfo

STATE_LIMIT = 1024  # of `mist.core.arena`
TRACKS = [TrackInfo(META, JSON), TrackInfo(META, SUBTITLE), TrackInfo(META, ID3)]
PACKETS = [
    Packet(0, 1_000_000, 0, True, b'{"a": [1, null, "\xc3\xa9"]}'),
    Packet(1, 1_500_600, 0, True, "Grüße\n".encode()),
    Packet(1, 2_000_000, 0, True, b""),
    Packet(2, 2_500_000, 0, True, b"ID3\x04\xff"),
    Packet(0, 3_000_000, 0, True, b"no JSON"),
    Packet(0, 3_500_000, 0, True, b"NaN"),
    Packet(0, 4_000_000, 0, True, b'"\\ud800"'),
]
ITEMS: list[dict[str, Any]] = [
    {"data": {"a": [1, None, "é"]}, "time": 1000, "track": 0},
    {"data": "Grüße\n", "time": 1501, "track": 1},
    {"data": "SUQzBP8=", "time": 2500, "track": 2},
    {"data": "no JSON", "time": 3000, "track": 0},
    {"data": "NaN", "time": 3500, "track": 0},
    {"data": "\ud800", "time": 4000, "track": 0},
]


def written(muxer: JsonMuxer, packets: list[Packet]) -> str:
    for packet in packets:
        muxer.write(packet)
    muxer.finish()
    return (muxer.header() + muxer.take_output()).decode()


def test_an_array() -> None:
    assert json.loads(written(JsonMuxer(TRACKS), PACKETS)) == ITEMS
    assert json.loads(written(JsonMuxer(TRACKS), [])) == []


def test_an_array_without_an_end() -> None:
    text = written(JsonMuxer(TRACKS, open_end=True), PACKETS)
    assert text.endswith("},\n")
    assert json.loads(text[:-2] + "]") == ITEMS


def test_calls() -> None:
    lines = written(JsonMuxer(TRACKS, callback="a.b"), PACKETS).splitlines()
    assert all(line.startswith("a.b(") and line.endswith(");") for line in lines)
    assert [json.loads(line[4:-2]) for line in lines] == ITEMS


def test_repeats_are_left_out() -> None:
    texts = [
        (0, "{'a': 1, 't': 1}"),
        (1, "x"),
        (0, "{'t': 2, 'a': 1}"),
        (1, "x"),
        (0, "{'a': 2}"),
        (0, "{'a': 1, 't': 1}"),
    ]
    packets = [
        Packet(track, number * 1_000_000, 0, True, text.replace("'", '"').encode())
        for number, (track, text) in enumerate(texts)
    ]

    def times(dedupe: list[str] | None) -> list[int]:
        return [item["time"] for item in json.loads(written(JsonMuxer(TRACKS, dedupe=dedupe), packets))]

    assert times(None) == [0, 1000, 2000, 3000, 4000, 5000]
    assert times([]) == [0, 1000, 2000, 4000, 5000]
    assert times(["t", "no such"]) == [0, 1000, 4000, 5000]

    first, second = JsonMuxer(TRACKS, dedupe=["t"]), JsonMuxer(TRACKS, dedupe=["t"])
    for packet in packets[:2]:
        first.write(packet)
    second.restore(first.state())
    for packet in packets[2:4]:
        second.write(packet)
    assert second.take_output() == b""  # the next process knows what was sent
    many = JsonMuxer([TrackInfo(META, JSON)] * 64, dedupe=["t"])
    assert len(many.state()) <= STATE_LIMIT


def test_names_of_callbacks() -> None:
    assert all(CALLBACK_NAME.fullmatch(name) for name in ("f", "$", "_a1", "window.app.take"))
    assert not any(CALLBACK_NAME.fullmatch(name) for name in ("", "1a", "a(", "a.", "a..b", "a b", "é", "a" * 70))


def test_state_and_tracks() -> None:
    muxer, other = JsonMuxer(TRACKS), JsonMuxer(TRACKS)
    for packet in PACKETS:
        other.restore(muxer.state())
        for one in (muxer, other):
            one.write(packet)
        assert muxer.take_output() == other.take_output()
    assert muxer.set_tracks(TRACKS)
    assert not muxer.set_tracks(TRACKS[:2])
    with pytest.raises(UnsupportedError):
        JsonMuxer([TrackInfo(VIDEO, "H264")])
