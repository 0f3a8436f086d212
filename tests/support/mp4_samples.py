"""Short encoded streams in the project's form, made by ffmpeg when a test asks for them, for judging our MP4."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from mist.core.mp4_mux import Mp4FragmentMuxer
from mist.core.packet import Packet
from mist.formats import codecs
from mist.formats.mp4_boxes import LiveMovie
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo

TIMEOUT_S = 60
NAMES = {
    "h264": "H264", "hevc": "HEVC", "av1": "AV1", "libdav1d": "AV1", "vp9": "VP9", "libvpx-vp9": "VP9", "vp8": "VP8",
    "aac": "AAC", "mp3": "MP3", "mp3float": "MP3", "ac3": "AC3", "eac3": "EAC-3", "opus": "opus", "libopus": "opus",
    "flac": "FLAC",
}  # fmt: skip
VIDEO_ENCODERS = {
    "H264": "libx264 -preset ultrafast -bf 2 -b_strategy 0 -x264-params scenecut=0",
    "HEVC": "libx265 -preset ultrafast -x265-params log-level=none:bframes=2:b-adapt=0",
    "AV1": "libsvtav1 -preset 12",
    "VP9": "libvpx-vp9 -deadline realtime -cpu-used 8",
}
AUDIO_ENCODERS = {
    "AAC": "aac -b:a 96k",
    "MP3": "libmp3lame -b:a 96k",
    "opus": "libopus -b:a 64k",
    "FLAC": "flac -strict -2",
    "AC3": "ac3 -b:a 128k",
    "EAC-3": "eac3 -b:a 128k",
}
Sample = tuple[list[TrackInfo], list[Packet]]


@functools.cache
def sample(
    video: str = "H264",
    audio: str = "AAC",
    *,
    rate: str = "25",
    sample_rate_hz: int = 48000,
    channels: int = 2,
    size: str = "320x180",
    seconds: int = 3,
    keyframe: int = 25,
) -> Sample:
    """Return tracks and packets, in order of decode time from about one second on; "" leaves a kind of track out."""
    inputs: list[str] = []
    encoders: list[str] = []
    if video:
        inputs += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]
        encoders += ["-c:v", *VIDEO_ENCODERS[video].split(), "-pix_fmt", "yuv420p", "-g", str(keyframe)]
    if audio:
        inputs += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate={sample_rate_hz}:duration={seconds}"]
        encoders += ["-c:a", *AUDIO_ENCODERS[audio].split(), "-ar", str(sample_rate_hz), "-ac", str(channels)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        options = ["-video_track_timescale", "90000", "-f", "mp4", str(path)]
        run(["ffmpeg", "-v", "error", "-y", *inputs, *encoders, *options])
        return read_sample(path)


def run(command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; raise with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr[-3000:].decode(errors='replace')}")
    return done


def read_sample(path: Path, shift_us: int = 1_000_000) -> Sample:
    """Return the tracks and packets of a file, all times later by shift_us."""
    with av.open(str(path)) as container:
        streams = list(container.streams)
        packets = [_packet(packet, shift_us) for packet in container.demux(*streams) if packet.dts is not None]
        tracks = [_info(stream, next(p for p in packets if p.track == stream.index)) for stream in streams]
    packets.sort(key=lambda packet: (packet.dts_us, packet.track))
    return tracks, packets


def _packet(packet: Any, shift_us: int) -> Packet:
    dts_us = round(Fraction(packet.dts) * packet.time_base * 1_000_000)
    pts_us = round(Fraction(packet.pts) * packet.time_base * 1_000_000)
    keyframe = bool(packet.is_keyframe) or packet.stream.type == "audio"
    return Packet(packet.stream.index, dts_us + shift_us, pts_us - dts_us, keyframe, bytes(packet))


def _info(stream: Any, first: Packet) -> TrackInfo:
    context = stream.codec_context
    codec = NAMES[context.name]
    init_data = b"" if codec in ("MP3", "AC3", "EAC-3", "VP8", "VP9") else bytes(context.extradata or b"")
    if stream.type == "video":
        rate_mhz = round((stream.average_rate or stream.base_rate or 0) * 1000)
        track = TrackInfo(VIDEO, codec, init_data, width=context.width, height=context.height, frame_rate_mhz=rate_mhz)
    else:
        track = TrackInfo(AUDIO, codec, init_data, sample_rate_hz=context.sample_rate, channels=context.channels)
    return codecs.complete(track, first.payload)


def mux(tracks: Sequence[TrackInfo], packets: Sequence[Packet]) -> bytes:
    """Return a whole file: the header and all packets."""
    muxer = Mp4FragmentMuxer(tracks, LiveMovie())
    for packet in packets:
        muxer.write(packet)
    return muxer.header() + muxer.take_output()


def probe_packets(path: Path) -> list[dict[str, Any]]:
    """Return ffprobe's list of the packets of a file, with hashes of their payload."""
    options = ["-show_packets", "-show_data_hash", "MD5", "-of", "json"]
    done = run(["ffprobe", "-v", "warning", *options, str(path)])
    if done.stderr:
        raise AssertionError(f"ffprobe says of {path.name}: {done.stderr.decode(errors='replace')}")
    found: list[dict[str, Any]] = json.loads(done.stdout)["packets"]
    return found
