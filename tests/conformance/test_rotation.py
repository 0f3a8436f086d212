"""Pictures that are to be turned, as telephones record them: MP4's display matrix and Matroska's pose, read by others as what it was."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from mist.formats.containers import by_name
from mist.formats.mp4_boxes import display_matrix, rotation_of
from mist.formats.tracks import H264, VIDEO, TrackInfo
from tests.support.format_matrix import convert_file
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffmpeg-new", "mediainfo")

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rotation") / "upright.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    run([find_tool("ffmpeg"), "-v", "error", *picture, str(path)], TIMEOUT_S)
    return path


def turned(upright: Path, degrees: int) -> Path:
    """Return the film as a recorder that was held otherwise writes it: degrees clockwise."""
    path = upright.with_name(f"turned-{degrees}.mp4")
    told = ("-display_rotation", str(-degrees))
    run([find_tool("ffmpeg-new"), "-v", "error", "-y", *told, "-i", str(upright), "-c", "copy", str(path)], TIMEOUT_S)
    return path


def seen_by_ffmpeg(path: Path) -> int:
    """Return by how many degrees FFmpeg turns the pictures, clockwise."""
    command = [find_tool("ffmpeg-new"), "-hide_banner", "-i", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stderr
    found = re.search(r"rotation of (-?[\d.]+) degrees", told)
    return -round(float(found[1])) % 360 if found else 0


def seen_by_mediainfo(path: Path) -> int:
    text = run([find_tool("mediainfo"), "--Inform=Video;%Rotation%", str(path)], TIMEOUT_S).stdout.strip()
    return round(float(text or 0))


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("formats", [("mp4", "mp4"), ("mp4", "fmp4"), ("mp4", "mkv"), ("mp4", "dtsc", "mkv", "mp4")])
def test_pictures_stay_turned(upright: Path, tmp_path: Path, formats: tuple[str, ...], degrees: int) -> None:
    path = turned(upright, degrees)
    assert seen_by_ffmpeg(path) == seen_by_mediainfo(path) == degrees
    for read, written in pairwise(formats):
        target = tmp_path / f"{read}.{written}"
        convert_file(path, read, target, written)
        path = target
    assert seen_by_ffmpeg(path) == degrees
    if path.suffix == ".mp4":
        assert seen_by_mediainfo(path) == degrees
    row = by_name(path.suffix[1:]) if path.suffix != ".fmp4" else by_name("mp4")
    assert row is not None and row.make_demuxer is not None
    demuxer, data = row.make_demuxer(), path.read_bytes()
    while not demuxer.ready and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    assert [info.rotation_degrees for info in demuxer.tracks] == [degrees]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_matrix_means_what_it_was_made_of(degrees: int) -> None:
    data = display_matrix(TrackInfo(VIDEO, H264, width=1280, height=720, rotation_degrees=degrees))
    numbers = tuple(int.from_bytes(data[at : at + 4], "big", signed=True) for at in range(0, 36, 4))
    assert rotation_of(numbers) == degrees
    corners = {(x * numbers[0] + y * numbers[3] + numbers[6]) >> 16 for x in (0, 1280) for y in (0, 720)}
    assert min(corners) == 0
    assert rotation_of((-0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)) == 0  # a mirror
