"""The comparer of packets must find what is wrong, else it proves nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.media import BFRAMES, Sample
from tests.support.packets import Mismatch, SeenMedia, compare, read_media
from tests.support.tools import find_tool, run

SAMPLE = Sample("compare", BFRAMES, seconds=3)
pytestmark = pytest.mark.tools("ffmpeg")


@pytest.fixture(scope="module")
def source() -> SeenMedia:
    return read_media(SAMPLE.flv())


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_formats_compare_equal(source: SeenMedia, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"copy.{suffix}"
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(SAMPLE.flv()), "-c", "copy", str(target)], 20)
    compare(source, read_media(target), tolerance_us=1000)


def test_a_part_compares_equal(source: SeenMedia) -> None:
    part = [one for one in source.packets if 1_000_000 <= one.dts_us < 2_000_000]
    compare(source, SeenMedia(source.codecs, part), tolerance_us=0)


def test_what_is_wrong_is_found(source: SeenMedia) -> None:
    packets = source.packets
    middle = len(packets) // 2
    one = packets[middle]
    wrong = {
        "left out": packets[:middle] + packets[middle + 1 :],
        "twice": [*packets[:middle], one, *packets[middle:]],
        "late": [*packets[:middle], dataclasses.replace(one, dts_us=one.dts_us + 20_000), *packets[middle + 1 :]],
        "other content": [*packets[:middle], dataclasses.replace(one, digest="0"), *packets[middle + 1 :]],
        "no audio": [p for p in packets if p.kind == "video"],
        "audio moved": [
            p if p.kind == "video" else dataclasses.replace(p, dts_us=p.dts_us + 5_000, pts_us=p.pts_us + 5_000)
            for p in packets
        ],
        "key flags": [dataclasses.replace(p, key=True) for p in packets],
        "offsets": [dataclasses.replace(p, pts_us=p.dts_us) for p in packets],
    }
    for what, changed in wrong.items():
        with pytest.raises(Mismatch):
            compare(source, SeenMedia(source.codecs, changed), tolerance_us=1000)
            pytest.fail(f"not found: {what}")
