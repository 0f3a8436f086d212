"""Matroska and WebM between us and others: their files read by us, our files judged by them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.packet import Packet
from mist.formats.matroska.reading import demuxer
from mist.formats.matroska.writing import WEBM_AUDIO_CODECS, WEBM_VIDEO_CODECS, muxer
from mist.formats.tracks import TrackInfo
from tests.support.media import AC3, AV1, BFRAMES, EAC3, FLAC, HEVC, MP3, OPUS, VP9, Sample
from tests.support.mkv_files import mux_file
from tests.support.tools import find_tool, run

pytestmark = [pytest.mark.timeout(120), pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new", "mkvmerge", "mkvinfo")]

OPEN_GOP = ("-c:v", "libx264", "-bf", "3", "-x264-params", "open-gop=1:b-pyramid=normal", "-pix_fmt", "yuv420p")
SAMPLES = [
    Sample("bframes", BFRAMES, seconds=4),
    Sample("film", BFRAMES, rate="24000/1001", sample_rate=44100, seconds=4),
    Sample("ntsc", BFRAMES, rate="60000/1001", seconds=4),
    Sample("open-gop", OPEN_GOP, seconds=4),
    Sample("hevc-opus", HEVC, OPUS, seconds=4, tool="ffmpeg-new"),
    Sample("av1-opus", AV1, OPUS, seconds=4, tool="ffmpeg-new"),
    Sample("vp9-flac", VP9, FLAC, seconds=4, tool="ffmpeg-new"),
    Sample("vp8-vorbis", ("-c:v", "libvpx", "-deadline", "realtime"), ("-c:a", "libvorbis"), seconds=4),
    Sample("theora-vorbis", ("-c:v", "libtheora"), ("-c:a", "libvorbis"), seconds=4),
    Sample("mpeg2-mp2", ("-c:v", "mpeg2video", "-bf", "2"), ("-c:a", "mp2"), seconds=4),
    Sample("jpeg-pcm", ("-c:v", "mjpeg"), ("-c:a", "pcm_s16be"), seconds=2),
    Sample("mp3", video=(), audio=MP3, seconds=4),
    Sample("ac3", video=(), audio=AC3, channels=6, seconds=4),
    Sample("eac3", video=(), audio=EAC3, seconds=4),
    Sample("dts", video=(), audio=("-c:a", "dca", "-strict", "-2"), seconds=4),
    Sample("alaw", video=(), audio=("-c:a", "pcm_alaw"), sample_rate=16000, channels=1, seconds=2),
    Sample("mulaw", video=(), audio=("-c:a", "pcm_mulaw"), seconds=2),
    Sample("float", video=(), audio=("-c:a", "pcm_f32le"), seconds=2),
    Sample("pcm24", video=(), audio=("-c:a", "pcm_s24be"), seconds=2),
]
by_name = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
# What FFmpeg says of its own files too: of rates it rounds, and of what it has to guess.
HARMLESS = ("non monotonically", "Last message", "Guessed Channel Layout", "Estimating duration from bitrate")
Found = list[tuple[float, float | None, bool, bytes]]


def read(path: Path, step: int = 65_536) -> tuple[list[TrackInfo], list[Packet]]:
    """Return tracks and packets as we see them."""
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    with path.open("rb") as file:
        while (wanted := engine.want()) is not None:
            file.seek(wanted[0])
            engine.feed(file.read(step))
    return engine.tracks, sink.take()


def read_by_ffmpeg(path: Path) -> dict[int, Found]:
    """Return (pts, dts, keyframe, payload) of each packet of each stream; microseconds, None where FFmpeg does not know."""
    found: dict[int, Found] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                base = float((packet.time_base or Fraction(1, 1000)) * 1_000_000)
                assert packet.pts is not None
                dts_us = packet.dts * base if packet.dts is not None else None
                one = (packet.pts * base, dts_us, bool(packet.is_keyframe), bytes(packet))
                found.setdefault(packet.stream.index, []).append(one)
    return found


def judge(path: Path, tracks: Sequence[TrackInfo], packets: Sequence[Packet], *, tolerance_us: int = 1000) -> None:
    """Compare packets with FFmpeg's: payload, keyframes, presentation times, and decode times where FFmpeg knows them."""
    seen = read_by_ffmpeg(path)
    assert len(seen) == len(tracks)
    for place, track in enumerate(tracks):
        ours = [packet for packet in packets if packet.track == place]
        theirs = seen[place]
        assert [packet.payload for packet in ours] == [payload for _, _, _, payload in theirs], track.codec
        assert [packet.keyframe for packet in ours] == [keyframe for _, _, keyframe, _ in theirs], track.codec
        for packet, (pts_us, dts_us, _, _) in zip(ours, theirs, strict=True):
            assert abs(packet.pts_us - pts_us) <= tolerance_us, track.codec
            assert dts_us is None or abs(packet.dts_us - dts_us) <= tolerance_us, track.codec
        assert sum(dts_us is None for _, dts_us, _, _ in theirs) <= 3
        assert all(a.dts_us < b.dts_us for a, b in itertools.pairwise(ours))


