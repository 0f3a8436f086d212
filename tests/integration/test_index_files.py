"""What lies beside a file that the running server plays: its index in a .dtsh, and subtitles."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mist.formats.dtsh import parse_dtsh
from mist.stream.layouts import OUTLINE_BYTES
from tests.support.flv_files import flv_file, interleaved
from tests.support.foreign_dtsh import Film, dtsh
from tests.support.media import BFRAMES, Sample
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
PATHS = ("/film.flv", "/film.mp4", "/film.ts?start=9000", "/film.mp4?start=4000&stop=9000")
SUBTITLES = "1\n00:00:03,000 --> 00:00:05,000\nGuten Tag\n\n2\n00:00:12,500 --> 00:00:14,000\nAuf Wiedersehen\n"


def make_film(folder: Path, suffix: str = "flv") -> Path:
    """Copy the film into a folder, as it was an hour ago."""
    path = folder / f"film.{suffix}"
    if suffix == "flv":
        shutil.copy(FILM.flv(), path)
    else:
        run([find_tool("ffmpeg"), "-v", "error", "-i", str(FILM.flv()), "-c", "copy", str(path)], 60)
    age(path)
    return path


def age(path: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def everything(server: MistServer) -> list[bytes]:
    return [server.get(path, timeout_s=30) for path in PATHS]


def index_beside(path: Path) -> Path:
    index = Path(f"{path}.dtsh")
    wait_until(index.exists, 10, "the index")
    return index


def streams(path: Path) -> dict[str, Any]:
    return {"film": {"source": str(path)}}


@pytest.mark.parametrize("suffix", ["flv", "ts", "mp4", "mkv"])
def test_the_next_start_takes_the_index_and_plays_the_same(tmp_path: Path, suffix: str) -> None:
    film = make_film(tmp_path, suffix)
    with MistServer(streams=streams(film)) as server:
        first = everything(server)
        written = index_beside(film).read_bytes()
    index = parse_dtsh(written)
    assert {track.info.codec for track in index.tracks} == {"H264", "AAC"}
    assert [len(track.keys().times_ms) for track in index.tracks if track.info.type == "video"] == [15]
    with MistServer(streams=streams(film)) as server:
        assert everything(server) == first
        server.wait_log(f"from {film}.dtsh", 10)
        os.kill(server.processes_titled("mist: input film")[0].pid, signal.SIGKILL)
        assert everything(server) == first
    assert index_beside(film).read_bytes() == written
    assert not list(tmp_path.glob(".mist-*"))


def _damaged(whole: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "other": b"no index",
        "cut": whole[:1000],
        "zeros": whole[:-500] + bytes(500),
        "one bit": whole[:-60] + bytes([whole[-60] ^ 4]) + whole[-59:],
    }


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    film = make_film(tmp_path)
    with MistServer(streams=streams(film)) as server:
        first = everything(server)
        index = index_beside(film)
    whole = index.read_bytes()
    for name, damaged in _damaged(whole).items():
        index.write_bytes(damaged)
        with MistServer(streams=streams(film)) as server:
            assert everything(server) == first, name
            assert "cannot be used" in server.wait_log(f"the index {index}", 10)
            wait_until(lambda: index.exists() and index.read_bytes() == whole, 10, "the new index")


def test_an_index_of_a_changed_file_is_not_used(tmp_path: Path) -> None:
    film = make_film(tmp_path)
    with MistServer(streams=streams(film)) as server:
        first = server.get("/film.flv")
        index = index_beside(film)
    stale = index.read_bytes()
    shutil.copy(Sample("other", BFRAMES, seconds=12).flv(), film)
    age(film)
    with MistServer(streams=streams(film)) as server:
        assert len(server.get("/film.flv")) < len(first)
        wait_until(lambda: index.exists() and index.read_bytes() != stale, 10, "the new index")


def test_the_cache_takes_what_cannot_be_beside_the_file(tmp_path: Path) -> None:
    film = make_film(tmp_path)
    Path(f"{film}.dtsh").mkdir()  # root may write anywhere, but not over a folder
    cache = tmp_path / "cache"
    config = {"streamcache": {"path": str(cache), "size_bytes": 1 << 20}}
    with MistServer(streams=streams(film), config=config) as server:
        first = everything(server)
        wait_until(lambda: cache.is_dir() and list(cache.glob("*.dtsh")), 10, "the index in the cache")
    with MistServer(streams=streams(film), config=config) as server:
        assert everything(server) == first
        server.wait_log(f"from {cache}/", 10)


@pytest.mark.parametrize("suffix", ["flv", "ts", "mp4"])
def test_subtitles_beside_a_file_are_a_track(tmp_path: Path, suffix: str) -> None:
    film = make_film(tmp_path, suffix)
    with MistServer(streams=streams(film)) as server:
        without = server.get("/film.flv")
        index_beside(film)
    beside = Path(f"{film}.ger.srt")
    beside.write_text(SUBTITLES)
    age(beside)
    for kept in (False, True):  # made anew because of the subtitles, then from the index
        with MistServer(streams=streams(film)) as server:
            assert server.get("/film.flv") == without
            shown = server.get("/film.srt").decode()
            assert "Guten Tag" in shown and "Auf Wiedersehen" in shown
            tracks = json.loads(server.get("/json_film.js"))["meta"]["tracks"].values()
            texts = [track for track in tracks if track["codec"] == "subtitle"]
            assert [(track["type"], track["lang"]) for track in texts] == [("meta", "ger")]
            assert "Auf Wiedersehen" in server.get("/film.srt?start=11000").decode()
            assert any(f"from {film}.dtsh" in line for line in server.log) == kept
            index_beside(film)


def _is_own(index: Path) -> bool:
    return index.exists() and b"check" in index.read_bytes()


def test_indexes_of_another_program_are_no_obstacle(tmp_path: Path) -> None:
    """One server, the same film four times: without an index, with a right one, one of an older layout and a damaged one."""
    whole = dtsh(Film([(13, 50), (90_000, 50)]))
    beside = {"none": b"", "right": whole, "older": dtsh(Film([(13, 50)]), 3), "damaged": whole[:-9]}
    configured = {}
    for name, data in beside.items():
        (tmp_path / name).mkdir()
        film = make_film(tmp_path / name)
        configured[name] = {"source": str(film)}
        if data:
            Path(f"{film}.dtsh").write_bytes(data)
    with MistServer(streams=configured) as server:
        got = {name: server.get(f"/{name}.ts", timeout_s=60) for name in beside}
        for name in ("none", "older", "damaged"):
            wait_until(partial(_is_own, tmp_path / name / "film.flv.dtsh"), 20, f"the index of {name}")
    assert len(set(map(len, got.values()))) == 1 and len(got["none"]) > 100_000
    assert Path(f"{tmp_path}/right/film.flv.dtsh").read_bytes() == whole


def _ranges(server: MistServer, ranges: list[tuple[int, int]]) -> list[bytes]:
    found = []
    for begin, end in ranges:
        request = urllib.request.Request(f"{server.http_url}/film.mp4", headers={"Range": f"bytes={begin}-{end - 1}"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            found.append(reply.read())
    return found


def _layouts(server: MistServer) -> int:
    """Return how many layouts the input of the film holds."""
    folder = Path(f"/proc/{server.processes_titled('mist: input film')[0].pid}/fd")
    return sum("mist layout" in os.readlink(one) for one in folder.iterdir())


def test_a_long_film_is_begun_before_its_header_is_made(tmp_path: Path) -> None:
    """All of it is what it was without an index, in whatever pieces, whoever asks first, and after the input was killed."""
    film = tmp_path / "film.flv"
    film.write_bytes(flv_file(interleaved(900)))
    age(film)
    with MistServer(streams=streams(film)) as server:
        server.get("/film.flv", timeout_s=30)
        whole = server.get("/film.mp4", timeout_s=30)
        index_beside(film)
    header_bytes = whole.index(b"mdat") + 4
    assert header_bytes > 2 * OUTLINE_BYTES
    edge = OUTLINE_BYTES
    ranges = [
        (0, 1), (edge - 1, edge), (edge, edge + 1), (edge - 9, edge + 9), (header_bytes - 5, header_bytes + 5),
        (5, header_bytes + 500), (header_bytes + 9, len(whole) - 9), (0, len(whole)),
    ]  # fmt: skip
    for first in ranges:  # which one makes the input lay out the file
        with MistServer(streams=streams(film)) as server:
            assert _ranges(server, [first]) == [whole[first[0] : first[1]]], first
            server.wait_log(f"from {film}.dtsh", 10)
            assert _ranges(server, ranges) == [whole[begin:end] for begin, end in ranges], first
            server.lose("mist: input film")
            assert _ranges(server, [first]) == [whole[first[0] : first[1]]], first


def test_many_who_ask_at_once_have_one_layout(tmp_path: Path) -> None:
    film = tmp_path / "film.flv"
    film.write_bytes(flv_file(interleaved(900)))
    age(film)
    with MistServer(streams=streams(film)) as server:
        server.get("/film.flv", timeout_s=30)
        index_beside(film)
    for path in ("/film.mp4", "/film.3gp"):  # the usual one, and one that must be made at once
        with MistServer(streams=streams(film)) as server, ThreadPoolExecutor(16) as pool:
            got = list(pool.map(lambda _, path=path, server=server: server.get(path, timeout_s=60), range(16)))
            assert len(set(got)) == 1 and len(got[0]) > 2 * OUTLINE_BYTES
            assert _layouts(server) <= 2


def test_a_killed_worker_leaves_the_header_to_the_next_one(tmp_path: Path) -> None:
    """The viewer has the beginning that the index told; the rest comes from another worker, byte for byte."""
    film = tmp_path / "film.flv"
    film.write_bytes(flv_file(interleaved(2400)))
    age(film)
    with MistServer(streams=streams(film)) as server:
        server.get("/film.flv", timeout_s=30)
        whole = server.get("/film.mp4", timeout_s=30)
        index_beside(film)
    wanted = whole.index(b"mdat") + 100_000
    with MistServer(streams=streams(film)) as server, socket.socket() as viewer:
        viewer.settimeout(30)
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)  # so that most of the header is not sent yet
        viewer.connect(("127.0.0.1", urlsplit(server.http_url).port))
        viewer.sendall(b"GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
        got = viewer.recv(1000)
        server.lose("mist: output HTTP (1 connection)")
        while len(got) < wanted + 2000:
            data = viewer.recv(1 << 16)
            assert data, f"{len(got)} bytes"
            got += data
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) >= wanted and whole.startswith(body)
