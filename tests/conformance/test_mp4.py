"""Our fragmented MP4, judged by ffmpeg (two versions), mediainfo, GStreamer and Chromium."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mist.core.mp4_mux import Mp4FragmentMuxer
from mist.core.packet import Packet
from mist.formats import codecs
from mist.formats.mp4_boxes import LiveMovie, track_timing
from mist.formats.tracks import TrackInfo
from tests.support import page_runner
from tests.support.mp4_boxes_reader import fragments
from tests.support.mp4_samples import (
    AUDIO_ENCODERS,
    VIDEO_ENCODERS,
    mux,
    probe_packets,
    run,
    sample,
)
from tests.support.tools import find_tool

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new"),
]

PAIRS = [("H264", audio) for audio in AUDIO_ENCODERS] + [(video, "AAC") for video in VIDEO_ENCODERS if video != "H264"]
MEDIAINFO_VIDEO = {"H264": ("AVC",), "VP9": ("VP9", "vp09")}  # mediainfo 23 leaves VP9 in MP4 its sample entry's name
MEDIAINFO_AUDIO = {"AAC": "AAC", "MP3": "MPEG Audio", "opus": "Opus", "FLAC": "FLAC", "AC3": "AC-3", "EAC-3": "E-AC-3"}
HOUR_US = 3_600_000_000


def at(packets: Sequence[Packet], shift_us: int) -> list[Packet]:
    """Return the packets later by shift_us, from the first video keyframe on."""
    first = next((n for n, packet in enumerate(packets) if packet.track == 0 and packet.keyframe), 0)
    return [Packet(p.track, p.dts_us + shift_us, p.offset_us, p.keyframe, p.payload) for p in packets[first:]]


def judge_packets(path: Path, tracks: Sequence[TrackInfo], packets: Sequence[Packet]) -> None:
    """Compare ffprobe's view with the packets that went in: times to the tick, keyframes, payload."""
    found = probe_packets(path)
    assert len(found) == len(packets)
    for index, track in enumerate(tracks):
        scale = track_timing(track).timescale
        seen = [
            (one["dts"], one["pts"], "K" in one["flags"], one["data_hash"])
            for one in found
            if one["stream_index"] == index
        ]
        wanted = [
            (
                round(packet.dts_us * scale / 1_000_000),
                round(packet.pts_us * scale / 1_000_000),
                packet.keyframe,
                f"MD5:{hashlib.md5(packet.payload).hexdigest()}",
            )
            for packet in packets
            if packet.track == index
        ]
        assert seen == wanted


def judge_decoding(path: Path) -> None:
    for ffmpeg in ("ffmpeg", "ffmpeg-new"):
        done = run([find_tool(ffmpeg), "-v", "warning", "-xerror", "-i", str(path), "-f", "null", "-"], check=False)
        assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.parametrize(("video", "audio"), PAIRS)
def test_every_codec(video: str, audio: str, tmp_path: Path) -> None:
    tracks, packets = sample(video, audio)
    path = tmp_path / "sample.mp4"
    path.write_bytes(mux(tracks, packets))
    judge_packets(path, tracks, packets)
    judge_decoding(path)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": "30000/1001", "sample_rate_hz": 44_100},
        {"rate": "60000/1001", "sample_rate_hz": 22_050, "channels": 1},
        {"rate": "24000/1001", "video": "HEVC", "audio": "opus", "channels": 6},
        {"video": "", "audio": "AAC", "sample_rate_hz": 96_000},
        {"video": "", "audio": "FLAC", "sample_rate_hz": 44_100, "channels": 1},
        {"video": "", "audio": "MP3", "sample_rate_hz": 22_050, "channels": 1},
        {"video": "", "audio": "AC3", "sample_rate_hz": 32_000, "channels": 6},
        {"video": "", "audio": "EAC-3", "sample_rate_hz": 44_100, "channels": 6},
        {"video": "VP9", "audio": "", "rate": "50"},
    ],
    ids=lambda options: "-".join(str(value).replace("/", ":") for value in options.values()),
)
def test_rates_and_channels(options: dict[str, Any], tmp_path: Path) -> None:
    tracks, packets = sample(**options)
    path = tmp_path / "sample.mp4"
    path.write_bytes(mux(tracks, packets))
    judge_packets(path, tracks, packets)
    judge_decoding(path)


def test_a_joiner_of_a_stream_that_is_old_hears_everything(tmp_path: Path) -> None:
    """Edit lists broke this: ffmpeg 9 dropped the audio up to the joining time."""
    tracks, packets = sample()
    path = tmp_path / "sample.mp4"
    late = at(packets, 30 * 24 * HOUR_US)
    path.write_bytes(mux(tracks, late))
    judge_packets(path, tracks, late)
    judge_decoding(path)
    for ffmpeg in ("ffmpeg", "ffmpeg-new"):
        done = run([find_tool(ffmpeg), "-v", "error", "-i", str(path), "-vn", "-f", "s16le", "-"])
        assert len(done.stdout) == 1024 * 4 * sum(packet.track == 1 for packet in late)