@by_name
def test_their_files(sample: Sample) -> None:
    judge(sample.file(), *read(sample.file()))


@by_name
def test_ffmpegs_live_form(sample: Sample, tmp_path: Path) -> None:
    """Clusters of unknown size and 200 ms, in a Segment of unknown size, from a pipe."""
    path = tmp_path / "live.mkv"
    options = ["-c", "copy", "-live", "1", "-cluster_time_limit", "200", "-f", "matroska"]
    path.write_bytes(run([find_tool(sample.tool), "-v", "error", "-i", str(sample.file()), *options, "-"], 60).stdout)
    judge(path, *read(path, 777))


@by_name
def test_mkvmerges_files(sample: Sample, tmp_path: Path) -> None:
    """It laces sound, and FFmpeg gives laced frames times of whole milliseconds one by one, which adds up to some."""
    path = tmp_path / "merged.mkv"
    run([find_tool("mkvmerge"), "-q", "-o", str(path), str(sample.file())], 60)
    tracks, packets = read(path)
    if "PCM" not in [track.codec for track in tracks]:  # which mkvtoolnix stores the other way round
        judge(path, tracks, packets, tolerance_us=4000)
    for place, track in enumerate(tracks):
        if track.codec in ("AAC", "MP3", "MP2", "AC3"):
            times = [packet.dts_us for packet in packets if packet.track == place]
            frame_us = {"AAC": 1024, "AC3": 1536}.get(track.codec, 1152) * 1_000_000 / track.sample_rate_hz
            assert max(abs(time - times[0] - n * frame_us) for n, time in enumerate(times)) < 1100


def test_mkvmerges_compression_and_durations(tmp_path: Path) -> None:
    path = tmp_path / "merged.mkv"
    packed = ["--enable-durations", "--compression", "0:zlib", "--compression", "1:zlib"]
    run([find_tool("mkvmerge"), "-q", "-o", str(path), *packed, str(SAMPLES[0].file())], 60)
    judge(path, *read(path), tolerance_us=4000)


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("streamable", ["true", "false"])
@pytest.mark.parametrize(
    ("video", "audio", "mux"),
    [
        ("x264enc bframes=2 key-int-max=25 ! h264parse", "opusenc", "matroskamux"),
        ("vp8enc keyframe-max-dist=25", "vorbisenc", "webmmux"),
        ("x265enc key-int-max=25 ! h265parse", "lamemp3enc ! mpegaudioparse", "matroskamux"),
    ],
)
def test_gstreamers_files(video: str, audio: str, mux: str, streamable: str, tmp_path: Path) -> None:
    path = tmp_path / "gst.mkv"
    pictures = f"videotestsrc num-buffers=75 ! video/x-raw,format=I420,framerate=25/1 ! {video} ! {mux} name=m streamable={streamable}"
    sounds = f"audiotestsrc num-buffers=130 ! {audio} ! m."
    run([find_tool("gst-launch-1.0"), "-q", *f"{pictures} ! filesink location={path} {sounds}".split()], 60)
    judge(path, *read(path))


@pytest.mark.parametrize(("codec", "container"), [("ass", "matroska"), ("srt", "matroska"), ("webvtt", "webm")])
def test_subtitles(codec: str, container: str, tmp_path: Path) -> None:
    source, path = tmp_path / "text.srt", tmp_path / "text.mkv"
    source.write_text("1\n00:00:01,000 --> 00:00:02,500\nHello\nworld\n\n2\n00:00:03,000 --> 00:00:04,000\nagain\n")
    language = ["-metadata:s:s:0", "language=fre"]
    run(
        [find_tool("ffmpeg"), "-v", "error", "-i", str(source), "-c:s", codec, *language, "-f", container, str(path)],
        60,
    )
    tracks, packets = read(path)
    assert [(track.codec, track.language) for track in tracks] == [("subtitle", "fra")]
    assert [(packet.dts_us, packet.payload.replace(b"\r", b"")) for packet in packets] == [
        (1_000_000, b"Hello\nworld"),
        (2_500_000, b""),
        (3_000_000, b"again"),
        (4_000_000, b""),
    ]


# -- What we write


def written(sample: Sample, path: Path, *, file: bool) -> tuple[list[TrackInfo], list[Packet]]:
    """Write a sample as a file or as an endless stream."""
    engine = demuxer()
    packets = demux(engine, sample.file().read_bytes())
    webm = all(track.codec in (*WEBM_VIDEO_CODECS, *WEBM_AUDIO_CODECS) for track in engine.tracks)
    if file:
        path.write_bytes(mux_file(muxer(engine.tracks, webm, indexed=True), packets))
    else:
        live = muxer(engine.tracks, webm)
        for packet in packets:
            live.write(packet)
        path.write_bytes(live.header() + live.take_output())
    return engine.tracks, packets


