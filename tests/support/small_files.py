"""Half a second of media in every format that mist reads by itself, and how an input reads it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mist.core.demuxer import PacketList
from mist.formats.containers import by_name
from mist.inputs.base.file_demuxer import FileDemuxer
from mist.net.local_file import LocalFile
from mist.stream.side_texts import SideTexts
from tests.support.tools import find_tool, run

PICTURES = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:info=0")
FILES = {
    "aac": (*SOUND, "-c:a", "aac"),
    "ac3": (*SOUND, "-c:a", "ac3"),
    "dtsc": (*PICTURES, *SOUND, *X264, "-c:a", "aac"),
    "flac": (*SOUND, "-c:a", "flac"),
    "flv": (*PICTURES, *SOUND, *X264, "-c:a", "aac"),
    "h264": (*PICTURES, *X264),
    "hevc": (*PICTURES, *X265),
    "ivf": (*PICTURES, "-c:v", "libvpx"),
    "m2v": (*PICTURES, "-c:v", "mpeg2video"),
    "mkv": (*PICTURES, *SOUND, *X264, "-c:a", "aac"),
    "mp3": (*SOUND, "-c:a", "libmp3lame"),
    "mp4": (*PICTURES, *X264, "-movflags", "faststart"),
    "ogg": (*SOUND, "-c:a", "libvorbis"),
    "ts": (*PICTURES, *SOUND, *X264, "-c:a", "aac"),
    "wav": (*SOUND, "-c:a", "pcm_s16le"),
    "webm": (*PICTURES, "-c:v", "libvpx"),
}


def small_file(folder: Path, name: str) -> Path:
    """Return a new file of a format."""
    path = folder / f"film.{name}"
    made = folder / "film.flv" if name == "dtsc" else path
    run([find_tool("ffmpeg"), "-v", "error", *FILES[name], "-t", "0.5", str(made)], 60)
    if made != path:
        run([sys.executable, "-m", "mist", "convert", str(made), str(path)], 60)
        made.unlink()
    return path


class Reading:
    """A file that is read as its input does for the index. Raises what that raises."""

    def __init__(self, file: LocalFile, scan: FileDemuxer) -> None:
        self.file = file
        self.scan = scan
        self.sink = PacketList()
        self.steps = 0
        self.packets = 0
        self.payload_bytes = 0

    async def step(self) -> bool:
        """Read a piece; False at the end."""
        more = await self.scan.step()
        self.steps += 1
        taken = self.sink.take()
        self.packets += len(taken)
        self.payload_bytes += sum(len(packet.payload) for packet in taken)
        return more

    async def to_the_end(self, most_steps: int = 1 << 30) -> int:
        """Read to the end, or so many pieces, and return how many packets there were."""
        while self.steps < most_steps and await self.step():
            pass
        return self.packets


@asynccontextmanager
async def reading(path: Path, *, index: bool = True) -> AsyncIterator[Reading]:
    """Open a file and read until its tracks are known. index: without payload, where the format has tables of its own."""
    container = by_name(path.suffix[1:])
    assert container is not None
    with LocalFile(str(path)) as file:
        assert isinstance(file, LocalFile)
        scan = FileDemuxer(file, container)
        await scan.start(SideTexts())
        found = Reading(file, scan)
        if index:
            scan.index_into(found.sink)
        else:
            scan.demuxer.attach(found.sink)
        yield found
