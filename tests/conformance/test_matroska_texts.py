"""Subtitles in Matroska: how long each is shown, from other programs and to them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mist.formats.subtitles import parse_cues
from tests.support.format_matrix import convert_file
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "mkvmerge")

TEXTS = """1
00:00:00,500 --> 00:00:01,250
short

2
00:00:01,250 --> 00:00:02,000
right behind

3
00:00:03,000 --> 00:00:09,000
long and
of two lines

4
00:00:11,000 --> 00:00:12,125
the last
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the texts, alone and beside a picture, as mkvmerge and ffmpeg write them."""
    made = tmp_path_factory.mktemp("texts")
    (made / "in.srt").write_text(TEXTS)
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=10:duration=13", "-c:v", "mpeg2video", "-c:s", "srt")
    ffmpeg = [find_tool("ffmpeg"), "-v", "error", "-i", str(made / "in.srt")]
    run([*ffmpeg, *picture, "-map", "1", "-map", "0", str(made / "ffmpeg.mkv")], 60)
    run([find_tool("mkvmerge"), "-q", "-o", str(made / "alone.mkv"), str(made / "in.srt")], 60)
    both = ["-S", str(made / "ffmpeg.mkv"), str(made / "in.srt")]
    run([find_tool("mkvmerge"), "-q", "-o", str(made / "mkvmerge.mkv"), *both], 60)
    return made


def cues(path: Path) -> list[tuple[int, int, str]]:
    return [(cue.start_us, cue.end_us, cue.text) for cue in parse_cues(path.read_bytes())]


@pytest.mark.parametrize("name", ["alone", "mkvmerge", "ffmpeg"])
@pytest.mark.parametrize("formats", [("mkv", "srt"), ("mkv", "mkv", "vtt"), ("mkv", "dtsc", "mkv", "srt")])
def test_texts_keep_their_ends(folder: Path, tmp_path: Path, name: str, formats: tuple[str, ...]) -> None:
    path = folder / f"{name}.mkv"
    for step, (read, written) in enumerate(pairwise(formats)):
        target = tmp_path / f"{step}.{written}"
        convert_file(path, read, target, written)
        path = target
    assert cues(path) == cues(folder / "in.srt")


def test_blocks_of_texts_say_how_long_they_are_shown(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "made.mkv"
    convert_file(folder / "mkvmerge.mkv", "mkv", target, "mkv")
    command = [find_tool("ffprobe"), "-v", "error", "-select_streams", "s", "-of", "csv=p=0", str(target)]
    said = run([*command, "-show_entries", "packet=pts_time,duration_time"], 60).stdout.decode().split()
    found = [tuple(float(value) for value in line.split(",")[:2]) for line in said]
    assert found == [(0.5, 0.75), (1.25, 0.75), (3.0, 6.0), (11.0, 1.125)]
    run([find_tool("mkvmerge"), "-q", "-o", str(tmp_path / "again.mkv"), str(target)], 60)
