"""The clock of our transport streams as tstools see it: PCRs often enough, continuity counters without a gap, nothing late."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.format_matrix import Source, convert_file
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "tsreport")

CASES = (("H264", "AAC"), ("HEVC",), ("AAC",), ("MP3",), ("AC3",), ("EAC-3",), ("opus",))
MAX_PCR_GAP_TICKS = 3600  # 40 ms, which DVB asks for; ISO/IEC 13818-1 asks for 100 ms
MIN_DELAY_TICKS = 9000  # from a PCR to the decode time of what comes with it
LATE = re.compile(r"(?:PTS|PTS,DTS|DTS):\n\s+Minimum difference was (-?\d+)t")


@pytest.mark.parametrize("codecs", CASES, ids="+".join)
def test_the_clock_is_regular(tmp_path: Path, codecs: tuple[str, ...]) -> None:
    target = tmp_path / "film.ts"
    convert_file(Source("mkv", codecs).file(), "mkv", target, "ts")
    told = run([find_tool("tsreport"), "-b", "-q", str(target)], 60).stdout.decode()
    found = re.search(r"Bad \(>\.1s\) gaps: (\d+), Max gap: (\d+)t", told)
    assert found is not None and found[1] == "0" and int(found[2]) <= MAX_PCR_GAP_TICKS, told
    delays = [int(text) for text in LATE.findall(told)]
    assert len(delays) >= len(codecs) and min(delays) >= MIN_DELAY_TICKS, told
    assert re.findall(r"duplicate packets: (\d+)", told) == ["0"] * len(codecs), told
    assert "discontinuit" not in told.lower() and "###" not in told, told
