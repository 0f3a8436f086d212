"""A file of over 4 GiB: its MP4 has an exact length, ranges, and places of 64 bits that lead to what was asked for."""

from __future__ import annotations

import os
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList
from mist.formats.mp4_file import make_layout
from mist.formats.mp4_movie import make_demuxer
from tests.support.flv_files import VIDEO_TRACK
from tests.support.server import MistServer

PICTURES = 4_600
PICTURE_BYTES = 1 << 20
FRAME_US = 40_000
GOP = 25
FOUR_GIB = 1 << 32


def picture(number: int) -> bytes:
    """Return what a picture begins with: the length of its NAL unit, its type, its number."""
    return struct.pack(">IBI", PICTURE_BYTES - 4, 0x65 if number % GOP == 0 else 0x41, number)


@pytest.fixture(scope="module")
def vod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MistServer]:
    """Serve a sparse file, of whose pictures only the beginnings are there."""
    path: Path = tmp_path_factory.mktemp("large") / "large.mp4"
    layout = make_layout([VIDEO_TRACK])
    for number in range(PICTURES):
        layout.add(0, number * FRAME_US, 0, PICTURE_BYTES, number % GOP == 0)
    layout.finish()
    head = layout.header()
    with path.open("wb") as file:
        file.write(head)
        file.truncate(layout.total_bytes)
        for number in range(PICTURES):
            os.pwrite(file.fileno(), picture(number), len(head) + number * PICTURE_BYTES)
    try:
        with MistServer(streams={"large": {"source": str(path)}}) as server:
            yield server
    finally:
        path.unlink()


def part(server: MistServer, begin: int, end: int) -> tuple[bytes, int]:
    """Return the bytes of a range, and how many the whole has."""
    request = urllib.request.Request(f"{server.http_url}/large.mp4", headers={"Range": f"bytes={begin}-{end - 1}"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 206
        whole = int(reply.headers["Content-Range"].rpartition("/")[2])
        data: bytes = reply.read()
        assert len(data) == min(end, whole) - begin
        return data, whole


@pytest.mark.timeout(300)
def test_a_player_seeks_behind_four_gigabytes(vod: MistServer) -> None:
    request = urllib.request.Request(f"{vod.http_url}/large.mp4", method="HEAD")
    with urllib.request.urlopen(request, timeout=60) as reply:
        size = int(reply.headers["Content-Length"])
    assert size > PICTURES * PICTURE_BYTES > FOUR_GIB
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    while not demuxer.ready:
        position, count = demuxer.want() or (0, 0)
        data, whole = part(vod, position, position + count)
        assert whole == size
        demuxer.feed(data)
    keys = demuxer.keys(0)
    assert keys[-2] > FOUR_GIB > keys[1]
    header_bytes = keys[1]
    assert size == header_bytes + PICTURES * PICTURE_BYTES  # the last picture ends where the file does
    near = FOUR_GIB // PICTURE_BYTES
    for number in (0, near - 1, near, near + 1, PICTURES - 2, PICTURES - 1):
        at = header_bytes + number * PICTURE_BYTES
        assert part(vod, at, at + 9)[0] == picture(number), number
        assert part(vod, at - 5, at + 9)[0].endswith(picture(number)), number
    demuxer.seek(4_500 * FRAME_US, 0)
    sink.take()
    found: list[bytes] = []
    while not found:
        position, _ = demuxer.want() or (0, 0)
        demuxer.feed(part(vod, position, position + PICTURE_BYTES)[0])
        found = [packet.payload for packet in sink.take()]
    assert found[0][:9] == picture(4_500)
    across = header_bytes + (near + 1) * PICTURE_BYTES - FOUR_GIB
    data, _ = part(vod, FOUR_GIB - 10, FOUR_GIB + across + 9)
    assert data[-9:] == picture(near + 1)
