"""Files that are overwritten, cut, replaced or removed while viewers play them, here and on a real web server."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import pytest

from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx
from tests.support.packets import read_media
from tests.support.processes import wait_until, written_kib
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "nginx")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
PLAIN = Sample("plain", BFRAMES, seconds=10)
NEW = Sample("other", BFRAMES, seconds=12)
ROUNDS = 8
GROWTH_KIB = 16 << 10  # in the second half of them; a film of which something stays each time is 4 MB and its index


def _overwrite(path: Path, new: Path) -> None:
    with path.open("r+b") as file:  # the same number of bytes, and the same file
        file.write(new.read_bytes()[: path.stat().st_size].ljust(path.stat().st_size, b"\0"))


def _cut(path: Path, _new: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _replace(path: Path, new: Path) -> None:
    shutil.copy(new, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _remove(path: Path, _new: Path) -> None:
    path.unlink()


# What becomes of the file, and how many pictures a new viewer gets of what is there then; None: it has gone.
CHANGES: dict[str, tuple[Callable[[Path, Path], None], int | None]] = {
    "overwritten": (_overwrite, 300),
    "cut": (_cut, -1),
    "replaced": (_replace, 300),
    "removed": (_remove, None),
}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.ts"
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(NEW.flv()), "-c", "copy", str(path)], 60)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    first = folder / "film.ts"
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(FILM.flv()), "-c", "copy", str(first)], 60)
    for change in CHANGES:
        for place in ("here", "there"):
            shutil.copy(first, folder / f"{place}{change}.ts")
    return folder


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MistServer]:
    with Nginx(tmp_path_factory.mktemp("nginx"), http=f"root {files};") as nginx:
        streams = {"other": {"source": str(PLAIN.flv())}, "again": {"source": f"{files}/again.ts"}}
        for change in CHANGES:
            streams[f"here{change}"] = {"source": f"{files}/here{change}.ts"}
            streams[f"there{change}"] = {"source": f"http://127.0.0.1:{nginx.http_port}/there{change}.ts"}
        with MistServer(streams=streams) as running:
            yield running


def ask(server: MistServer, path: str) -> tuple[int, bytes]:
    """Return the status and what came, as far as it came."""
    try:
        with urllib.request.urlopen(server.http_url + path, timeout=40) as reply:
            try:
                return reply.status, reply.read()
            except IncompleteRead as error:
                return reply.status, error.partial
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["here", "there"])
def test_who_plays_is_told_and_who_comes_gets_what_is_there(
    server: MistServer, files: Path, new: Path, tmp_path: Path, place: str, change: str
) -> None:
    do, pictures = CHANGES[change]
    stream, path = f"{place}{change}", files / f"{place}{change}.ts"
    other = server.get("/other.flv")
    assert ask(server, f"/{stream}.ts?stop=1000")[0] == 200
    ask(server, f"/{stream}.mp4?stop=1000")  # whose length needs the whole index
    before = len(server.log)
    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(ask, server, f"/{stream}.ts?rate=1")
        do(path, new)
        status, got = ask(server, f"/{stream}.ts?start=20000")
        if status != 200:
            text = got.decode()
            says_where = "Its source" in text and ("byte" in text or pictures is None)
            assert says_where or f"{stream} has ended" in text, text
            assert path.name not in text, text  # which only the log has
        said = server.wait_log("begins anew when it is asked for", 20, start=before)
        assert path.name in said
        assert server.get("/other.flv") == other
        playing.result(60)
    target = tmp_path / "out.ts"

    def is_new() -> bool:
        status, got = ask(server, f"/{stream}.ts")
        if pictures is None:
            return status == 404 and b"Its source" in got
        target.write_bytes(got)
        seen = len(read_media(target).of("video")) if status == 200 else 0
        return seen == pictures if pictures > 0 else 100 < seen < 500

    wait_until(is_new, 30, "what is there now")
    for line in server.log[before:]:
        assert "Traceback" not in line


def test_what_was_made_for_a_file_goes_with_it(server: MistServer, files: Path, new: Path) -> None:
    """A file grows, is changed and vanishes under its viewers, over and over: the server's memory stays where it was."""
    film, path = files / "film.ts", files / "again.ts"
    changes = [do for do, _ in CHANGES.values()]
    used = []

    def status() -> int:
        return ask(server, "/again.ts?stop=1000")[0]

    for number in range(ROUNDS):
        shutil.copy(film, path)
        wait_until(lambda: status() == 200, 30, "the file is played")
        before = len(server.log)
        with ThreadPoolExecutor(4) as pool:
            playing = [pool.submit(ask, server, f"/again.ts?rate=1&start={place * 5000}") for place in range(4)]
            with path.open("ab") as file:
                file.write(film.read_bytes()[: 188 * 1000])
            changes[number % len(changes)](path, new)
            ask(server, "/again.ts?start=20000")
            server.wait_log("begins anew when it is asked for", 20, start=before)
            for one in playing:
                one.result(60)
        path.unlink(missing_ok=True)
        wait_until(lambda: status() == 404, 30, "the file has gone")
        used.append(written_kib(one.pid for one in server.processes()))
    assert max(used[ROUNDS // 2 :]) - max(used[: ROUNDS // 2]) < GROWTH_KIB, used
