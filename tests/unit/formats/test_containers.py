"""The table of file formats, and telling formats by name and by their first bytes."""

from __future__ import annotations

import dataclasses
import random
from contextlib import suppress
from pathlib import Path

import pytest

from mist.errors import UnsupportedError
from mist.formats import containers, sniffing
from mist.formats.containers import _ROWS, CONTAINERS, Container, by_file_name, by_first_bytes, by_name
from mist.formats.sniffing import SNIFF_BYTES
from mist.formats.tracks import TrackInfo
from tests.support.media import AAC, AC3, FLAC, MP3, NO_BFRAMES, OPUS
from tests.support.tools import find_tool, run

VIDEO = TrackInfo("video", "H264", width=320, height=180)

MP3_FRAME = bytes.fromhex("fffb9064") + bytes(413)
ADTS_FRAME = bytes.fromhex("fff14c80") + bytes.fromhex("021ffc") + bytes(9)  # 16 bytes
SAMPLES: dict[str, bytes] = {
    "aac": ADTS_FRAME * 4,
    "dtsc": b"DTSC\0\0\0\5\xe0\0\0\xee",
    "dts": bytes.fromhex("7ffe8001fc3c3ff0b5e0013e00") + bytes(90),
    "flac": b"fLaC\0\0\0\x22",
    "flv": b"FLV\1\5\0\0\0\x09\0\0\0\0",
    "h264": bytes.fromhex("0000000167640020 000001 68ebe3"),
    "hevc": bytes.fromhex("0000000140010c01 000001 4201"),
    "mkv": bytes.fromhex("1a45dfa3934282886d6174726f736b61"),
    "webm": bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d"),
    "mp3": MP3_FRAME * 3,
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "ogg": b"OggS\0\2" + bytes(21),
    "srt": b"1\r\n00:00:01,000 --> 00:00:02,500\r\nHello\r\n",
    "ts": (b"\x47" + bytes(187)) * 4,
    "vtt": b"\xef\xbb\xbfWEBVTT\n\n00:01.000 --> 00:02.000\nHello\n",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
}
ROWS = {row.name: row for row in _ROWS}


def tell(head: bytes) -> str:
    """Return the name of the format of a head, whether or not it has a demuxer yet."""
    rows = sorted(_ROWS, key=lambda row: row.weak)
    return next((row.name for row in rows if row.sniff(head[:SNIFF_BYTES])), "")


def test_rows_are_sorted_and_their_names_and_suffixes_are_unique() -> None:
    names = [row.name for row in _ROWS]
    assert sorted(set(names)) == sorted(names)
    suffixes = [suffix for row in _ROWS for suffix in row.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for row in _ROWS:
        assert row.name == row.name.lower() and row.suffixes and "/" in row.mime
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in row.suffixes)
        assert row.on_pipe == "" or by_name(row.on_pipe) is not None


@pytest.mark.parametrize("row", CONTAINERS, ids=lambda row: row.name)
def test_engines_of_a_row_can_be_made(row: Container) -> None:
    if row.make_demuxer is not None:
        demuxer = row.make_demuxer()
        assert demuxer.tracks == [] and not demuxer.ready
        assert row.sniff is not sniffing.never
    if row.make_muxer is not None:
        assert row.codecs, "what does the muxer carry?"
        with suppress(UnsupportedError):  # of formats that hold one track
            row.make_muxer([])


def test_lookup_by_name() -> None:
    found = by_name("TS")
    assert found is not None and found.name == "ts"
    assert by_name("bogus") is None


@pytest.mark.parametrize(
    ("path", "name"), [("a.flv", "flv"), ("/x.y/B.M4V", "mp4"), ("a", ""), ("a.b/c", ""), ("", "")]
)
def test_lookup_by_file_name(path: str, name: str) -> None:
    found = by_file_name(path)
    assert (found.name if found else "") == name


@pytest.mark.parametrize("name", SAMPLES)
def test_first_bytes_tell_one_format(name: str) -> None:
    assert tell(SAMPLES[name]) == name
    strong = [row.name for row in _ROWS if not row.weak and row.sniff(SAMPLES[name])]
    assert strong == ([] if ROWS[name].weak else [name])


