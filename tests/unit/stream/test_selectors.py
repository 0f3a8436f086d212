"""The selector grammar and the capability matrix."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist.formats.tracks import TrackInfo
from mist.stream.selectors import (
    passes_exceptions,
    pick_by_selector,
    select_tracks,
    sort_tracks,
    usable_tracks,
)
from mist.stream.state import TrackState

_STATE_FIELDS = {"has_bframes", "valid_mask", "last_us", "next_sequence"}


def track(index: int, kind: str, codec: str, bps: int = 0, **fields: Any) -> TrackState:
    state = {name: fields.pop(name) for name in list(fields) if name in _STATE_FIELDS}
    info = TrackInfo(type=kind, codec=codec, **fields)
    return TrackState(index=index, info=info, bytes_per_second=bps // 8, **{"next_sequence": 100, **state})


TRACKS = [
    track(0, "video", "H264", 5_000_000, width=1920, height=1080, track_id=256),
    track(1, "video", "H264", 2_000_000, width=1280, height=720, has_bframes=True, track_id=257),
    track(2, "video", "HEVC", 800_000, width=640, height=360),
    track(3, "audio", "AAC", 128_000, channels=2, sample_rate_hz=48000, language="eng"),
    track(4, "audio", "AAC", 64_000, channels=1, sample_rate_hz=48000, language="deu"),
    track(5, "audio", "opus", 384_000, channels=6, sample_rate_hz=48000, language="ger"),
    track(6, "meta", "JSON"),
    track(7, "meta", "subtitle", language="nld"),
]


@pytest.mark.parametrize(
    ("kind", "selector", "picked"),
    [
        ("video", "none", []),
        ("video", "-1", []),
        ("video", "", []),
        ("video", "all", [0, 1, 2]),
        ("video", "*", [0, 1, 2]),
        ("video", "1", [1]),
        ("audio", "1", []),
        ("video", "99999999999999999999", []),
        ("video", "i257", [1]),
        ("video", "I256", [0]),
        ("video", "2,0", [0, 2]),
        ("video", "maxbps", [0]),
        ("video", "BestBps", [0]),
        ("video", "lowbps", [2]),
        ("video", "<1mbps", [2]),
        ("video", ">1mbps", [0, 1]),
        ("video", ">1.5Mbps,|<4mbps", [1]),
        ("video", "max<3mbps", [1]),
        ("video", "max<1bps", [2]),
        ("video", "900kbps", [2]),
        ("video", "4000000bps", [0]),
        ("video", "<1280x721", [1, 2]),
        ("video", "<1280x720", [2]),
        ("video", ">720p", [0]),
        ("video", "~700x400", [2]),
        ("video", "1080p", [0]),
        ("video", "1280x720", [1]),
        ("video", "4K", []),
        ("video", "maxres", [0]),
        ("video", "worstres", [2]),
        ("video", "bframes", [1]),
        ("video", "all,!bframes", [0, 2]),
        ("video", "!bframes", [0, 2]),
        ("video", "!h264", [2]),
        ("video", "h264,|lowbps", [1]),
        ("video", "hevc", [2]),
        ("audio", "mono", [4]),
        ("audio", "stereo", [3]),
        ("audio", "surround", [5]),
        ("audio", "6ch", [5]),
        ("audio", "en", [3]),
        ("audio", "de", [4, 5]),
        ("audio", "GER", [4, 5]),
        ("audio", "deu,|aac", [4]),
        ("audio", "und", []),
        ("audio", "xx", []),
        ("audio", "maxres", []),
        ("audio", "x" * 5000, []),
        ("meta", "all", [6, 7]),
        ("meta", "und", [6]),
        ("subtitle", "all", [7]),
        ("subtitle", "nl", [7]),
        ("subtitle", "6", []),
    ],
)
def test_items(kind: str, selector: str, picked: list[int]) -> None:
    assert pick_by_selector(selector, kind, TRACKS) == picked


MP4 = [[["H264", "HEVC", "AV1"], ["AAC", "opus"]]]
TS = [[["+H264", "+HEVC"], ["+AAC", "+opus"], ["+JSON"]]]


@pytest.mark.parametrize(
    ("parameters", "codecs", "picked"),
    [
        ({}, MP4, [1, 4]),
        ({"video": "auto", "audio": ""}, MP4, [1, 4]),
        ({"video": "maxbps"}, MP4, [0, 4]),
        ({"video": "none"}, MP4, [4]),
        ({"video": "av1"}, MP4, [4]),
        ({"audio": "-1"}, MP4, [1]),
        ({"audio": "opus"}, MP4, [1, 5]),
        ({"video": "all", "audio": "3,5"}, MP4, [0, 1, 2, 3, 5]),
        ({"meta": "all"}, MP4, [1, 4]),
        ({}, TS, [0, 1, 2, 3, 4, 5, 6]),
        ({"video": "1", "meta": "none"}, TS, [1, 3, 4, 5]),
        ({}, [[["@meta"]]], [7]),
        ({}, [[["+@meta"]]], [6, 7]),
        ({}, [[["@+meta"]]], [6, 7]),
        ({"subtitle": "none"}, [[["@+meta"]]], [6]),
        ({}, [], [0, 1, 2, 3, 4, 5, 6, 7]),
        ({}, [[["+*"]]], [0, 1, 2, 3, 4, 5, 6, 7]),
        ({}, [[["*"]]], [7]),
        ({}, [[["VP8"]], [["opus"], ["H264"]]], [1, 5]),
        ({"video": "HEVC"}, [[["H264"], ["AAC"]], [["HEVC"]]], [2]),
        ({}, [[["VP8"], ["vorbis"]]], []),
        ({}, [[["HEVC", "H264"]]], [2]),
        ({}, [[["H264"], ["H264"]]], [0, 1]),
    ],
)
def test_select(parameters: dict[str, str], codecs: Any, picked: list[int]) -> None:
    assert select_tracks(TRACKS, parameters, codecs) == picked


def test_preference_of_the_newest_only_when_live() -> None:
    assert select_tracks(TRACKS, {}, MP4, live=False) == [0, 3]
    assert select_tracks(TRACKS, {}, MP4, sorting="bps_htl") == [0, 3]
    assert select_tracks(TRACKS, {}, MP4, sorting="res_lth") == [1, 4]
    assert [t.index for t in sort_tracks(TRACKS[:3], "nonsense", True)] == [2, 1, 0]


def test_what_is_never_chosen() -> None:
    empty = track(0, "video", "H264", next_sequence=0)
    masked = track(1, "video", "H264", valid_mask=6)
    late = track(2, "video", "H264", last_us=8_000_000)
    fresh = track(3, "audio", "AAC", last_us=10_000_000)
    tracks = [empty, masked, late, fresh]
    assert select_tracks(tracks, {}, MP4) == [2, 3]
    assert select_tracks(tracks, {"video": "all"}, MP4) == [2, 3]
    assert select_tracks(tracks, {}, MP4, max_delay_ms=1500) == [3]
    assert select_tracks(tracks, {}, MP4, mask=2, live=False) == [1, 3]
    assert [t.index for t in usable_tracks(tracks, [[["AAC"]]])] == [3]


def test_no_bframes_skips_to_the_next_track() -> None:
    assert select_tracks(TRACKS, {}, MP4, no_bframes=True) == [0, 4]
    assert select_tracks(TRACKS, {"video": "1"}, MP4, no_bframes=True) == [1, 4]


def test_codec_exceptions_hide_codecs_from_a_user_agent() -> None:
    rules: dict[str, Any] = {"codec:H264": [["blacklist", ["Odd"]]], "live": [["blacklist"]]}
    assert select_tracks(TRACKS, {}, MP4, exceptions=rules, user_agent="Odd/1") == [2, 4]
    assert select_tracks(TRACKS, {}, MP4, exceptions=rules, user_agent="Even/1") == [1, 4]


@pytest.mark.parametrize(
    ("rules", "agent", "passes"),
    [
        ([], "x", True),
        ([["blacklist"]], "", True),
        ([["blacklist"]], "x", False),
        ([["whitelist"]], "x", True),
        ([["blacklist"], ["whitelist", ["Chrome", "Edge"]]], "Edge 1", True),
        ([["blacklist", ["Safari"]], ["whitelist", ["Chrome"]]], "Chrome Safari", True),
        ([["blacklist_except", ["Chrome"]]], "Firefox", False),
        ([["blacklist_except", ["Chrome"]]], "Chrome", True),
        ([["blacklist"], ["whitelist_except", ["Bad"]]], "Good", True),
        ([[], ["blacklist", "no list"]], "no list", True),
    ],
)
def test_exception_rules(rules: Any, agent: str, passes: bool) -> None:
    assert passes_exceptions(rules, agent) is passes


_kinds = st.sampled_from([("video", "H264"), ("video", "HEVC"), ("audio", "AAC"), ("audio", "opus"), ("meta", "JSON")])
_track_lists = st.lists(st.tuples(_kinds, st.integers(0, 10**7), st.integers(0, 4000)), max_size=8).map(
    lambda rows: [track(i, k[0], k[1], bps, width=size, height=size) for i, (k, bps, size) in enumerate(rows)]
)
_items = st.sampled_from(
    [
        "all",
        "none",
        "1",
        "maxbps",
        "lowres",
        "<1mbps",
        ">300x300",
        "~10x10",
        "h264",
        "en",
        "",
        "i0",
        "2ch",
        "bframes",
        "💥",
    ]
)
_selectors = st.lists(st.tuples(st.sampled_from(["", "|", "!"]), _items).map("".join), max_size=5).map(",".join)


@given(_track_lists, _selectors)
def test_taking_away_leaves_the_rest(tracks: list[TrackState], selector: str) -> None:
    picked = pick_by_selector(selector, "video", tracks)
    everything = pick_by_selector("all", "video", tracks)
    assert set(picked) <= set(everything)
    assert picked == sorted(picked)
    assert pick_by_selector(selector + ",all", "video", tracks) == everything
    assert pick_by_selector(selector + ",!all", "video", tracks) == []
    assert pick_by_selector(selector + ",|all", "video", tracks) == picked


@given(_track_lists, _selectors, _selectors, st.sampled_from([MP4, TS, [], [[["*"], ["@audio"]]]]))
def test_selection_is_a_stable_set_of_tracks(
    tracks: list[TrackState], video: str, audio: str, codecs: list[list[list[str]]]
) -> None:
    chosen = select_tracks(tracks, {"video": video, "audio": audio}, codecs)
    by_index = {t.index: t for t in tracks}
    order = ["video", "audio", "meta"]
    assert len(set(chosen)) == len(chosen)
    places = [(order.index(by_index[index].info.type), index) for index in chosen]
    assert places == sorted(places)
    if video:
        assert {i for i in chosen if by_index[i].info.type == "video"} <= set(pick_by_selector(video, "video", tracks))
    assert chosen == select_tracks(tracks[::-1], {"video": video, "audio": audio}, codecs)
