"""Elementary streams and subtitles made by other programs, read as PyAV reads them; and ours judged by ffmpeg."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from mist.core.annexb import AnnexBMuxer
from mist.core.demuxer import Demuxer, demux
from mist.core.ivf import IvfMuxer
from mist.core.mpeg_video import MpegVideoMuxer
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.audio_files import (
    Ac3Demuxer,
    Ac3Muxer,
    AdtsDemuxer,
    AdtsMuxer,
    DtsDemuxer,
    DtsMuxer,
    Mp3Demuxer,
    Mp3Muxer,
)
from mist.formats.subtitles import SubRipMuxer, SubtitleDemuxer, WebVttMuxer
from mist.formats.tracks import TrackInfo
from mist.formats.video_files import H264Demuxer, HevcDemuxer, IvfDemuxer, MpegVideoDemuxer
from tests.support.packets import media_of
from tests.support.tools import find_tool, run

pytestmark = [pytest.mark.timeout(120), pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new")]

MakeMuxer = Callable[[list[TrackInfo]], Muxer]
TIMEOUT_S = 60


@dataclass(frozen=True)
class Format:
    """How we read and write a file."""

    suffix: str
    demuxer: Callable[[], Demuxer]
    muxer: MakeMuxer


MP3 = Format("mp3", Mp3Demuxer, Mp3Muxer)
MP2 = Format("mp2", Mp3Demuxer, Mp3Muxer)
ADTS = Format("aac", AdtsDemuxer, AdtsMuxer)
AC3 = Format("ac3", Ac3Demuxer, Ac3Muxer)
EAC3 = Format("eac3", Ac3Demuxer, Ac3Muxer)
DTS = Format("dts", DtsDemuxer, DtsMuxer)
H264 = Format("h264", H264Demuxer, AnnexBMuxer)
HEVC = Format("hevc", HevcDemuxer, AnnexBMuxer)
MPEG1 = Format("m1v", MpegVideoDemuxer, MpegVideoMuxer)
MPEG2 = Format("m2v", MpegVideoDemuxer, MpegVideoMuxer)
IVF = Format("ivf", IvfDemuxer, IvfMuxer)

TONE = "-f lavfi -i sine=frequency=440:sample_rate={rate}:duration=4"
AUDIO = {
    "mp3": (MP3, 44100, "-c:a libmp3lame -b:a 128k"),
    "mp3-vbr": (MP3, 48000, "-c:a libmp3lame -q:a 3 -metadata title=x -write_id3v1 1"),
    "mp3-bare": (MP3, 22050, "-c:a libmp3lame -write_xing 0 -id3v2_version 0"),
    "mp2": (MP2, 48000, "-c:a mp2 -b:a 192k -ac 2"),
    "aac": (ADTS, 48000, "-c:a aac"),
    "aac-mono": (ADTS, 22050, "-c:a aac -ac 1"),
    "aac-51": (ADTS, 48000, "-c:a aac -ac 6"),
    "ac3": (AC3, 44100, "-c:a ac3 -b:a 160k"),
    "ac3-51": (AC3, 48000, "-c:a ac3 -ac 6"),
    "eac3": (EAC3, 48000, "-c:a eac3 -ac 6"),
    "dts": (DTS, 48000, "-strict -2 -c:a dca -ac 6"),
}
PICTURE = "-f lavfi -i testsrc2=size=320x180:rate={rate} -t 3"
X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 25"
X265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=error:info=0"
VIDEO = {
    "baseline": (H264, "25", f"{X264} -profile:v baseline"),
    "bframes": (H264, "25", f"{X264} -bf 3"),
    "pyramid": (H264, "30000/1001", f"{X264} -bf 8 -b_strategy 0 -x264-params open-gop=1:slices=3:aud=1"),
    "interlaced": (H264, "50", f"{X264} -bf 2 -x264-params interlaced=1"),
    "refresh": (H264, "30", f"{X264} -bf 0 -x264-params intra-refresh=1"),
    "hevc": (HEVC, "24", f"{X265}:keyint=24:bframes=4"),
    "hevc-open": (HEVC, "25", f"{X265}:keyint=20:bframes=3:open-gop=1:aud=1:slices=2"),
    "hevc-closed": (HEVC, "60000/1001", f"{X265}:keyint=20:bframes=0:open-gop=0"),
}
RAW_VIDEO = {
    "mpeg2": (MPEG2, "25", "-c:v mpeg2video -bf 2 -g 12"),
    "mpeg2-fields": (MPEG2, "25", "-c:v mpeg2video -flags +ilme+ildct -bf 2 -g 12"),
    "mpeg1": (MPEG1, "30000/1001", "-c:v mpeg1video -bf 0"),
    "vp8": (IVF, "25", "-c:v libvpx -g 10"),
    "vp9": (IVF, "30000/1001", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 10"),
    "av1": (IVF, "25", "-c:v libsvtav1 -preset 12"),
}
TOOLS = ("ffmpeg", "ffmpeg-new")


def make(tool: str, source: str, options: str, target: Path) -> None:
    """Encode something with ffmpeg."""
    run([find_tool(tool), "-v", "error", "-y", *source.split(), *options.split(), str(target)], TIMEOUT_S)


def remuxed(form: Format, tracks: list[TrackInfo], packets: list[Packet], target: Path) -> Path:
    """Write packets to a file with our muxer."""
    muxer = form.muxer(tracks)
    for packet in packets:
        muxer.write(packet)
    target.write_bytes(muxer.header() + muxer.take_output())
    return target


def judge(path: Path, count: int) -> None:
    """Let ffprobe count the packets of a file, and both ffmpegs decode it without an error."""
    command = [
        find_tool("ffprobe"),
        "-v",
        "error",
        "-count_packets",
        "-show_entries",
        "stream=nb_read_packets",
        "-of",
        "json",
    ]
    found = json.loads(run([*command, str(path)], TIMEOUT_S).stdout)
    assert int(found["streams"][0]["nb_read_packets"]) == count
    for tool in TOOLS:
        done = run([find_tool(tool), "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], TIMEOUT_S)
        assert done.stderr == b"", done.stderr


def seen(path: Path) -> list[av.Packet]:
    """Return the packets that PyAV finds."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux() if packet.size]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", AUDIO)
