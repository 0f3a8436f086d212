"""What every on-demand output has in common: exact lengths and ranges where they can be known, and the parameters of all URLs."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path

import pytest

from tests.support.hls_client import record_hls
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenMedia, read_media
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
PRIMED = Sample("primed", BFRAMES, seconds=12, keyframe_s=2, bit_rate="2500k")
SOUNDS: Mapping[str, tuple[str, ...]] = {
    "mp3": ("-c:a", "libmp3lame"),
    "flac": ("-c:a", "flac"),
    "wav": ("-c:a", "pcm_s16le"),
}
# What has a length beforehand. The others depend on what is in the packets.
MEASURED = (
    "/film.flv",
    "/film.mp4",
    "/film.aac",
    "/mp3.mp3",
    "/flac.flac",
    "/wav.wav",
    "/film.flv?video=none",
)
STREAMED = ("/film.ts", "/film.mkv", "/film.h264", "/wav.mkv")


@pytest.fixture(scope="module")
def primed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MP4 whose sound begins before zero, with an edit list over that, as ffmpeg makes them."""
    path = tmp_path_factory.mktemp("primed") / "primed.mp4"
    sound = ("-map", "0:v", "-map", "0:a", "-c:v", "copy", "-c:a", "aac")
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(PRIMED.flv()), *sound, str(path)], 60)
    return path


@pytest.fixture(scope="module")
def vod(tmp_path_factory: pytest.TempPathFactory, primed: Path) -> Iterator[MistServer]:
    folder = tmp_path_factory.mktemp("lengths")
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=40", "-ac", "2")
    sources = {"film": {"source": str(FILM.flv())}}
    for name, codec in SOUNDS.items():
        path = folder / f"tone.{name}"
        run([find_tool("ffmpeg"), "-v", "error", *tone, *codec, str(path)], 60)
        sources[name] = {"source": str(path)}
    sources["primed"] = {"source": str(primed)}
    with MistServer(streams=sources) as server:
        for name in sources:  # all indexes are there from here on
            server.get(f"/{name}.mkv", timeout_s=30)
        yield server


