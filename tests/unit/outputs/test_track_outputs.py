"""Outputs of single tracks: what they offer, what they hand to the fan-out, and what a viewer would then get."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import NoSuitableTrack, UnsupportedError
from mist.formats import h264
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.outputs.base import discover_outputs
from tests.support.elementary import H264Shape
from tests.support.fake_stream import FakeStream
from tests.support.http import FakeRecord

OUTPUTS = discover_outputs()
SHAPE = H264Shape()
TRACKS = [
    TrackInfo(VIDEO, "H264", h264.build_avcc([SHAPE.sps()], [SHAPE.pps()]), width=320, height=192),
    TrackInfo(AUDIO, "AAC", b"\x11\x90", sample_rate_hz=48000, channels=2),
    TrackInfo(AUDIO, "MP3", sample_rate_hz=48000, channels=2),
    TrackInfo(META, "subtitle", language="eng"),
    TrackInfo(META, "subtitle", language="deu"),
    TrackInfo(META, "JSON"),
]


class Joined:
    """Stands for services, response and fan-out at once, and keeps what it was given."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.fanout = SimpleNamespace(join=self.join, watch=lambda *_: None, unwatch=lambda *_: None)
        self.content_type = ""
        self.tracks: list[TrackInfo] = []
        self.key = ""
        self.muxer: Any = None
        self.options: Mapping[str, Any] = {}
        self.config: Mapping[str, Any] = {}
        self.resumed = None

    def saved(self, **_members: Any) -> bytes:
        return b""

    guarded = False

    def visit(self, record: Any) -> None:
        return None

    async def open_stream(self, _name: str) -> Any:
        return self.stream.reader()

    def close_stream(self, _reader: Any) -> None:
        """Nothing is counted."""

    def take_record(self) -> FakeRecord:
        return FakeRecord()

    def take_socket(self, _status: int, content_type: str, _headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.content_type = content_type
        return 0, b""

    def join(self, reader: Any, indexes: list[int], key: str, make_muxer: Any, *_: Any, **options: Any) -> None:
        self.tracks = [reader.track(index).info for index in indexes]
        self.key, self.options = key, options
        self.muxer = make_muxer(self.tracks)


def ask(name: str, path: str, tracks: list[TrackInfo] = TRACKS, **query: str) -> Joined:
    """Send a request for a live stream that has a few packets in each track."""
    stream = FakeStream("live", tracks)
    for number in range(12):  # more than a viewer waits for
        stream.write_all(Packet(track, number * 500_000, 0, True, b"{}") for track in range(len(tracks)))
    joined = Joined(stream)
    request = SimpleNamespace(
        method="GET",
        path=path,
        query=dict(query),
        headers={},
        host="",
        peer="",
        token="",
        named_token="",
        admitted="",
        stream="live",
        rest="",
    )
    asyncio.run(OUTPUTS[name].handle(joined, request, joined))
    return joined


@pytest.mark.parametrize(
    ("name", "path", "content_type", "codecs"),
    [
        ("AAC", "/live.aac", "audio/aac", ["AAC"]),
        ("MP3", "/live.mp3", "audio/mpeg", ["MP3"]),
        ("H264", "/live.h264", "video/H264", ["H264"]),
        ("SubRip", "/live.srt", "text/plain; charset=utf-8", ["subtitle"]),
        ("SubRip", "/live.vtt", "text/vtt; charset=utf-8", ["subtitle"]),
        ("SubRip", "/live.webvtt", "text/vtt; charset=utf-8", ["subtitle"]),
        ("JSON", "/live.json", "text/javascript; charset=utf-8", ["subtitle", "subtitle", "JSON"]),
    ],
)
def test_type_and_tracks(name: str, path: str, content_type: str, codecs: list[str]) -> None:
    capability = OUTPUTS[name].capability
    assert capability.deps == "HTTP"
    assert path.replace("live", "$") in capability.url_match
    joined = ask(name, path)
    assert joined.content_type == content_type
    assert [track.codec for track in joined.tracks] == codecs
    with pytest.raises(NoSuitableTrack):
        ask(name, path, [TrackInfo(VIDEO, "theora")], maxwaittrackms="1")


def test_equal_bytes_only_for_equal_requests() -> None:
    """The fan-out's key is what viewers share bytes by."""
    keys = [
        ask("SubRip", "/live.srt").key,
        ask("SubRip", "/live.vtt").key,
        ask("SubRip", "/live.srt", track="3").key,
        ask("H264", "/live.h264").key,
        ask("H264", "/live.h264", keysonly="").key,
        ask("JSON", "/live.json").key,
        ask("JSON", "/live.json", callback="a").key,
        ask("JSON", "/live.json", jsonp="b").key,
        ask("JSON", "/live.json", dedupe="a").key,
        ask("JSON", "/live.json", dedupe="a").key,
    ]
    assert len(set(keys)) == len(keys)
    assert ask("SubRip", "/live.vtt").key == ask("SubRip", "/live.webvtt").key


def test_parameters_of_subtitles() -> None:
    joined = ask("SubRip", "/live.srt", track="3", **{"from": "1000", "to": "2000"})
    assert joined.tracks == [TRACKS[3]]
    assert (joined.options["start_us"], joined.options["stop_us"]) == (1_000_000, 2_000_000)
    assert ask("SubRip", "/live.srt", subtitle="deu").tracks == [TRACKS[4]]


def test_keyframes_alone() -> None:
    for query, count in (({}, 2), ({"keysonly": "1"}, 1)):
        muxer = ask("H264", "/live.h264", **query).muxer
        muxer.write(Packet(0, 0, 0, True, b"\0\0\0\1\x65"))
        muxer.write(Packet(0, 1, 0, False, b"\0\0\0\1\x41"))
        output = muxer.take_output()
        assert output.count(b"\0\0\0\1") == count + 2
        assert output.startswith(b"\0\0\0\1" + SHAPE.sps())


def test_json() -> None:
    muxer = ask("JSON", "/live.json").muxer
    muxer.write(Packet(2, 1_000_000, 0, True, b'{"a":1}'))
    assert muxer.header() + muxer.take_output() == b'[\n{"data":{"a":1},"time":1000,"track":2},\n'
    muxer = ask("JSON", "/live.json", callback="f").muxer
    muxer.write(Packet(0, 1_000_000, 0, True, b"text"))
    assert muxer.header() + muxer.take_output() == b'f({"data":"text","time":1000,"track":0});\n'
    with pytest.raises(UnsupportedError):
        ask("JSON", "/live.json", callback="alert(1)")