@pytest.mark.parametrize("name", SAMPLES)
def test_damaged_and_short_heads_tell_without_error(name: str) -> None:
    whole = SAMPLES[name]
    for size in range(len(whole)):
        tell(whole[:size])
    dice = random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        tell(bytes(damaged))


@pytest.mark.parametrize("head", [b"", b"\0", bytes(4096), b"hello world", b"ID3", random.Random(2).randbytes(4096)])
def test_no_format_is_told_where_there_is_none(head: bytes) -> None:
    assert tell(head) == ""
    assert by_first_bytes(head) is None


def test_an_id3_tag_is_looked_behind() -> None:
    tag = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
    assert tell(tag + MP3_FRAME * 3) == "mp3"
    assert tell(tag + ADTS_FRAME * 3) == "aac"
    assert tell(tag + b"fLaC\0\0\0\x22") == "flac"
    assert tell(b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(100)) == "mp3"


def test_a_transport_stream_is_told_from_the_middle_of_a_packet_and_in_longer_packets() -> None:
    stream = SAMPLES["ts"] * 4
    assert tell(stream[100:]) == "ts"
    assert tell((bytes(4) + stream[:188]) * 8) == "ts"
    assert tell((stream[:188] + bytes(16)) * 8) == "ts"
    assert tell(stream[:188]) == "ts"
    assert tell(stream[:189]) == ""


def test_a_format_without_demuxer_is_not_told() -> None:
    readable = [row.name for row in CONTAINERS if row.make_demuxer]
    for name, head in SAMPLES.items():
        found = by_first_bytes(head)
        assert found is None or found.name in readable
        assert (name in readable) == (found is not None)


def test_muxer_of_fragmented_mp4_is_complete() -> None:
    row = by_name("fmp4")
    assert row is not None and row.make_muxer is not None
    assert (
        row.make_muxer([VIDEO.changed(codec="AC3", type="audio", sample_rate_hz=48000, channels=2)]).header()[4:8]
        == b"ftyp"
    )


def test_rows_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONTAINERS[0].name = "x"  # type: ignore[misc]
    assert containers.SNIFF_BYTES == SNIFF_BYTES


@pytest.mark.tools("ffmpeg")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("aac", (*AAC, "-vn", "-f", "adts")),
        ("ac3", (*AC3, "-vn", "-f", "ac3")),
        ("flac", (*FLAC, "-vn", "-f", "flac")),
        ("flv", (*NO_BFRAMES, *AAC, "-f", "flv")),
        ("h264", (*NO_BFRAMES, "-an", "-f", "h264")),
        ("hevc", ("-c:v", "libx265", "-x265-params", "log-level=error", "-an", "-f", "hevc")),
        ("mkv", (*NO_BFRAMES, *AAC, "-f", "matroska")),
        ("mp3", (*MP3, "-vn", "-f", "mp3")),
        ("mp3", (*MP3, "-vn", "-id3v2_version", "0", "-write_xing", "0", "-f", "mp3")),
        ("mp4", (*NO_BFRAMES, *AAC, "-f", "mp4")),
        ("mp4", (*NO_BFRAMES, *AAC, "-f", "mov")),
        ("ogg", (*OPUS, "-vn", "-f", "ogg")),
        ("ts", (*NO_BFRAMES, *AAC, "-f", "mpegts")),
        ("ts", (*NO_BFRAMES, *AAC, "-f", "mpegts", "-mpegts_m2ts_mode", "1")),
        ("wav", ("-vn", "-c:a", "pcm_s16le", "-f", "wav")),
        ("webm", (*OPUS, "-vn", "-f", "webm")),
    ],
)
def test_files_of_ffmpeg_are_told(name: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    target = tmp_path / "file"
    inputs = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=64x64:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=sample_rate=48000",
        "-t",
        "0.5",
    ]
    run([find_tool("ffmpeg"), "-v", "error", *inputs, *arguments, str(target)], 60)
    assert tell(target.read_bytes()) == name
