"""FLV between FFmpeg and us: its files read by our demuxer, our muxer's bytes judged by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.flv import FlvMuxer
from mist.core.packet import Packet
from mist.formats.flv import FlvDemuxer
from mist.formats.tracks import JSON, TrackInfo
from tests.support.media import AC3, AV1, BFRAMES, EAC3, FLAC, HEVC, MP3, OPUS, VP9, Sample
from tests.support.packets import SeenMedia, compare, read_media
from tests.support.tools import find_tool, run

SAMPLES = [
    Sample("bframes", BFRAMES, seconds=4),
    Sample("film", BFRAMES, rate="24000/1001", seconds=4, sample_rate=44100),
    Sample("mp3", audio=MP3, seconds=4),
    Sample("audio-only", video=(), seconds=4),
    Sample("surround", channels=6, seconds=4),
    Sample("hevc-opus", HEVC, OPUS, seconds=4, tool="ffmpeg-new"),
    Sample("av1-flac", AV1, FLAC, seconds=4, tool="ffmpeg-new"),
    Sample("vp9-ac3", VP9, AC3, seconds=4, tool="ffmpeg-new"),
    Sample("eac3", audio=EAC3, seconds=4, tool="ffmpeg-new"),
]
pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new")


def read_flv(data: bytes) -> tuple[list[TrackInfo], list[Packet]]:
    """Return the tracks as they were last, and all packets."""
    demuxer = FlvDemuxer()
    packets = demux(demuxer, data)
    return demuxer.tracks, packets


def mux(tracks: list[TrackInfo], packets: list[Packet]) -> bytes:
    muxer = FlvMuxer(tracks)
    data = muxer.header(packets[0].dts_us)
    for packet in packets:
        muxer.write(packet)
    return data + muxer.take_output()


def _read(sample: Sample, path: Path) -> SeenMedia:
    """Read a file with the FFmpeg that knows its codecs: PyAV's may be too old for enhanced FLV, so by way of Matroska."""
    if sample.tool == "ffmpeg":
        return read_media(path)
    copy = path.with_suffix(".mkv")
    run(
        [find_tool(sample.tool), "-v", "error", "-xerror", "-y", "-i", str(path), "-map", "0", "-c", "copy", str(copy)],
        60,
    )
    return read_media(copy)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_what_ffmpeg_wrote_comes_out_of_our_muxer_unchanged(sample: Sample, tmp_path: Path) -> None:
    original = tmp_path / "original.flv"
    original.write_bytes(sample.flv().read_bytes())
    tracks, packets = read_flv(original.read_bytes())
    ours = tmp_path / "ours.flv"
    ours.write_bytes(mux(tracks, packets))
    source, output = _read(sample, original), _read(sample, ours)
    assert output.codecs == source.codecs and len(output.packets) == len(source.packets)
    compare(source, output, tolerance_us=0)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_ffmpeg_decodes_without_a_warning(sample: Sample, tmp_path: Path) -> None:
    ours = tmp_path / "ours.flv"
    ours.write_bytes(mux(*read_flv(sample.flv().read_bytes())))
    told = run([find_tool(sample.tool), "-v", "warning", "-xerror", "-i", str(ours), "-f", "null", "-"], 60)
    assert not told.stderr.strip(), told.stderr


def test_several_tracks_of_each_type(tmp_path: Path) -> None:
    """The newer FFmpeg finds all tracks of a multitrack file, with their own packets."""
    first, second = (read_flv(sample.flv().read_bytes()) for sample in (SAMPLES[0], SAMPLES[5]))
    moved = [Packet(p.track + 2, p.dts_us, p.offset_us, p.keyframe, p.payload) for p in second[1]]
    packets = sorted(first[1] + moved, key=lambda packet: packet.dts_us)
    path = tmp_path / "multi.flv"
    path.write_bytes(mux(first[0] + second[0], packets))
    command = [find_tool("ffmpeg-new"), "-v", "error", "-xerror", "-i", str(path), "-map", "0", "-c", "copy"]
    lines = run([*command, "-f", "framehash", "-"], 60).stdout.decode().splitlines()
    codecs = [line.rpartition(" ")[2] for line in lines if line.startswith("#codec_id")]
    assert sorted(codecs) == ["aac", "h264", "hevc", "opus"]
    assert len([line for line in lines if not line.startswith("#")]) == len(packets)


def _texts(path: Path) -> list[tuple[float, str]]:
    """Return (seconds, text) of the subtitle packets that ffprobe finds."""
    told = run(
        [
            find_tool("ffprobe"),
            "-v",
            "error",
            "-select_streams",
            "s",
            "-show_packets",
            "-show_data",
            "-of",
            "json",
            str(path),
        ],
        60,
    )
    found = []
    for packet in json.loads(told.stdout)["packets"]:
        rows = [line[10:50].replace(" ", "") for line in packet["data"].splitlines() if ":" in line[:10]]
        found.append((float(packet["pts_time"]), bytes.fromhex("".join(rows)).decode()))
    return found


def test_texts_of_ffmpeg_are_metadata_and_come_out_as_its_texts(tmp_path: Path) -> None:
    """FFmpeg writes subtitles as onTextData and reads them so; others, such as onCuePoint, as data."""
    titles, original, ours = (tmp_path / name for name in ("a.srt", "a.flv", "ours.flv"))
    titles.write_text("1\n00:00:01,200 --> 00:00:01,900\nHello\n\n2\n00:00:02,500 --> 00:00:02,700\n\u00fcber\n")
    command = [
        find_tool("ffmpeg"),
        "-v",
        "error",
        "-i",
        str(SAMPLES[0].flv()),
        "-i",
        str(titles),
        "-map",
        "0",
        "-map",
        "1",
    ]
    run([*command, "-c", "copy", "-c:s", "text", "-t", "4", str(original)], 60)
    tracks, packets = read_flv(original.read_bytes())
    data = [packet for packet in packets if tracks[packet.track].codec == JSON]
    assert [json.loads(one.payload)[1]["text"] for one in data] == ["Hello", "\u00fcber"]
    ours.write_bytes(mux(tracks, packets))
    assert _texts(ours) == _texts(original) and len(data) == 2
    compare(_read(SAMPLES[0], original), _read(SAMPLES[0], ours), tolerance_us=0)
    cue = Packet(data[0].track, 0, 0, True, b'["onCuePoint",{"name":"chapter","time":1.5,"parameters":{"a":[1,2]}}]')
    ours.write_bytes(mux(tracks, [*packets[:50], cue, *packets[50:]]))
    told = run(
        [find_tool("ffprobe"), "-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0", str(ours)], 60
    )
    assert {"video", "audio"} <= set(told.stdout.decode().split())
