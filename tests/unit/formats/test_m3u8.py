"""Playlists: exact bytes out, everything in the RFC back in, everything against it refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats.m3u8 import (
    MAX_LINES,
    Initialization,
    Key,
    MasterPlaylist,
    MediaPlaylist,
    Rendition,
    Segment,
    Variant,
    parse_attributes,
    parse_playlist,
    write_error,
    write_master,
    write_media,
)

DATA = Path(__file__).resolve().parents[2] / "data" / "m3u8"
HEAD = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"


def media(text: str) -> MediaPlaylist:
    playlist = parse_playlist(text.encode())
    assert isinstance(playlist, MediaPlaylist)
    return playlist


def test_golden_master() -> None:
    text = write_master(
        [
            Variant("0_2/index.m3u8", 2_500_000, "avc1.64001F,mp4a.40.2", (1280, 720), "29.970"),
            Variant("1_2/index.m3u8?tkn=7", 800_000, "avc1.64001E,mp4a.40.2", (640, 360)),
            Variant("2/index.m3u8", 0),
        ]
    )
    assert text == (
        "#EXTM3U\r\n"
        "#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=2500000,RESOLUTION=1280x720,FRAME-RATE=29.970,"
        'CODECS="avc1.64001F,mp4a.40.2"\r\n'
        "0_2/index.m3u8\r\n"
        '#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=800000,RESOLUTION=640x360,CODECS="avc1.64001E,mp4a.40.2"\r\n'
        "1_2/index.m3u8?tkn=7\r\n"
        "#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=1\r\n"
        "2/index.m3u8\r\n"
    )


def test_golden_media() -> None:
    segments = (
        Segment("0_2000.ts", 2_000_000),
        Segment("2000_4002.ts", 2_002_001),
        Segment("4002_6004.ts", 1_999_000, discontinuity=True),
    )
    assert write_media(MediaPlaylist(2, segments, 17, 3, ended=True)) == (
        "#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:2\r\n#EXT-X-MEDIA-SEQUENCE:17\r\n"
        "#EXT-X-DISCONTINUITY-SEQUENCE:3\r\n"
        "#EXTINF:2.000000,\r\n0_2000.ts\r\n#EXTINF:2.002001,\r\n2000_4002.ts\r\n"
        "#EXT-X-DISCONTINUITY\r\n#EXTINF:1.999000,\r\n4002_6004.ts\r\n#EXT-X-ENDLIST\r\n"
    )


def test_golden_error() -> None:
    assert write_error("Stream is\r\noffline\n#EXTINF:1,") == (
        "#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:1\r\n#EXT-X-ERROR: Stream is offline #EXTINF:1,\r\n"
        "#EXT-X-ENDLIST\r\n"
    )
    playlist = media(write_error(""))
    assert playlist.ended
    assert playlist.segments == ()


def test_round_trip_of_media() -> None:
    segments = tuple(
        Segment(f"{n}.ts", 1_900_001 + n, n in (3, 5), sequence=100 + n, discontinuity_sequence=7 + (n >= 3) + (n >= 5))
        for n in range(8)
    )
    playlist = MediaPlaylist(2, segments, 100, 7, version=3)
    assert media(write_media(playlist)) == playlist
    assert playlist.duration_us == sum(segment.duration_us for segment in segments)


def test_round_trip_of_master() -> None:
    variants = (Variant("a?b=c,d", 5, 'avc1.4D400B,"'[:-1], (1, 2), "59.940"), Variant("b", 9_000_000_000))
    assert parse_playlist(write_master(variants).encode()) == MasterPlaylist(variants)


def test_reads_what_others_write() -> None:
    text = (
        "#EXTM3U\n#EXT-X-VERSION:7\n## a comment\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:5\n"
        "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-UNKNOWN:x\n\n"
        '#EXT-X-MAP:URI="init.mp4",BYTERANGE="720@0"\n'
        '#EXT-X-KEY:METHOD=AES-128,URI="https://k/1,2",IV=0x0000000000000000000000000000000A\n'
        "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T05:00:00.123Z\n#EXTINF:9.9,title, with comma\n#EXT-X-BYTERANGE:100@720\na.mp4\n"
        "#EXT-X-KEY:METHOD=NONE\n#EXTINF:10,\n#EXT-X-BYTERANGE:200\na.mp4\n#EXT-X-ENDLIST\n"
    )
    playlist = media(text)
    init = Initialization("init.mp4", (720, 0))
    key = Key("AES-128", "https://k/1,2", bytes(15) + b"\x0a")
    assert playlist.segments == (
        Segment(
            "a.mp4", 9_900_000, False, "title, with comma", 5, 0, (100, 720), "2026-11-21T05:00:00.123Z", key, init
        ),
        Segment("a.mp4", 10_000_000, False, "", 6, 0, (200, None), "", None, init),
    )
    assert (playlist.type, playlist.ended, playlist.version) == ("EVENT", True, 7)


def test_reads_renditions() -> None:
    text = (
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aud",NAME="en",LANGUAGE="eng",DEFAULT=YES,AUTOSELECT=YES,URI="a/i.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=100,AVERAGE-BANDWIDTH=90,AUDIO="aud",CLOSED-CAPTIONS=NONE\nv.m3u8\n'
    )
    assert parse_playlist(text.encode()) == MasterPlaylist(
        (Variant("v.m3u8", 100, average_bandwidth_bps=90, audio="aud", closed_captions="NONE"),),
        (Rendition("AUDIO", "aud", "en", "a/i.m3u8", "eng", True, True),),
    )


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "4.3.1.1"),
        ("#EXTM3U8\n", "4.3.1.1"),
        ("\ufeff#EXTM3U\n", "4.1"),
        ("#EXTM3U\n", "4.3.3.1"),
        (HEAD + "#EXTM3U\n", "4.3.1.1"),
        (HEAD + "#EXT-X-VERSION:3\n", "4.3.3"),
        (HEAD + "#EXT-X-TARGETDURATION:2\n", "4.3.3"),
        (HEAD + "a.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:2.0,\n", "4.3.2.1"),
        (HEAD + "#EXTINF:2.0\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:-1,\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:1e3,\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:nan,\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:1,\n#EXTINF:1,\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:2.5,\na.ts\n", "4.3.3.1"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\na.ts\n", "4.3.2.1"),
        (HEAD + "#EXTINF:1,\na.ts\n#EXT-X-MEDIA-SEQUENCE:1\n", "4.3.3.2"),
        (HEAD + "#EXT-X-MEDIA-SEQUENCE:-1\n", "4.2"),
        (HEAD + "#EXT-X-MEDIA-SEQUENCE:99999999999999999999\n", "4.2"),
        (HEAD + "#EXT-X-DISCONTINUITY\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n", "4.3.3.3"),
        (HEAD + "#EXT-X-PLAYLIST-TYPE:LIVE\n", "4.3.3.5"),
        (HEAD + "#EXT-X-BYTERANGE:x\n", "4.3.2.2"),
        (HEAD + "#EXT-X-PROGRAM-DATE-TIME:yesterday\n", "4.3.2.6"),
        (HEAD + "#EXT-X-KEY:METHOD=AES-128\n", "4.3.2.4"),
        (HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="a",IV=7\n', "4.3.2.4"),
        (HEAD + '#EXT-X-MAP:BYTERANGE="1@0"\n', "4.3.2.5"),
        (HEAD + "#EXTINF:1,\na\x00.ts\n", "4.1"),
        (HEAD + '#EXT-X-STREAM-INF:BANDWIDTH=1\na.m3u8\n', "4.1"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", "4.3.2.1"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"x\"\na\n", "4.3.4.2"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=big\na\n", "4.3.4.2"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,BANDWIDTH=1\na\n", "4.2"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,\na\n", "4.2"),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=\"1\na\n", "4.2"),
        ('#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a"\n', "4.3.4.1"),
        ('#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="b",DEFAULT=MAYBE\n', "4.3.4.1"),
    ],
)  # fmt: skip
def test_refuses(text: str, clause: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_playlist(text.encode())
    assert caught.value.spec == f"RFC 8216 section {clause}"


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        parse_playlist(b"#EXTM3U\n" + b"\n" * MAX_LINES)
    with pytest.raises(LimitExceededError):
        parse_playlist(b"#EXTM3U\n#" + b"x" * (9 << 20))
    with pytest.raises(RemoteProtocolError):
        parse_playlist(b"#EXTM3U\n#\xff")


def test_attributes() -> None:
    assert parse_attributes('A=1,B-C="x,y=z",D=0x0F,E=1.5,F=a b') == {
        "A": "1", "B-C": "x,y=z", "D": "0x0F", "E": "1.5", "F": "a b",
    }  # fmt: skip
    assert parse_attributes("") == {}
    for text in ("a=1", "A", "A=", "A=1,,B=2", 'A="x"y', "A=1 ,", '="'):
        with pytest.raises(RemoteProtocolError):
            parse_attributes(text)


def test_every_cut_of_a_playlist_is_read_or_refused() -> None:
    data = (DATA / "corpus" / "everything.m3u8").read_bytes()
    assert re.search(rb"EXT-X-KEY", data)
    for size in range(len(data)):
        try:
            parse_playlist(data[:size])
        except RemoteProtocolError:
            continue
