"""Files of every format, cut at every byte of their beginning: the input plays what is there, or names file and byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList
from mist.errors import RemoteProtocolError
from mist.formats.containers import by_name
from mist.inputs.base.file_demuxer import FileDemuxer
from mist.net.local_file import LocalFile
from mist.stream.side_texts import SideTexts
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

HEADER_BYTES = 1400
PICTURES = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
CASES = {
    "aac": (*SOUND, "-c:a", "aac"),
    "ac3": (*SOUND, "-c:a", "ac3"),
    "flac": (*SOUND, "-c:a", "flac"),
    "flv": (*PICTURES, *SOUND, *X264, "-c:a", "aac"),
    "h264": (*PICTURES, *X264),
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


async def packets_of(path: Path, name: str) -> int:
    """Read a file as its input does for the index, and return how many packets it has."""
    container = by_name(name)
    assert container is not None
    with LocalFile(str(path)) as file:
        assert isinstance(file, LocalFile)
        scan = FileDemuxer(file, container)
        sink = PacketList()
        await scan.start(SideTexts())
        scan.index_into(sink)
        while await scan.step():
            pass
        return len(sink.take())


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_ends_in_its_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"film.{name}"
    run([find_tool("ffmpeg"), "-v", "error", *CASES[name], "-t", "0.5", str(path)], 60)
    whole = asyncio.run(packets_of(path, name))
    assert whole
    full_bytes = path.stat().st_size
    refused = 0
    for size in range(min(HEADER_BYTES, full_bytes) - 1, -1, -1):
        os.truncate(path, size)
        try:
            assert asyncio.run(packets_of(path, name)) <= whole, size
        except RemoteProtocolError as error:
            refused += 1
            assert str(path) in str(error), (size, error)
            assert error.offset is not None and 0 <= error.offset <= full_bytes, (size, error)
    assert refused, "the empty file has no tracks"
