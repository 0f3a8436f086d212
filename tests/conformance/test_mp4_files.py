"""MP4 and QuickTime files of ffmpeg (two versions) and GStreamer read, and ours judged by ffmpeg, ffprobe, PyAV and mediainfo."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest

from mist.core.demuxer import PacketList
from mist.core.mp4_demux import Mp4Demuxer
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.mp4_file import make_layout, make_muxer
from mist.formats.mp4_movie import make_demuxer
from mist.formats.tracks import TrackInfo
from tests.support.media import AC3, AV1, BFRAMES, EAC3, FLAC, HEVC, MP3, NO_BFRAMES, OPUS, VP9, Sample
from tests.support.mp4_boxes_reader import boxes
from tests.support.tools import find_tool, run

pytestmark = [pytest.mark.timeout(120), pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new")]

BASE = Sample("mp4files", video=BFRAMES, seconds=6, keyframe_s=2.0)
TIMEOUT_S = 60


@dataclass(frozen=True)
class Seen:
    """A packet as PyAV sees it."""

    dts_us: int
    pts_us: int
    key: bool
    digest: str


def digest(payload: bytes) -> str:
    return hashlib.md5(payload).hexdigest()


def seen_by_pyav(path: Path) -> dict[int, list[Seen]]:
    found: dict[int, list[Seen]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None or packet.pts is None:
                continue
            base = packet.time_base
            dts, pts = (round(Fraction(one) * base * 1_000_000) for one in (packet.dts, packet.pts))
            found.setdefault(packet.stream.index, []).append(Seen(dts, pts, packet.is_keyframe, digest(bytes(packet))))
    return found


def read_file(path: Path, sink: Muxer | None = None) -> tuple[Mp4Demuxer, list[Packet]]:
    """Read a file as an input does, by seeking."""
    demuxer, packets = make_demuxer(), PacketList()
    demuxer.attach(sink or packets)
    drive(demuxer, path)
    return demuxer, packets.take()


def drive(demuxer: Mp4Demuxer, path: Path) -> int:
    """Feed a file; return how many bytes were read."""
    total = 0
    file = os.open(path, os.O_RDONLY)
    try:
        while (wanted := demuxer.want()) is not None:
            data = os.pread(file, wanted[1], wanted[0])
            total += len(data)
            demuxer.feed(data)
    finally:
        os.close(file)
    return total


def make(
    tmp_path: Path, *options: str, tool: str = "ffmpeg", source: Path | None = None, name: str = "made.mp4"
) -> Path:
    path = tmp_path / name
    command = [find_tool(tool), "-v", "error", "-y", "-i", str(source or BASE.file()), *options, str(path)]
    run(command, TIMEOUT_S)
    return path


def agree(path: Path, *, shift_us: dict[int, int] | None = None) -> Mp4Demuxer:
    """Check that we see in a file what PyAV sees. shift_us: by which ours are earlier, for a track."""
    demuxer, packets = read_file(path)
    theirs = seen_by_pyav(path)
    assert [packet.dts_us for packet in packets] == sorted(packet.dts_us for packet in packets)
    for track in range(len(demuxer.tracks)):
        ours = [p for p in packets if p.track == track]
        assert [digest(p.payload) for p in ours] == [p.digest for p in theirs[track]]
        assert [p.keyframe for p in ours] == [p.key for p in theirs[track]]
        shift = (shift_us or {}).get(track, 0)
        assert all(abs(p.dts_us + shift - q.dts_us) <= 1 for p, q in zip(ours, theirs[track], strict=True))
        assert all(abs(p.pts_us + shift - q.pts_us) <= 1 for p, q in zip(ours, theirs[track], strict=True))
    return demuxer


# --- their files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["ffmpeg", "ffmpeg-new"])
@pytest.mark.parametrize("flags", [
    "", "+faststart", "frag_keyframe+empty_moov+default_base_moof", "frag_keyframe", "frag_keyframe+separate_moof+empty_moov",
    "frag_every_frame+empty_moov", "+negative_cts_offsets", "dash+frag_keyframe", "+disable_chpl", "omit_tfhd_offset+frag_keyframe",
])  # fmt: skip
def test_files_of_ffmpeg(tool: str, flags: str, tmp_path: Path) -> None:
    agree(make(tmp_path, "-c", "copy", *(("-movflags", flags) if flags else ()), tool=tool))


def test_hybrid_files(tmp_path: Path) -> None:
    agree(make(tmp_path, "-c", "copy", "-movflags", "hybrid_fragmented", tool="ffmpeg-new"))


def test_negative_offsets_in_fragments_keep_tracks_together(tmp_path: Path) -> None:
    """ffmpeg presents such a track later instead, so that it is late against the sound."""
    agree(make(tmp_path, "-c", "copy", "-movflags", "cmaf+frag_keyframe", tool="ffmpeg-new"), shift_us={0: 80_000})


def test_smooth_streaming_files(tmp_path: Path) -> None:
    """ffmpeg itself leaves out that the video begins 59 ms before the sound."""
    path = make(tmp_path, "-c", "copy", "-movflags", "isml+frag_keyframe", "-f", "ismv")
    first = seen_by_pyav(path)[0][0].dts_us - read_file(path)[1][0].dts_us
    demuxer = agree(path, shift_us={0: first})
    assert first == seen_by_pyav(make(tmp_path, "-c", "copy", name="b.mp4"))[0][0].dts_us * -1
    assert [track.codec for track in demuxer.tracks] == ["H264", "AAC"]


def test_a_late_track_and_a_cut_one(tmp_path: Path) -> None:
    source = str(BASE.file())
    agree(make(tmp_path, "-itsoffset", "1.5", "-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy"))
    command = [find_tool("ffmpeg"), "-v", "error", "-y", "-ss", "2.5", "-i", source, "-t", "2", "-c", "copy"]
    run([*command, str(tmp_path / "cut.mp4")], TIMEOUT_S)
    _, packets = read_file(tmp_path / "cut.mp4")
    theirs = seen_by_pyav(tmp_path / "cut.mp4")
    assert [digest(p.payload) for p in packets if p.track == 0] == [p.digest for p in theirs[0]]
    assert packets[0].dts_us < 0 and packets[0].keyframe  # decoded from the key before, and not shown


@pytest.mark.parametrize("sample", [
    Sample("mp4hevc", video=HEVC, audio=OPUS, seconds=2), Sample("mp4av1", video=AV1, audio=FLAC, seconds=2),
    Sample("mp4vp9", video=VP9, audio=MP3, seconds=2), Sample("mp4ntsc", video=BFRAMES, audio=AC3, rate="30000/1001", seconds=2),
    Sample("mp4film", video=NO_BFRAMES, audio=EAC3, rate="24000/1001", sample_rate=44100, seconds=2),
], ids=lambda sample: sample.name)  # fmt: skip
@pytest.mark.parametrize("flags", ["+faststart", "frag_keyframe+delay_moov+default_base_moof"])
def test_codecs(sample: Sample, flags: str, tmp_path: Path) -> None:
    path = make(tmp_path, "-c", "copy", "-strict", "-2", "-movflags", flags, tool="ffmpeg-new", source=sample.file())
    demuxer = agree(path)
    rate = {"30000/1001": 29_970, "24000/1001": 23_976}.get(sample.rate, 25_000)
    if flags == "+faststart":
        assert demuxer.tracks[0].frame_rate_mhz == rate
    assert (demuxer.tracks[0].width, demuxer.tracks[0].height) == (320, 180)
    assert demuxer.tracks[1].sample_rate_hz == (48_000 if sample.audio == OPUS else sample.sample_rate)


@pytest.mark.parametrize(("encoder", "stored", "codec"), [
    ("pcm_s16le", "pcm_s16be", "PCM"), ("pcm_s16be", "pcm_s16be", "PCM"), ("pcm_s24le", "pcm_s24be", "PCM"),
    ("pcm_s32le", "pcm_s32be", "PCM"), ("pcm_u8", "pcm_u8", "PCM"), ("pcm_s8", "pcm_u8", "PCM"),
    ("pcm_f32be", "pcm_f32le", "FLOAT"), ("pcm_f64le", "pcm_f64le", "FLOAT"), ("pcm_alaw", "pcm_alaw", "ALAW"),
    ("pcm_mulaw", "pcm_mulaw", "ULAW"),
])  # fmt: skip
def test_uncompressed_sound_in_quicktime(encoder: str, stored: str, codec: str, tmp_path: Path) -> None:
    path = make(tmp_path, "-c:v", "copy", "-c:a", encoder, name="made.mov")
    demuxer, packets = read_file(path)
    assert (demuxer.tracks[1].codec, demuxer.tracks[1].sample_rate_hz) == (codec, 48_000)
    form = {"pcm_alaw": "alaw", "pcm_mulaw": "mulaw"}.get(stored, stored.removeprefix("pcm_"))
    wanted = run(
        [find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-vn", "-c:a", stored, "-f", form, "-"], TIMEOUT_S
    )
    assert b"".join(p.payload for p in packets if p.track == 1) == wanted.stdout


def test_subtitles_and_languages(tmp_path: Path) -> None:
    srt = tmp_path / "a.srt"
    srt.write_text(
        "1\n00:00:00,500 --> 00:00:01,500\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nWörld\n", encoding="utf-8"
    )
    options = ["-i", str(srt), "-map", "0:v", "-map", "0:a", "-map", "1", "-c", "copy", "-c:s", "mov_text"]
    path = make(tmp_path, *options, "-metadata:s:a:0", "language=ger", "-metadata:s:s:0", "language=fre")
    demuxer, packets = read_file(path)
    assert [track.language for track in demuxer.tracks] == ["und", "deu", "fra"]
    assert [(p.dts_us, p.payload.decode()) for p in packets if p.track == 2] == [
        (500_000, "Hello"),
        (3_000_000, "Wörld"),
    ]


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("muxer", [
    "mp4mux", "mp4mux faststart=true", "mp4mux fragment-duration=1000", "qtmux", "qtmux fragment-duration=500",
    "mp4mux fragment-duration=1000 streamable=true",
])  # fmt: skip
def test_files_of_gstreamer(muxer: str, tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    source = f"filesrc location={BASE.file()} ! matroskademux name=d"
    video, audio = "d.video_0 ! queue ! h264parse ! m.", "d.audio_0 ! queue ! aacparse ! m."
    line = f"{source} {muxer} name=m ! filesink location={path} {video} {audio}"
    run([find_tool("gst-launch-1.0"), "-q", *line.split()], TIMEOUT_S)
    demuxer, packets = read_file(path)
    theirs = seen_by_pyav(path)
    for track in range(2):
        ours = [p for p in packets if p.track == track]
        # GStreamer gives the last sample no duration, so that ffmpeg takes it to be behind the edit.
        ours = ours[: max(len(ours) - 1, len(theirs[track]))]
        assert [digest(p.payload) for p in ours] == [p.digest for p in theirs[track]]
        assert [p.keyframe for p in ours] == [p.key for p in theirs[track]]
        assert all(abs(a.pts_us - b.pts_us) <= 1 for a, b in zip(ours, theirs[track], strict=True))
    assert {track.codec for track in demuxer.tracks} == {"H264", "AAC"}


def test_a_sparse_file_of_twenty_gigabytes(tmp_path: Path) -> None:
    """Ten hours, places of 64 bits: opened, sought in and indexed in little time and memory."""
    tracks, _ = source_packets()
    hours, rate = 10, 30
    layout = make_layout(tracks)
    random.seed(5)
    for number in range(hours * 3600 * rate):
        dts_us = number * 1_000_000 // rate
        layout.add(0, dts_us, 0, 20_000, number % 60 == 0)
        if number % 2 == 0:
            layout.add(1, dts_us, 0, 300, True)
    layout.finish()
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as file:
        file.write(layout.header())
        file.truncate(layout.total_bytes)
    assert layout.total_bytes > 20 << 30
    demuxer = make_demuxer()
    file_number = os.open(path, os.O_RDONLY)
    try:
        fed = 0
        while not demuxer.ready:
            position, count = demuxer.want() or (0, 0)
            data = os.pread(file_number, count, position)
            demuxer.feed(data)
            fed += len(data)
        assert fed < path.stat().st_size // 100  # the tables, not the media
        demuxer.seek(0, 0)  # goes through the tables once
        keys = demuxer.keys(0)
        for _ in range(200):
            number = random.randrange(len(keys) // 3)
            demuxer.seek(keys[3 * number] + 17, 0)
            wanted = demuxer.want()
            assert wanted is not None and wanted[0] == keys[3 * number + 1]
            assert layout.packet_at(wanted[0])[1] == 0
    finally:
        os.close(file_number)


# --- our files ------------------------------------------------------------------------------------------------------


def source_packets(
    *options: str, sample: Sample = BASE, tmp_path: Path | None = None
) -> tuple[list[TrackInfo], list[Packet]]:
    """Return tracks and packets of a sample as they are in an MP4 file."""
    path = sample.file().with_suffix(".read.mp4")
    if not path.exists():
        work = path.with_suffix(f".{os.getpid()}.mp4")
        copied = ["-i", str(sample.file()), "-c", "copy", "-strict", "-2", str(work)]
        run([find_tool("ffmpeg-new"), "-v", "error", "-y", *copied], TIMEOUT_S)
        work.rename(path)
    demuxer, packets = read_file(path)
    return demuxer.tracks, packets


def write_file(path: Path, tracks: list[TrackInfo], packets: list[Packet], kind: str) -> Path:
    """Write a file: as packets come, the same for a pipe, or laid out with the index in front."""
    if kind == "layout":
        layout = make_layout(tracks, {p.track: p.payload for p in reversed(packets)})
        for packet in packets:
            layout.write(packet)
        layout.finish()
        path.write_bytes(layout.header() + b"".join(layout.stored(p.track, p.payload) for p in packets))
        assert path.stat().st_size == layout.total_bytes
        return path
    muxer = make_muxer(tracks)
    with path.open("wb") as file:
        file.write(muxer.header())
        for packet in packets:
            muxer.write(packet)
            file.write(muxer.take_output())
        muxer.finish()
        file.write(muxer.take_output())
        for position, data in muxer.patches() if kind == "file" else []:
            file.seek(position)
            file.write(data)
    return path


def judge(path: Path, packets: list[Packet], tolerance_us: int = 1) -> None:
    """Check a file by two ffmpegs, ffprobe and PyAV."""
    for tool in ("ffmpeg", "ffmpeg-new"):
        done = run([find_tool(tool), "-v", "warning", "-xerror", "-i", str(path), "-f", "null", "-"], TIMEOUT_S)
        said = [line for line in done.stderr.decode().splitlines() if "uessed" not in line]
        assert not said
    shown = ["-show_packets", "-show_data_hash", "MD5", "-of", "json"]
    done = run([find_tool("ffprobe"), "-v", "error", *shown, str(path)], TIMEOUT_S)
    probed = json.loads(done.stdout)["packets"]
    assert len(probed) == len(packets)
    theirs = seen_by_pyav(path)
    for track, seen in theirs.items():
        ours = [p for p in packets if p.track == track]
        assert [f"MD5:{digest(p.payload)}" for p in ours] == [
            p["data_hash"] for p in probed if p["stream_index"] == track
        ]
        assert [digest(p.payload) for p in ours] == [p.digest for p in seen]
        assert [p.keyframe for p in ours] == [p.key for p in seen]
        assert all(abs(p.dts_us - q.dts_us) <= tolerance_us for p, q in zip(ours, seen, strict=True))
        assert all(abs(p.pts_us - q.pts_us) <= tolerance_us for p, q in zip(ours, seen, strict=True))


@pytest.mark.parametrize("kind", ["file", "pipe", "layout"])
@pytest.mark.parametrize("sample", [
    BASE, Sample("mp4hevc", video=HEVC, audio=OPUS, seconds=2), Sample("mp4av1", video=AV1, audio=FLAC, seconds=2),
    Sample("mp4vp9", video=VP9, audio=MP3, seconds=2), Sample("mp4ntsc", video=BFRAMES, audio=AC3, rate="30000/1001", seconds=2),
    Sample("mp4film", video=NO_BFRAMES, audio=EAC3, rate="24000/1001", sample_rate=44100, seconds=2),
], ids=lambda sample: sample.name)  # fmt: skip
def test_our_files(kind: str, sample: Sample, tmp_path: Path) -> None:
    tracks, packets = source_packets(sample=sample)
    # Opus comes with times of whole milliseconds, and goes back on its samples.
    tolerance_us = 1000 if tracks[1].codec == "opus" else 1
    judge(write_file(tmp_path / "ours.mp4", tracks, packets, kind), packets, tolerance_us)


@pytest.mark.parametrize("kind", ["file", "layout"])
def test_our_files_with_a_late_track(kind: str, tmp_path: Path) -> None:
    tracks, packets = source_packets()
    late = [Packet(p.track, p.dts_us + 1_520_000 * p.track, p.offset_us, p.keyframe, p.payload) for p in packets]
    late.sort(key=lambda packet: packet.dts_us)
    judge(write_file(tmp_path / "ours.mp4", tracks, late, kind), late, 40)


@pytest.mark.tools("mediainfo")
def test_mediainfo(tmp_path: Path) -> None:
    tracks, packets = source_packets()
    path = write_file(tmp_path / "ours.mp4", tracks, packets, "layout")
    told = json.loads(run([find_tool("mediainfo"), "--Output=JSON", str(path)], TIMEOUT_S).stdout)["media"]["track"]
    general, video, audio = told
    assert general["IsStreamable"] == "Yes"
    assert int(video["FrameCount"]) - sum(p.track == 0 for p in packets) in (0, 1)  # counted from the duration
    assert (video["Format"], video["FrameRate"], video["FrameRate_Mode"]) == ("AVC", "25.000", "CFR")
    assert (audio["Format"], audio["SamplingRate"]) == ("AAC", "48000")
    assert abs(float(general["Duration"]) - 6) < 0.1


def test_others_seek_in_our_files(tmp_path: Path) -> None:
    tracks, packets = source_packets()
    path = write_file(tmp_path / "ours.mp4", tracks, packets, "layout")
    keys = [p for p in packets if p.track == 0 and p.keyframe]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for key in reversed(keys):
            container.seek(key.pts_us + 100_000)
            first = next(container.demux(stream))
            assert digest(bytes(first)) == digest(key.payload)


def test_an_edit_list_for_composition_is_written(tmp_path: Path) -> None:
    tracks, packets = source_packets()
    data = write_file(tmp_path / "ours.mp4", tracks, packets, "layout").read_bytes()
    moov = next(box.body for box in boxes(data) if box.path == "moov")
    edits = [box.body for box in boxes(moov) if box.path == "trak/edts/elst"]
    first = packets[0]
    assert struct.unpack_from(">I", edits[0], 4)[0] in (1, 2)
    media_time = struct.unpack_from(">i", edits[0], len(edits[0]) - 8)[0]
    assert media_time == round(max(first.offset_us, -first.dts_us) * 90 / 1000)
