"""Ogg, WAV and FLAC files as other programs write them, made at test time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import find_tool, run

MAKE_TIMEOUT_S = 60
SECONDS = 4


@dataclass(frozen=True, slots=True)
class AudioFile:
    """What to make: a file's name and the command, in which {tool}, {in} (a WAV file of 44100 Hz, stereo) and {out} are filled in."""

    name: str
    tool: str
    arguments: tuple[str, ...]

    def make(self, folder: Path) -> Path:
        """Make it in a folder and return its path."""
        target = folder / self.name
        values = {"in": str(folder / "in.wav"), "out": str(target)}
        if not Path(values["in"]).exists() and any("{in}" in one for one in self.arguments):
            _make_wav(Path(values["in"]))
        command = [find_tool(self.tool), *(one.format(**values) for one in self.arguments)]
        run(command, MAKE_TIMEOUT_S)
        return target


def _tones(rate: int, channels: int = 2) -> tuple[str, ...]:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    tone = f"sine=frequency=440:sample_rate={rate}:beep_factor=4"
    noise = f"anoisesrc=amplitude=0.1:seed=7:sample_rate={rate}"
    return ("-f", "lavfi", "-i", f"{tone}[a];{noise}[b];[a][b]amix,aformat=channel_layouts={layout}")


def _make_wav(target: Path) -> None:
    fixed = ("-hide_banner", "-v", "error", "-y", *_tones(44100), "-t", str(SECONDS), "-c:a", "pcm_s16le")
    run([find_tool("ffmpeg"), *fixed, str(target)], MAKE_TIMEOUT_S)


def by_ffmpeg(
    name: str, *codec: str, rate: int = 48000, channels: int = 2, video: str = "", tool: str = "ffmpeg"
) -> AudioFile:
    """Return a file of ffmpeg's. codec: its arguments. video: rate of a moving test picture in front, "" for none."""
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=160x90:rate={video}") if video else ()
    arguments = ("-hide_banner", "-v", "error", "-y", *picture, *_tones(rate, channels), *codec, "-t", str(SECONDS))
    return AudioFile(name, tool, (*arguments, "-flags", "+bitexact", "{out}"))


def by_gstreamer(name: str, *pipeline: str) -> AudioFile:
    """Return a file of a GStreamer pipeline, which ends in a muxer called mux."""
    return AudioFile(name, "gst-launch-1.0", ("-q", *pipeline, "mux.", "!", "filesink", "location={out}"))