@by_name
@pytest.mark.parametrize("file", [True, False], ids=["file", "live"])
def test_our_files(sample: Sample, file: bool, tmp_path: Path) -> None:
    path = tmp_path / "ours.mkv"
    tracks, packets = written(sample, path, file=file)
    judge(path, tracks, packets)
    again_tracks, again = read(path)
    assert [track.changed(track_id=0) for track in again_tracks] == [track.changed(track_id=0) for track in tracks]
    for one, other in zip(packets, again, strict=True):
        assert (one.track, one.keyframe, one.payload) == (other.track, other.keyframe, other.payload)
        assert abs(one.dts_us - other.dts_us) <= 1000
        assert abs(one.pts_us - other.pts_us) <= 500
    for tool in ("ffmpeg", "ffmpeg-new"):
        decode = [
            find_tool(tool),
            "-v",
            "warning",
            "-xerror",
            "-i",
            str(path),
            "-fps_mode",
            "passthrough",
            "-f",
            "null",
            "-",
        ]
        told = run(decode, 60).stderr.decode()
        complaints = [line for line in told.splitlines() if not any(text in line for text in HARMLESS)]
        assert not complaints, complaints
    _judge_by_mkvtoolnix(path, tracks, packets, file)


def _judge_by_mkvtoolnix(path: Path, tracks: list[TrackInfo], packets: list[Packet], file: bool) -> None:
    facts = json.loads(run([find_tool("mkvmerge"), "-J", str(path)], 60).stdout)
    assert facts["errors"] == []
    assert facts["warnings"] == []
    assert len(facts["tracks"]) == len(tracks)
    if file:
        length_us = max(packet.pts_us for packet in packets) - min(packet.pts_us for packet in packets)
        assert abs(facts["container"]["properties"]["duration"] / 1000 - length_us) < 200_000
    told = run([find_tool("mkvinfo"), "-v", "-v", str(path)], 60).stdout.decode()
    assert "rror" not in told
    assert told.count("Simple block") + told.count("Block group") >= len(packets)


@pytest.mark.tools("mediaconch")
@by_name
def test_the_matroska_checker_finds_nothing(sample: Sample, tmp_path: Path) -> None:
    """Element order, lengths, versions, sums. Not of the endless form: the checker takes clusters of unknown size for nested ones."""
    path = tmp_path / "ours.mkv"
    written(sample, path, file=True)
    report = run([find_tool("mediaconch"), "-mc", "-fx", str(path)], 60).stdout.decode()
    outcomes = Counter(re.findall(r'outcome="([^"]*)"', report))
    assert set(outcomes) == {"pass"} and outcomes["pass"] > 100, report


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("sample", [SAMPLES[0], SAMPLES[7]], ids=lambda sample: sample.name)
@pytest.mark.parametrize("file", [True, False], ids=["file", "live"])
def test_gstreamer_plays(sample: Sample, file: bool, tmp_path: Path) -> None:
    path = tmp_path / "ours.mkv"
    written(sample, path, file=file)
    sinks = "decodebin name=d d. ! videoconvert ! fakesink d. ! audioconvert ! fakesink"
    done = run([find_tool("gst-launch-1.0"), "-q", *f"filesrc location={path} ! {sinks}".split()], 60)
    assert b"ERROR" not in done.stderr


def test_ffmpeg_seeks_in_our_files(tmp_path: Path) -> None:
    path = tmp_path / "ours.mkv"
    written(SAMPLES[0], path, file=True)
    with av.open(str(path)) as container:
        container.seek(2_600_000)
        packet = next(iter(container.demux(video=0)))
        assert packet.is_keyframe
        assert packet.pts is not None
        assert 2.0 <= float(packet.pts * (packet.time_base or Fraction(1))) <= 2.6


def test_header_stripping_as_ffmpeg_understands_it(tmp_path: Path) -> None:
    """No writer here still strips headers, so the file is ours, and FFmpeg and we must agree on it."""
    from mist.core.ebml import element, unsigned_element
    from tests.support.mkv_files import audio, cluster, ebml_header, info, segment, simple, track, tracks

    packets = list(read(SAMPLES[11].file())[1])
    common = packets[5].payload[:2]
    encoding = element(0x5034, unsigned_element(0x4254, 3) + element(0x4255, common))
    entry = track(1, "A_MPEG/L3", 2, audio() + element(0x6D80, element(0x6240, encoding)))
    blocks = [simple(1, packet.dts_us // 1000, packet.payload[2:]) for packet in packets[:100]]
    path = tmp_path / "stripped.mkv"
    path.write_bytes(ebml_header() + segment(info(), tracks(entry), cluster(0, *blocks)))
    found = read(path)
    assert [packet.payload for packet in found[1]] == [packet.payload for packet in packets[:100]]
    judge(path, *found)


def test_a_killed_recording_is_read_to_its_end(tmp_path: Path) -> None:
    data = SAMPLES[0].file().read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) * 2 // 3])
    _tracks, packets = read(path)
    with subprocess.Popen([find_tool("ffprobe"), "-v", "quiet", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of",
                           "csv=p=0", str(path)], stdout=subprocess.PIPE) as probe:  # fmt: skip
        counts = [int(line) for line in probe.communicate()[0].split()]
    assert all(abs(sum(packet.track == place for packet in packets) - count) <= 1 for place, count in enumerate(counts))
