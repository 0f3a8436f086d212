"""WAV between others and us: the samples of their files, and ours judged by FFmpeg."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.formats import riff
from mist.formats.tracks import PCM, TrackInfo
from tests.support.audio_files import SECONDS, AudioFile, by_ffmpeg, by_gstreamer
from tests.support.demuxing import mux, patched
from tests.support.tools import find_tool, run

_SOUND = ("audiotestsrc", "num-buffers=200", "!", "audioconvert", "!")
FILES = [
    by_ffmpeg("u8.wav", "-c:a", "pcm_u8", rate=11025, channels=1),
    by_ffmpeg("s16.wav", "-c:a", "pcm_s16le", rate=44100),
    by_ffmpeg("s24.wav", "-c:a", "pcm_s24le"),
    by_ffmpeg("s32.wav", "-c:a", "pcm_s32le", rate=96000),
    by_ffmpeg("f32.wav", "-c:a", "pcm_f32le"),
    by_ffmpeg("f64.wav", "-c:a", "pcm_f64le", channels=1),
    by_ffmpeg("alaw.wav", "-c:a", "pcm_alaw", rate=8000, channels=1),
    by_ffmpeg("mulaw.wav", "-c:a", "pcm_mulaw", rate=8000),
    by_ffmpeg("six.wav", "-c:a", "pcm_s24le", channels=6, tool="ffmpeg-new"),
    by_ffmpeg("rf64.wav", "-c:a", "pcm_s16le", "-rf64", "always"),
    by_gstreamer("gst.wav", *_SOUND, "audio/x-raw,format=S24LE,channels=2,rate=44100", "!", "wavenc", "name=mux"),
]
pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new", "gst-launch-1.0")


def _read(data: bytes) -> tuple[TrackInfo, list[Packet]]:
    demuxer = riff.make_demuxer()
    packets = demux(demuxer, data)
    return demuxer.tracks[0], packets


def _samples(path: Path) -> str:
    """Return the hash of all samples as FFmpeg reads them."""
    done = run([find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-c:a", "pcm_f64le", "-f", "md5", "-"], 60)
    return done.stdout.decode().strip()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_of_others(file: AudioFile, tmp_path: Path) -> None:
    path = file.make(tmp_path)
    data = path.read_bytes()
    track, packets = _read(data)
    [stream] = json.loads(
        run([find_tool("ffprobe"), "-v", "error", "-of", "json", "-show_streams", str(path)], 30).stdout
    )["streams"]
    assert (track.sample_rate_hz, track.channels) == (int(stream["sample_rate"]), stream["channels"])
    assert track.sample_bits == (stream["bits_per_sample"] + 7) // 8 * 8
    frame_bytes = track.channels * track.sample_bits // 8
    assert (
        abs(sum(len(one.payload) for one in packets) / frame_bytes / track.sample_rate_hz - float(stream["duration"]))
        < 1e-3
    )
    raw = f"pcm_s{track.sample_bits}be" if track.codec == PCM and track.sample_bits > 8 else "copy"
    form = f"s{track.sample_bits}be" if raw != "copy" else "data"
    done = run([find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-map", "0", "-c:a", raw, "-f", form, "-"], 60)
    ours = b"".join(one.payload for one in packets)
    assert hashlib.sha256(ours).hexdigest() == hashlib.sha256(done.stdout).hexdigest()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_our_files(file: AudioFile, tmp_path: Path) -> None:
    path = file.make(tmp_path)
    track, packets = _read(path.read_bytes())
    muxer = riff.make_muxer([track])
    live = mux(muxer, packets)
    for name, data in (("pipe.wav", live), ("file.wav", patched(live, muxer.patches()))):
        ours = tmp_path / name
        ours.write_bytes(data)
        assert _samples(ours) == _samples(path), name
    told = run([find_tool("ffmpeg"), "-v", "warning", "-xerror", "-i", str(ours), "-f", "null", "-"], 60)
    complaints = [one for one in told.stderr.decode().splitlines() if one and "Guessed Channel Layout" not in one]
    assert not complaints
    duration = run([find_tool("ffprobe"), "-v", "error", "-of", "json", "-show_format", str(ours)], 30).stdout
    assert float(json.loads(duration)["format"]["duration"]) == pytest.approx(SECONDS, rel=0.2)
