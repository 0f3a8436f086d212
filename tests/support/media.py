"""Media made at test time with ffmpeg, and kept in build/test-media for the next run."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import find_tool, run

CACHE = Path(__file__).resolve().parents[2] / "build" / "test-media"
ENCODE_TIMEOUT_S = 120

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
NO_BFRAMES = (*H264, "-bf", "0")
BFRAMES = (*H264, "-bf", "3", "-b_strategy", "0")
HEVC = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=error:info=0:repeat-headers=0",
    "-pix_fmt",
    "yuv420p",
)
AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "rc=0", "-pix_fmt", "yuv420p")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1")
AAC = ("-c:a", "aac", "-b:a", "96k")
MP3 = ("-c:a", "libmp3lame", "-b:a", "96k")
OPUS = ("-c:a", "libopus", "-b:a", "64k")
FLAC = ("-c:a", "flac")
AC3 = ("-c:a", "ac3", "-b:a", "128k")
EAC3 = ("-c:a", "eac3", "-b:a", "128k")


@dataclass(frozen=True, slots=True)
class Sample:
    """What to make: a moving test picture with a clock, and a tone with noise so that no two packets are alike.

    video, audio: ffmpeg's encoder arguments, empty for none. tool: which ffmpeg makes and sends it ("ffmpeg" is Debian's,
    "ffmpeg-new" the one in the wheel, which knows enhanced RTMP). keyframe_s: distance of keyframes.
    """

    name: str
    video: tuple[str, ...] = NO_BFRAMES
    audio: tuple[str, ...] = AAC
    rate: str = "25"
    sample_rate: int = 48000
    channels: int = 2
    size: str = "320x180"
    seconds: int = 10
    keyframe_s: float = 1.0
    tool: str = "ffmpeg"
    bit_rate: str = ""
    seam_us: int = 0  # by how much the source's own times may have to be repaired

    @property
    def frames_per_second(self) -> float:
        over, _, under = self.rate.partition("/")
        return int(over) / int(under or 1)

    def command(self, target: Path) -> list[str]:
        """Return the command that makes it."""
        inputs: list[str] = []
        codecs: list[str] = []
        if self.video:
            inputs += ["-f", "lavfi", "-i", f"testsrc2=size={self.size}:rate={self.rate}"]
            distance = round(self.frames_per_second * self.keyframe_s)
            codecs += [*self.video, "-g", str(distance), "-keyint_min", str(distance)]
            if self.video[:2] == ("-c:v", "libx264"):
                codecs += ["-sc_threshold", "0"]
            if self.bit_rate:
                codecs += [
                    "-b:v",
                    self.bit_rate,
                    "-minrate",
                    self.bit_rate,
                    "-maxrate",
                    self.bit_rate,
                    "-bufsize",
                    self.bit_rate,
                ]
        if self.audio:
            tone = f"sine=frequency=440:sample_rate={self.sample_rate}:beep_factor=4"
            noise = f"anoisesrc=amplitude=0.1:seed=7:sample_rate={self.sample_rate}"
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[self.channels]
            mix = f"{tone}[a];{noise}[b];[a][b]amix,aformat=channel_layouts={layout}"
            inputs += ["-f", "lavfi", "-i", mix]
            codecs += [*self.audio, "-ar", str(self.sample_rate)]
        return [
            find_tool(self.tool),
            *("-hide_banner", "-v", "error", "-y"),
            *inputs,
            *codecs,
            *("-t", str(self.seconds), "-flags", "+bitexact", "-fflags", "+bitexact", "-f", "matroska", str(target)),
        ]

    def file(self) -> Path:
        """Return the path of the sample, making it when it is not there yet."""
        return cached(self.command(Path("target")), ".mkv", lambda target: self.command(target))

    def flv(self) -> Path:
        """Return the sample as the FLV file that holds what ffmpeg sends by RTMP, message for message."""
        source = self.file()

        def command(target: Path) -> list[str]:
            fixed = ("-hide_banner", "-v", "error", "-y", "-i", str(source), "-c", "copy", "-f", "flv")
            return [find_tool(self.tool), *fixed, str(target)]

        return cached(command(Path("target")), ".flv", command)

    def publish_command(self, url: str, *, loop: bool = False, realtime: bool = True) -> list[str]:
        """Return the command that sends it to a server by RTMP."""
        return [
            find_tool(self.tool),
            *("-hide_banner", "-v", "warning"),
            *(("-re",) if realtime else ()),
            *(("-stream_loop", "-1") if loop else ()),
            *("-i", str(self.file()), "-c", "copy", "-f", "flv", url),
        ]


def cached(key: list[str], suffix: str, command: object) -> Path:
    name = hashlib.sha256("\0".join(key[1:]).encode()).hexdigest()[:16]
    target = CACHE / f"{os.path.basename(key[0])}-{name}{suffix}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with alone(CACHE / f".{name}.lock"):
        if not target.exists():
            work = CACHE / f".{name}{suffix}"
            assert callable(command)
            run(command(work), ENCODE_TIMEOUT_S)
            work.rename(target)
    return target


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