def test_millisecond_clocks(tmp_path: Path) -> None:
    """What RTMP brings: audio is put back on its samples, video stays at its milliseconds."""
    tracks, packets = sample(rate="30000/1001", sample_rate_hz=44_100)
    rounded = [
        Packet(p.track, (p.dts_us + 500) // 1000 * 1000, (p.offset_us + 500) // 1000 * 1000, p.keyframe, p.payload)
        for p in packets
    ]
    path = tmp_path / "sample.mp4"
    path.write_bytes(mux(tracks, rounded))
    judge_decoding(path)
    found = probe_packets(path)
    audio = [one["dts"] for one in found if one["stream_index"] == 1]
    assert {b - a for a, b in itertools.pairwise(audio)} == {1024}
    video = [one["pts"] for one in found if one["stream_index"] == 0]
    assert video == [packet.pts_us * 90 // 1000 for packet in rounded if packet.track == 0]


def test_overhead_is_small() -> None:
    tracks, packets = sample()
    muxer = Mp4FragmentMuxer(tracks, LiveMovie())
    for packet in packets:
        muxer.write(packet)
    overheads = {fragment.track_id: fragment.overhead for fragment in fragments(muxer.take_output())}
    assert overheads[1] <= 108
    assert overheads[2] <= 96


@pytest.mark.parametrize("video", ["H264", "HEVC", "VP9", "AV1"])
def test_parameter_sets_change(video: str, tmp_path: Path) -> None:
    tracks, pieces = changing(video)
    path = tmp_path / "sample.mp4"
    path.write_bytes(b"".join(pieces))
    judge_decoding(path)
    done = run(["ffprobe", "-v", "error", "-show_entries", "frame=width", "-of", "csv=p=0", str(path)])
    widths = [int(word) for word in re.findall(rb"\d+", done.stdout)]
    assert len(tracks) == 1
    assert sorted(set(widths)) == [320, 640]
    assert widths == sorted(widths)
    assert widths.count(320) == 75


def changing(video: str) -> tuple[list[TrackInfo], list[bytes]]:
    """Return the tracks and the pieces of a file whose pictures double their size after 3 s."""
    before, first = sample(video, "")
    after, second = sample(video, "", size="640x360")
    muxer = Mp4FragmentMuxer(before, LiveMovie())
    pieces = [muxer.header()]
    for packet in first:
        muxer.write(packet)
        pieces.append(muxer.take_output())
    assert muxer.set_tracks(after)
    for packet in at(second, 3_000_000):
        muxer.write(packet)
        pieces.append(muxer.take_output())
    return before, pieces


@pytest.mark.tools("mediainfo")
@pytest.mark.parametrize(("video", "audio"), PAIRS)
def test_mediainfo(video: str, audio: str, tmp_path: Path) -> None:
    tracks, packets = sample(video, audio)
    path = tmp_path / "sample.mp4"
    path.write_bytes(mux(tracks, packets))
    form = r"General;%Format%|\nVideo;%Format% %Width%x%Height%|\nAudio;%Format% %SamplingRate%"
    words = [
        run(["mediainfo", f"--Output={one}", str(path)]).stdout.decode().strip(" |\n") for one in form.split(r"|\n")
    ]
    assert words[0] == "MPEG-4"
    assert words[1] in [f"{name} 320x180" for name in MEDIAINFO_VIDEO.get(video, (video,))]
    assert words[2] == f"{MEDIAINFO_AUDIO[audio]} 48000"


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize(("video", "audio"), PAIRS)
@pytest.mark.parametrize("start_us", [0, 2 * HOUR_US], ids=["early", "late"])
def test_gstreamer(video: str, audio: str, start_us: int, tmp_path: Path) -> None:
    """Read as a live reply is, without seeking: every packet arrives, with our times."""
    tracks, packets = sample(video, audio)
    sent = at(packets, start_us)
    path = tmp_path / "sample.mp4"
    path.write_bytes(mux(tracks, sent))
    sinks = [f"d.{kind}_0 ! queue ! fakesink silent=false sync=false name={kind}" for kind in ("video", "audio")]
    source = f"filesrc location={path} ! queue ! qtdemux name=d"  # a queue after filesrc makes it push
    done = run(["gst-launch-1.0", "-v", *f"{source} {' '.join(sinks)}".split()])
    output = done.stdout.decode()
    assert "WARN" not in output
    assert "ERROR" not in output
    for index, kind in enumerate(("video", "audio")):
        # Messages of a busy sink replace each other, so some are missing, on a busy machine most; what there is must be right.
        seen = re.findall(
            rf"GstFakeSink:{kind}: last-message = chain .*?\((\d+) bytes, dts: ([\d:.]+), pts: ([\d:.]+)", output
        )
        wanted = [(len(p.payload), p.dts_us, p.pts_us) for p in sent if p.track == index]
        found = sorted({(int(size), microseconds(dts), microseconds(pts)) for size, dts, pts in seen})
        assert len(found) > len(wanted) / 20
        for size, dts_us, pts_us in found:
            assert any(size == one[0] and abs(dts_us - one[1]) < 25 and abs(pts_us - one[2]) < 25 for one in wanted), (
                size,
                dts_us,
                pts_us,
            )


def microseconds(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    return round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1_000_000)


# --- Chromium -------------------------------------------------------------------------------------------------------

WATCH = """
<video id=v muted autoplay></video><script>
const v = document.getElementById('v'); let begin = null, failure = null, tries = 0;
v.addEventListener('timeupdate', () => { if (begin === null && !v.paused) begin = v.currentTime; });
setInterval(() => {
  const q = v.getVideoPlaybackQuality(), ran = begin === null ? 0 : v.currentTime - begin;
  if (v.error) failure = v.error.message;
  if (failure || ++tries > 200 || (ran > SECONDS && WIDTHS.includes(v.videoWidth)))
    report({failure, ran, begin, frames: q.totalVideoFrames, dropped: q.droppedVideoFrames, width: v.videoWidth,
            audio: v.webkitAudioDecodedByteCount});
}, 100);
</script>"""
PLAIN = WATCH + "<script>v.src = '/live.mp4';</script>"
MEDIA_SOURCE = (
    WATCH
    + """<script>
const media = new MediaSource(); v.src = URL.createObjectURL(media);
media.addEventListener('sourceopen', async () => {
  try {
    const buffer = media.addSourceBuffer('video/mp4; codecs="CODECS"');
    const reader = (await fetch('/live.mp4')).body.getReader();
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      buffer.appendBuffer(value);
      await new Promise((yes, no) => { buffer.onupdateend = yes; buffer.onerror = () => no('append failed'); });
      if (v.buffered.length && v.currentTime < v.buffered.start(0)) v.currentTime = v.buffered.start(0);
    }
  } catch (error) { failure = '' + error; }
});
</script>"""
)


def watch(
    page: str, tracks: Sequence[TrackInfo], pieces: Sequence[bytes], *, seconds: float = 1, width: int = 320
) -> Any:
    """Send a piece every 4 ms to a page that plays them for some seconds; return its report."""
    names = ",".join(codecs.codec_string(track) for track in tracks)
    for word, value in (("CODECS", names), ("SECONDS", str(seconds)), ("WIDTHS", f"[{width}]")):
        page = page.replace(word, value)

    def media() -> Iterator[tuple[float, bytes]]:
        for number, piece in enumerate(pieces):
            yield number * 0.004, piece

    report = page_runner.run_page(page, {"/live.mp4": ("video/mp4", media)})
    assert report["failure"] is None, report
    assert report["ran"] > seconds, report
    return report


@pytest.mark.tools("chromium")
@pytest.mark.parametrize(
    ("page", "video", "audio"),
    [
        pytest.param(page, video, audio, id=f"{'plain' if page == PLAIN else 'mse'}-{video}-{audio}")
        for page in (PLAIN, MEDIA_SOURCE)
        for video, audio in (("H264", "AAC"), ("AV1", "FLAC"), ("VP9", "opus"), ("H264", "MP3"))
        if (page, audio) != (MEDIA_SOURCE, "MP3")  # which Chromium refuses to add a source buffer for
    ],
)
def test_chromium_plays(page: str, video: str, audio: str) -> None:
    tracks, packets = sample(video, audio)
    muxer = Mp4FragmentMuxer(tracks, LiveMovie())
    pieces = [muxer.header()]
    for packet in at(packets, 5 * HOUR_US):
        muxer.write(packet)
        pieces.append(muxer.take_output())
    report = watch(page, tracks, pieces)
    assert report["begin"] > 5 * 3600
    assert report["frames"] > 20
    assert report["audio"] > 1000


@pytest.mark.tools("chromium")
@pytest.mark.parametrize("page", [PLAIN, MEDIA_SOURCE], ids=["plain", "mse"])
def test_chromium_follows_new_parameter_sets(page: str) -> None:
    tracks, pieces = changing("H264")
    watch(page, tracks, pieces, seconds=3, width=640)