def test_audio_is_read_as_by_ffmpeg(name: str, tool: str, tmp_path: Path) -> None:
    form, rate, options = AUDIO[name]
    path = tmp_path / f"a.{form.suffix}"
    make(tool, TONE.format(rate=rate), options, path)
    demuxer = form.demuxer()
    packets = demux(demuxer, path.read_bytes())
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        wanted = [packet for packet in container.demux() if packet.size]
        assert demuxer.tracks[0].sample_rate_hz == stream.rate
        assert demuxer.tracks[0].channels == stream.codec_context.channels
        codec = stream.codec_context.name
    assert [packet.payload for packet in packets] == [media_of(codec, bytes(packet), b"") for packet in wanted]
    zero = wanted[0].dts or 0
    times = [round(((packet.dts or 0) - zero) * packet.time_base * 1_000_000) for packet in wanted]
    # FFmpeg adds up durations that are cut to whole ticks where its clock is the one of 90 kHz.
    tick_us = 12 if wanted[0].time_base == Fraction(1, 90_000) else 0
    for number, (packet, time_us) in enumerate(zip(packets, times, strict=True)):
        assert abs(packet.dts_us - time_us) <= 1 + number * tick_us
    judge(remuxed(form, demuxer.tracks, packets, tmp_path / f"again.{form.suffix}"), len(packets))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", VIDEO)
def test_byte_streams_have_the_times_of_mp4(name: str, tool: str, tmp_path: Path) -> None:
    """Encode to MP4, where every packet has its times, and copy from there to a byte stream, where none has."""
    form, rate, options = VIDEO[name]
    source, path = tmp_path / "source.mp4", tmp_path / f"a.{form.suffix}"
    make(tool, PICTURE.format(rate=rate), options, source)
    make(tool, f"-i {source}", "-c copy", path)
    demuxer = form.demuxer()
    packets = demux(demuxer, path.read_bytes())
    wanted = seen(source)
    init = demuxer.tracks[0].init_data
    with av.open(str(source)) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
    codec = "h264" if form is H264 else "hevc"
    assert [media_of(codec, packet.payload, init) for packet in packets] == [
        media_of(codec, bytes(packet), extradata) for packet in wanted
    ]
    assert [packet.keyframe for packet in packets] == [packet.is_keyframe for packet in wanted]
    shift = packets[0].dts_us - round((wanted[0].dts or 0) * wanted[0].time_base * 1_000_000)
    for ours, other in zip(packets, wanted, strict=True):
        assert abs(ours.dts_us - shift - (other.dts or 0) * other.time_base * 1_000_000) <= 2
        assert abs(ours.pts_us - shift - (other.pts or 0) * other.time_base * 1_000_000) <= 2
    judge(remuxed(form, demuxer.tracks, packets, tmp_path / f"again.{form.suffix}"), len(packets))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", RAW_VIDEO)
