"""Short pieces of real media, encoded by ffmpeg when a test asks for them, as tracks and packets."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from mist.core.packet import Packet
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo

CODECS = {
    "h264": "H264",
    "hevc": "HEVC",
    "av1": "AV1",
    "libdav1d": "AV1",
    "vp9": "VP9",
    "aac": "AAC",
    "mp3": "MP3",
    "mp3float": "MP3",
    "ac3": "AC3",
    "eac3": "EAC-3",
    "opus": "opus",
    "libopus": "opus",
    "flac": "FLAC",
}
Sample = tuple[list[TrackInfo], list[Packet]]


def have_ffmpeg() -> bool:
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


@functools.cache
def encode(arguments: str, container: str = "mp4") -> bytes:
    """Return what ffmpeg makes of arguments such as "-f lavfi -i testsrc=d=2 -c:v libx264"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sample.{container}"
        command = ["ffmpeg", "-v", "error", "-y", *arguments.split(), "-f", container, str(path)]
        subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
        return path.read_bytes()


def picture(
    *,
    seconds: float = 6,
    rate: str = "25",
    size: str = "160x120",
    gop: int = 50,
    codec: str = "libx264",
    options: str = "-bf 2 -preset ultrafast",
) -> str:
    """Return ffmpeg arguments for a moving picture."""
    source = f"-f lavfi -i testsrc2=s={size}:r={rate}:d={seconds}"
    keys = f"-g {gop} -keyint_min {gop} -sc_threshold 0" if codec == "libx264" else f"-g {gop}"
    return f"{source} -c:v {codec} {keys} -pix_fmt yuv420p {options}"


def picture_and_tone(
    *, rate_hz: int = 44100, channels: int = 2, audio: str = "aac", audio_options: str = "-b:a 64k", **video: Any
) -> str:
    """Return ffmpeg arguments for a moving picture with a tone."""
    seconds = video.get("seconds", 6)
    source, _, rest = picture(**video).partition(" -c:v")
    tone = f"-f lavfi -i sine=d={seconds}:r={rate_hz}:f=440"
    return f"{source} {tone} -c:v{rest} -c:a {audio} -ac {channels} {audio_options}"


def tone(*, seconds: float = 6, rate_hz: int = 44100, audio: str = "aac", options: str = "-b:a 64k -ac 2") -> str:
    return f"-f lavfi -i sine=d={seconds}:r={rate_hz}:f=440 -c:a {audio} {options}"


def read_sample(data: bytes) -> Sample:
    """Return the tracks of a container file and its packets by decode time, from time 0 on, in the project's form."""
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(data)
        file.flush()
        with av.open(file.name) as container:
            streams = list(container.streams)
            tracks = [_info(stream) for stream in streams]
            packets = [_packet(packet) for packet in container.demux(*streams) if packet.dts is not None]
    packets.sort(key=lambda packet: packet.dts_us)
    return tracks, packets


@functools.cache
def sample(arguments: str, container: str = "mp4") -> Sample:
    """Encode and read in one step."""
    return read_sample(encode(arguments, container))


def shifted(packets: Sequence[Packet], by_us: int) -> list[Packet]:
    """Return the packets at other times."""
    return [Packet(p.track, p.dts_us + by_us, p.offset_us, p.keyframe, p.payload) for p in packets]


def _packet(packet: Any) -> Packet:
    base = packet.time_base

    def microseconds(ticks: int) -> int:
        seconds: Fraction = Fraction(ticks) * base
        return round(seconds * 1_000_000)

    dts_us = microseconds(packet.dts)
    audio = packet.stream.type == "audio"
    offset_us = 0 if audio or packet.pts is None else microseconds(packet.pts) - dts_us
    return Packet(packet.stream.index, dts_us, offset_us, bool(packet.is_keyframe) or audio, bytes(packet))


def _info(stream: Any) -> TrackInfo:
    context = stream.codec_context
    init = bytes(context.extradata or b"")
    codec = CODECS[context.name]
    if stream.type == "video":
        rate = stream.average_rate or stream.base_rate
        return TrackInfo(
            VIDEO, codec, init, 1, width=context.width, height=context.height, frame_rate_mhz=round((rate or 0) * 1000)
        )
    if codec in ("MP3", "AC3", "EAC-3"):
        init = b""
    return TrackInfo(AUDIO, codec, init, 2, sample_rate_hz=context.sample_rate, channels=context.channels)