def ask(server: MistServer, path: str, method: str = "GET", **headers: str) -> tuple[int, Message[str, str], bytes]:
    request = urllib.request.Request(f"{server.http_url}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize("path", MEASURED)
def test_a_length_is_exact(vod: MistServer, path: str) -> None:
    _, headers, whole = ask(vod, path)
    assert int(headers["Content-Length"]) == len(whole) > 100_000 and headers["Accept-Ranges"] == "bytes"
    code, headers, nothing = ask(vod, path, "HEAD")
    assert (code, int(headers["Content-Length"]), nothing) == (200, len(whole), b"")
    size = len(whole)
    for begin, end in ((0, 0), (3, 900), (70_000, 90_000), (5, size - 1), (size - 1, size - 1), (size // 2, size - 2)):
        code, headers, part = ask(vod, path, Range=f"bytes={begin}-{end}")
        assert (code, headers["Content-Range"]) == (206, f"bytes {begin}-{end}/{size}")
        assert part == whole[begin : end + 1], (begin, end)
    assert ask(vod, path, Range="bytes=-100")[2] == whole[-100:]
    resumed = ask(vod, path, Range="bytes=100-", **{"If-Range": '"of-another-server"'})
    assert (resumed[0], resumed[2]) == (200, whole)
    code, headers, _ = ask(vod, path, Range=f"bytes={size}-")
    assert (code, headers["Content-Range"]) == (416, f"bytes */{size}")
    part_path = path + ("&" if "?" in path else "?") + "start=9000&stop=21000"
    _, headers, part = ask(vod, part_path)
    assert int(headers["Content-Length"]) == len(part) < size * 0.6
    assert ask(vod, part_path, Range="bytes=1000-")[2] == part[1000:]


def test_sound_that_begins_before_zero_is_served_whole(vod: MistServer, primed: Path, tmp_path: Path) -> None:
    source = read_media(primed)
    assert source.of("audio")[0].dts_us < 0
    for path in ("/primed.mp4", "/primed.mp4?audio=none", "/primed.mp4?start=4000", "/primed.mp4?stop=9000"):
        _, headers, whole = ask(vod, path)
        assert int(headers["Content-Length"]) == len(whole) > 1 << 20
        middle = len(whole) // 3
        assert ask(vod, path, Range=f"bytes={middle}-")[2] == whole[middle:]
        assert ask(vod, path, Range=f"bytes={middle}-{middle + 70_000}")[2] == whole[middle : middle + 70_001]
    seen = fetch(vod, "mp4", "", tmp_path / "whole.mp4", "primed")
    for kind in ("video", "audio"):
        assert [one.digest for one in seen.of(kind)] == [one.digest for one in source.of(kind)], kind


@pytest.mark.parametrize("path", STREAMED)
def test_an_unknown_length_is_not_told(vod: MistServer, path: str) -> None:
    code, headers, data = ask(vod, path, Range="bytes=100-")
    assert code == 200 and headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in headers and data
    code, headers, _ = ask(vod, path, "HEAD")
    assert code == 200 and "Content-Length" not in headers


@pytest.mark.tools("curl", "flac")
def test_downloads_are_resumed(vod: MistServer, tmp_path: Path) -> None:
    for path in ("/film.flv", "/flac.flac"):
        whole = ask(vod, path)[2]
        target = tmp_path / "resumed"
        target.write_bytes(whole[: len(whole) // 3])
        run([find_tool("curl"), "-sSf", "-C", "-", "-o", str(target), f"{vod.http_url}{path}"], 30)
        assert target.read_bytes() == whole, path
    run([find_tool("flac"), "-t", "-s", str(target)], 30)


def test_wav_says_its_size(vod: MistServer) -> None:
    data = vod.get("/wav.wav")
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    begin = data.index(b"data") + 8
    assert int.from_bytes(data[begin - 4 : begin], "little") == len(data) - begin


# -- parameters of all outputs

OUTPUTS = ("flv", "ts", "mp4", "mkv", "hls", "aac")  # byte streams have no times
KINDS = {"aac": ("audio",)}
END_S = 40.0
QUERIES = {
    "start=9000": (8.0, 30.0),
    "stop=3000": (0.0, 3.0),
    "start=8000&stop=15000": (8.0, 15.0),
    "start=5000&duration=4": (4.0, 9.0),
    "duration=4": (0.0, 4.0),
    "startunix=-1": (0.0, 30.0),  # the file knows no wall clock
    "stopunix=5": (0.0, 30.0),
}


def fetch(server: MistServer, output: str, query: str, target: Path, stream: str = "film") -> SeenMedia:
    if output == "hls":
        record_hls(f"{server.http_url}/hls/{stream}/index.m3u8?{query}", target, seconds=3600)
    else:
        target.write_bytes(server.get(f"/{stream}.{output}?{query}", timeout_s=30))
    return read_media(target)


@pytest.mark.parametrize("output", OUTPUTS)
def test_times_mean_the_same_everywhere(vod: MistServer, tmp_path: Path, output: str) -> None:
    """A start is the keyframe at it or before it. HLS has whole segments."""
    source = read_media(FILM.flv())
    for query, (from_s, to_s) in QUERIES.items():
        seen = fetch(vod, output, query, tmp_path / f"part.{output}")
        packets = source.of("audio" if output == "aac" else "video")
        if output == "aac" and query.startswith("start="):  # each of its packets is a keyframe
            asked_us = int(query[6:].partition("&")[0]) * 1000
            first = [one.dts_us for one in packets if one.dts_us <= asked_us][-1]
            later = next(one.dts_us for one in packets if one.dts_us >= asked_us)
            from_s = (later if asked_us % 2_000_000 == 0 else first) / 1e6  # no further back than its span
        to_s = -(-to_s // 2) * 2 if output == "hls" else END_S if to_s == 30.0 else to_s
        wanted = [one.digest for one in packets if from_s * 1e6 <= one.dts_us < to_s * 1e6]
        got = [one.digest for one in seen.of("audio" if output == "aac" else "video")]
        if output == "mkv":  # whose first packets have no decode time
            assert got == wanted[-len(got) :] and len(got) >= len(wanted) - 2, query
        else:
            assert got == wanted, query


@pytest.mark.parametrize("output", OUTPUTS)
def test_tracks_are_chosen_everywhere(vod: MistServer, tmp_path: Path, output: str) -> None:
    kinds = KINDS.get(output, ("video", "audio"))
    for kind in kinds:
        other = "audio" if kind == "video" else "video"
        seen = fetch(vod, output, f"{other}=none&stop=4000", tmp_path / f"one.{output}")
        assert seen.of(kind) and not seen.of(other)


@pytest.mark.parametrize("output", [output for output in OUTPUTS if output != "hls"])
def test_names_and_rates_are_known_everywhere(vod: MistServer, output: str) -> None:
    """A rate makes a viewer wait, and does not change what it gets."""
    code, headers, data = ask(vod, f"/film.{output}?dl=my.name&stop=6000")
    assert code == 200 and headers["Content-Disposition"] == 'attachment; filename="my.name"'
    began = time.monotonic()
    paced = ask(vod, f"/film.{output}?rate=10&buffer=0&stop=6000")[2]
    assert time.monotonic() - began > 0.2
    assert paced and (output == "mp4" or paced == data)