def test_other_video_is_read_as_by_ffmpeg(name: str, tool: str, tmp_path: Path) -> None:
    form, rate, options = RAW_VIDEO[name]
    path = tmp_path / f"a.{form.suffix}"
    make(tool, PICTURE.format(rate=rate), options, path)
    demuxer = form.demuxer()
    packets = demux(demuxer, path.read_bytes())
    wanted = seen(path)
    assert [packet.payload for packet in packets] == [bytes(packet).removeprefix(b"\x12\0") for packet in wanted]
    assert [packet.keyframe for packet in packets] == [packet.is_keyframe for packet in wanted]
    if form is IVF:
        for ours, other in zip(packets, wanted, strict=True):
            assert abs(ours.pts_us - (other.pts or 0) * other.time_base * 1_000_000) <= 1
    assert (demuxer.tracks[0].width, demuxer.tracks[0].height) == (320, 180)
    judge(remuxed(form, demuxer.tracks, packets, tmp_path / f"again.{form.suffix}"), len(packets))


GSTREAMER = {
    "mp3": (MP3, "audiotestsrc num-buffers=100 ! lamemp3enc ! filesink location={}"),
    "mp3-tagged": (MP3, "audiotestsrc num-buffers=100 ! lamemp3enc ! xingmux ! id3v2mux ! filesink location={}"),
    "mp2": (MP2, "audiotestsrc num-buffers=100 ! twolamemp2enc ! filesink location={}"),
    "aac": (
        ADTS,
        "audiotestsrc num-buffers=100 ! avenc_aac ! aacparse ! audio/mpeg,stream-format=adts ! filesink location={}",
    ),
    "h264": (
        H264,
        "videotestsrc num-buffers=60 ! x264enc bframes=2 b-adapt=false key-int-max=20 "
        "! video/x-h264,stream-format=byte-stream,profile=main ! filesink location={}",
    ),
    "m2v": (MPEG2, "videotestsrc num-buffers=60 ! mpeg2enc ! filesink location={}"),
    "vp8": (IVF, "videotestsrc num-buffers=30 ! vp8enc deadline=1 ! avmux_ivf ! filesink location={}"),
}


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("name", GSTREAMER)
def test_files_of_gstreamer(name: str, tmp_path: Path) -> None:
    form, pipeline = GSTREAMER[name]
    path = tmp_path / f"g.{form.suffix}"
    command = [find_tool("gst-launch-1.0"), "-q", *pipeline.format(path).split()]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=False)
    if b"no element" in done.stderr:
        pytest.skip(done.stderr.decode(errors="replace").strip())
    assert done.returncode == 0, done.stderr
    demuxer = form.demuxer()
    packets = demux(demuxer, path.read_bytes())
    wanted = [bytes(packet) for packet in seen(path)]
    if form is H264:
        assert len(packets) == len(wanted) == 60
        steps = [b - a for a, b in pairwise(sorted(packet.pts_us for packet in packets))]
        assert {33_333, 33_334} >= set(steps)
    else:
        codec = "aac" if form is ADTS else ""
        assert [packet.payload for packet in packets] == [media_of(codec, data, b"") for data in wanted]
    judge(remuxed(form, demuxer.tracks, packets, tmp_path / f"again.{form.suffix}"), len(packets))


CUES = [
    (1_000, 2_500, "first"),
    (2_500, 4_000, "two\nlines"),
    (61_000, 62_040, "<i>third</i>"),
    (3_600_000, 3_601_000, "é"),
]


def _times(path: Path) -> list[tuple[int, int]]:
    command = [
        find_tool("ffprobe"),
        "-v",
        "error",
        "-show_entries",
        "packet=pts_time,duration_time",
        "-of",
        "json",
        str(path),
    ]
    found = json.loads(run(command, TIMEOUT_S).stdout)["packets"]
    return [
        (round(float(one["pts_time"]) * 1000), round((float(one["pts_time"]) + float(one["duration_time"])) * 1000))
        for one in found
    ]


@pytest.mark.parametrize("suffix", ["srt", "vtt"])
@pytest.mark.parametrize("source", ["srt", "vtt"])
def test_subtitles_between_ffmpeg_and_us(source: str, suffix: str, tmp_path: Path) -> None:
    """Our file becomes one of ffmpeg, and that one of ours again; ffprobe sees the same cues in all three."""

    def clock(ms: int) -> str:
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    first, second, third = tmp_path / "a.srt", tmp_path / f"b.{source}", tmp_path / f"c.{suffix}"
    first.write_text("\n".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n" for n, (a, b, text) in enumerate(CUES)))
    make("ffmpeg", f"-i {first}", "", second)
    demuxer = SubtitleDemuxer(source)
    packets = demux(demuxer, second.read_bytes())
    assert [packet.payload.decode() for packet in packets if packet.payload] == [text for _, _, text in CUES]
    muxer = (SubRipMuxer if suffix == "srt" else WebVttMuxer)(demuxer.tracks)
    for packet in packets:
        muxer.write(packet)
    muxer.finish()
    third.write_bytes(muxer.header() + muxer.take_output())
    expected = [(begin, end) for begin, end, _ in CUES]
    assert _times(first) == _times(second) == _times(third) == expected
