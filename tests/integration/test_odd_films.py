"""Films that other programs make in their rarer ways, as a running server plays them."""

from __future__ import annotations

import urllib.request
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.integration.conftest import MakeServer
from tests.support.packets import compare, read_media
from tests.support.players import play
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

SOURCES = (
    *("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=8"),
    *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=8"),
)
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "50", "-pix_fmt", "yuv420p")


def make(target: Path, *arguments: str) -> Path:
    run([find_tool("ffmpeg"), "-v", "error", "-y", *arguments, str(target)], 60)
    return target


def shown_us(path: Path) -> dict[str, list[int]]:
    """Return when packets are presented, of each type; those without a time are left out."""
    found: dict[str, list[int]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.size:
                found.setdefault(packet.stream.type, []).append(round(packet.pts * packet.time_base * 1_000_000))
    return found


def serve(make_server: MakeServer, path: Path) -> MistServer:
    return make_server(streams={"film": {"source": str(path)}})


def test_mp4_of_opus(make_server: MakeServer, tmp_path: Path) -> None:
    """How long its packets are is in themselves, which are not read for the index."""
    source = make(tmp_path / "opus.mp4", *SOURCES, *X264, "-c:a", "libopus")
    server = serve(make_server, source)
    for output in ("mp4", "ts", "flv"):
        seen = play(server, output, "film", tmp_path / f"out.{output}")
        missing = compare(read_media(source), seen, tolerance_us=1000)
        assert not any(before or after for before, after in missing.values()), (output, missing)


def test_mp4_with_subtitles_has_a_length(make_server: MakeServer, tmp_path: Path) -> None:
    """They are no part of the MP4 that viewers get, so what is read for their size need not be known."""
    texts = tmp_path / "texts.srt"
    texts.write_text("1\n00:00:01,000 --> 00:00:03,000\nHello <i>you</i>\n\n2\n00:00:05,500 --> 00:00:06,000\nTwo\n")
    source = make(tmp_path / "film.mp4", *SOURCES, "-i", str(texts), *X264, "-c:a", "aac", "-c:s", "mov_text")
    server = serve(make_server, source)
    seen = play(server, "mp4", "film", tmp_path / "out.mp4")
    missing = compare(read_media(source), seen, tolerance_us=1)
    assert not any(before or after for before, after in missing.values()), missing
    whole = (tmp_path / "out.mp4").read_bytes()
    request = urllib.request.Request(server.play_url("mp4", "film"), headers={"Range": "bytes=5000-5999"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert (reply.status, reply.headers["Content-Range"]) == (206, f"bytes 5000-5999/{len(whole)}")
        assert reply.read() == whole[5000:6000]


@pytest.mark.parametrize("start", ["", "?start=4500"])
def test_what_is_before_zero_is_not_in_matroska(make_server: MakeServer, tmp_path: Path, start: str) -> None:
    """An MP4 that was cut between its keyframes has decode times up to a keyframe interval before zero; Matroska knows none."""
    whole = make(tmp_path / "whole.mp4", *SOURCES, *X264, "-c:a", "aac")
    cut = make(tmp_path / "cut.mp4", "-ss", "1.3", "-i", str(whole), "-c", "copy", "-avoid_negative_ts", "disabled")
    server = serve(make_server, cut)
    times: dict[str, dict[str, list[int]]] = {}
    for output in ("ts", "mkv"):
        target = tmp_path / f"out.{output}"
        target.write_bytes(server.get(f"/film.{output}{start}"))
        times[output] = shown_us(target)
    moved = {kind: times["mkv"][kind][-1] - times["ts"][kind][-1] for kind in ("video", "audio")}
    assert moved["video"] == pytest.approx(moved["audio"], abs=2000)
    assert len(times["mkv"]["video"]) == len(times["ts"]["video"])
    assert min(times["mkv"]["video"]) >= 0
    assert [after - before for before, after in pairwise(sorted(times["mkv"]["video"]))] == pytest.approx(
        [40_000] * (len(times["mkv"]["video"]) - 1), abs=2000
    )
