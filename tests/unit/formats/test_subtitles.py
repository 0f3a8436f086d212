"""SubRip and WebVTT: cues read, made packets, written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.core.text_tracks import MAX_TEXT_BYTES
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats import subtitles
from mist.formats.subtitles import Cue, SubRipMuxer, SubtitleDemuxer, WebVttMuxer, parse_cues, to_packets
from mist.formats.tracks import AUDIO, META, SUBTITLE, TrackInfo
from tests.support.elementary import feed_pieces

CORPUS = Path(__file__).parents[2] / "data/subtitles/corpus"
TRACK = TrackInfo(META, SUBTITLE, track_id=1)
S = 1_000_000


def test_subrip() -> None:
    assert parse_cues((CORPUS / "overlap.srt").read_bytes()) == [
        Cue(S, 2_500_000, "Hello\n<i>there</i>"),
        Cue(2 * S, 3 * S, "über"),
        Cue(3600 * S, 3602 * S, "late"),
    ]


def test_webvtt() -> None:
    assert parse_cues((CORPUS / "blocks.vtt").read_bytes()) == [
        Cue(S, 4 * S, "<v Roger>Hi &amp; ho", "align:start line:0"),
        Cue(2 * S, 3 * S, "second"),
    ]


@pytest.mark.parametrize(
    "stamp",
    [
        "0:00:01,5 --> 0:00:02,25",
        "00:01.500-->00:02.250",
        " 000:00:01.500 -->  00:00:02,250 X1:1 X2:2",
        "0:1,500 --> 0:2.25",
    ],
)
def test_times_of_every_kind(stamp: str) -> None:
    assert parse_cues(f"1\n{stamp}\ntext\n".encode()) == [Cue(1_500_000, 2_250_000, "text")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, end: str) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\ncafé  \nline\n\n\n\n2\n00:00:03,000 --> 00:00:04,000\nx"
    expected = [Cue(S, 2 * S, "café\nline"), Cue(3 * S, 4 * S, "x")]
    assert parse_cues(text.replace("\n", end).encode(encoding)) == expected


def test_what_is_no_cue_is_left_out() -> None:
    data = b"1\n00:00:01,000 --> 00:00:02,000\n \n\nstray text\n3\n99:99 --> x\n\n00:00:05,000 --> 00:00:06,000\nyes\n"
    assert parse_cues(data) == [Cue(5 * S, 6 * S, "yes")]
    assert parse_cues(b"") == parse_cues(b"\n\n \n") == parse_cues(b"WEBVTT") == []
    for data in (b"x", b"<html>", bytes(100)):
        with pytest.raises(RemoteProtocolError):
            parse_cues(data)


def test_note_block_with_an_arrow_in_it() -> None:
    data = b"WEBVTT\n\nNOTE\n00:01.000 --> 00:02.000\nnot a cue\n\nNOTES\n00:03.000 --> 00:04.000\na cue\n"
    assert parse_cues(data) == [Cue(3 * S, 4 * S, "a cue")]


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subtitles, "MAX_CUES", 10)
    cue = b"1\n00:00:01,000 --> 00:00:02,000\nx\n\n"
    assert len(parse_cues(cue * 10)) == 10
    with pytest.raises(LimitExceededError):
        parse_cues(cue * 11)
    with pytest.raises(LimitExceededError):
        demux(SubtitleDemuxer(), b"x" * (MAX_TEXT_BYTES + 1))
    crowd = [Cue(n, 10**9 + n, str(n)) for n in range(100)]
    assert max(len(payload.split(b"\n")) for _, payload in to_packets(crowd)) == subtitles.MAX_OVERLAPPING


def test_packets() -> None:
    follow = [Cue(1 * S, 2 * S, "a"), Cue(2 * S, 3 * S, "b"), Cue(5 * S, 6 * S, "c")]
    assert to_packets(follow) == [(S, b"a"), (2 * S, b"b"), (3 * S, b""), (5 * S, b"c"), (6 * S, b"")]
    overlap = [Cue(2 * S, 3 * S, "b"), Cue(1 * S, 4 * S, "a")]
    assert to_packets(overlap) == [(S, b"a"), (2 * S, b"a\nb"), (3 * S, b"a"), (4 * S, b"")]
    same = [Cue(S, 2 * S, "a"), Cue(S, 2 * S, "b")]
    assert to_packets(same) == [(S, b"a\nb"), (2 * S, b"")]
    backwards = [Cue(5 * S, S, "abcd")]
    assert to_packets(backwards) == [(5 * S, b"abcd"), (5 * S + 4 * 75_000 + 800_000, b"")]
    assert to_packets([]) == []


@pytest.mark.parametrize("name", ["overlap.srt", "blocks.vtt"])
def test_every_split_gives_the_same_packets(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    demuxer = SubtitleDemuxer(language="deu")
    packets = demux(demuxer, data)
    assert demuxer.tracks == [TRACK.changed(language="deu")]
    assert all(packet.keyframe for packet in packets)
    for step in range(1, len(data) + 1, 3):
        assert feed_pieces(SubtitleDemuxer(), data, step) == packets


def test_seek() -> None:
    data = (CORPUS / "overlap.srt").read_bytes()
    demuxer = SubtitleDemuxer()
    packets = demux(demuxer, data)
    for number, packet in enumerate(packets):
        for time_us in (packet.dts_us, packet.dts_us + 1):
            demuxer.seek(time_us, 0)
            assert feed_pieces(demuxer, data, 20) == packets[number:]


def written(muxer: SubRipMuxer | WebVttMuxer, packets: list[tuple[int, bytes]]) -> str:
    for time_us, payload in packets:
        muxer.write(Packet(0, time_us, 0, True, payload))
    muxer.finish()
    return (muxer.header() + muxer.take_output()).decode()


def test_subrip_output() -> None:
    packets = [(S, b"one\r\n\n  \ntwo"), (2 * S, b""), (2 * S, b" "), (3661 * S + 1600, b"four")]
    assert written(SubRipMuxer([TRACK]), packets) == (
        "1\n00:00:01,000 --> 00:00:02,000\none\ntwo\n\n2\n01:01:01,002 --> 01:01:02,102\nfour\n\n"
    )


def test_webvtt_output() -> None:
    packets = [(-S, b"a --> b"), (S, b"\xff"), (100 * S, b"")]
    assert written(WebVttMuxer([TRACK]), packets) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na --&gt; b\n\n00:00:01.000 --> 00:00:01.875\n\ufffd\n\n"
    )


def test_round_trip() -> None:
    cues = [Cue(n * 3 * S, n * 3 * S + 2 * S + n % 2 * S, f"cue {n}\n<b>é</b>") for n in range(50)]
    packets = to_packets(cues)
    assert to_packets(parse_cues(written(SubRipMuxer([TRACK]), packets).encode())) == packets
    assert to_packets(parse_cues(written(WebVttMuxer([TRACK]), packets).encode())) == packets


def test_muxer_state_and_tracks() -> None:
    packets = to_packets([Cue(n * S, n * S + 500_000, "x" * 90) for n in range(5)])
    muxer = SubRipMuxer([TRACK])
    other = SubRipMuxer([TRACK])
    for time_us, payload in packets:
        state = muxer.state()
        assert len(state) <= 128
        other.restore(state)
        for one in (muxer, other):
            one.write(Packet(0, time_us, 0, True, payload))
        assert muxer.take_output() == other.take_output()
    muxer.write(Packet(0, 0, 0, True, b"y" * 500))
    assert len(muxer.state()) <= 128
    assert muxer.set_tracks([TRACK.changed(language="deu")])
    for tracks in ([], [TRACK, TRACK], [TrackInfo(AUDIO, "AAC")]):
        with pytest.raises(UnsupportedError):
            SubRipMuxer(tracks)
        with pytest.raises(UnsupportedError):
            muxer.set_tracks(tracks)
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(1, 0, 0, True, b""))


def test_times_rise() -> None:
    cues = [Cue(n * 7 % 50 * S, (n * 7 % 50 + n % 9) * S, str(n)) for n in range(200)]
    assert all(a < b for (a, _), (b, _) in pairwise(to_packets(cues)))
