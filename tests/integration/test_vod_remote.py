"""Files on other servers that the running server plays on demand: nginx, S3, a file that changes, and what the cache keeps."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mist.core.flv import FlvReader
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx
from tests.support.packets import compare, read_media
from tests.support.processes import session_processes, wait_until
from tests.support.s3 import S3Server
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "nginx")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
FORMATS = ("flv", "mp4", "ts", "mkv")
SCRIPT_DATA = 18  # tag type of FLV
FLV_HEAD_BYTES, FLV_TAG_BYTES = 13, 15  # of the file; of each tag, with its size behind it
PATHS = ("/{}.flv", "/{}.mp4?start=4000&stop=9000", "/{}.flv?start=9000")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for suffix in FORMATS:
        path = folder / f"film.{suffix}"
        run([find_tool("ffmpeg"), "-v", "error", "-i", str(FILM.flv()), "-c", "copy", str(path)], 60)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


@pytest.fixture(scope="module")
def nginx(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "users").write_text("mist:{PLAIN}secret\n")
    places = (
        f"root {films}; location /plain/ {{ max_ranges 0; alias {films}/; }}"
        f" location /slow/ {{ limit_rate 200k; alias {films}/; }} location /old/ {{ rewrite ^/old/(.*)$ /$1 redirect; }}"
        f' location /closed/ {{ auth_basic "x"; auth_basic_user_file {folder}/users; alias {films}/; }}'
    )
    with Nginx(folder, http=places) as running:
        yield running


def media(data: bytes) -> bytes:
    """Return a file without what depends on when it was asked for: FLV tells its duration once the index is complete."""
    if data[:3] != b"FLV":
        return data
    tags = FlvReader().feed(data)
    assert sum(tag.tag_type == SCRIPT_DATA for tag in tags) == 1
    assert len(data) == FLV_HEAD_BYTES + sum(len(tag.body) + FLV_TAG_BYTES for tag in tags)
    kept = [(tag.tag_type, tag.time_ms, tag.body) for tag in tags if tag.tag_type != SCRIPT_DATA]
    assert kept
    return repr(kept).encode()


def everything(server: MistServer, stream: str) -> list[bytes]:
    return [media(server.get(path.format(stream), timeout_s=40)) for path in PATHS]


def test_every_format_plays_from_another_server_as_from_here(nginx: Nginx, films: Path) -> None:
    host = f"127.0.0.1:{nginx.http_port}"
    streams = {f"here{suffix}": {"source": f"{films}/film.{suffix}"} for suffix in FORMATS}
    streams |= {f"there{suffix}": {"source": f"http://{host}/film.{suffix}?v=1"} for suffix in FORMATS}
    streams |= {
        f"plain{suffix}": {"source": f"http://mist:wrong@{host}/plain/film.{suffix}"} for suffix in ("mp4", "ts")
    }
    streams["oldmp4"] = {"source": f"MP4:http://{host}/old/film.mp4"}
    streams["closedmp4"] = {"source": f"http://mist:secret@{host}/closed/film.mp4"}
    streams["wrongmp4"] = {"source": f"http://mist:hidden@{host}/closed/film.mp4"}
    streams["missing"] = {"source": f"http://{host}/missing.mp4"}
    with MistServer(streams=streams) as server:
        for suffix in FORMATS:
            here = everything(server, f"here{suffix}")
            for place in ("there", "plain", "old", "closed"):
                if f"{place}{suffix}" in streams:
                    assert everything(server, f"{place}{suffix}") == here, (place, suffix)
        for stream, words in (("wrongmp4", "401 Unauthorized"), ("missing", "404 Not Found")):
            with pytest.raises(urllib.error.HTTPError) as caught:
                server.get(f"/{stream}.ts")
            with caught.value as error:
                assert words in error.read().decode()
        assert not [line for line in server.log if "hidden" in line or "secret" in line]


def test_a_viewer_plays_while_the_index_is_made(nginx: Nginx, tmp_path: Path) -> None:
    with MistServer(streams={"film": {"source": f"http://127.0.0.1:{nginx.http_port}/slow/film.ts"}}) as server:
        target = tmp_path / "out.ts"
        target.write_bytes(server.get("/film.ts", timeout_s=60))
        compare(read_media(FILM.flv()), read_media(target), tolerance_us=1000)


def test_a_file_that_becomes_another_one(films: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    film = tmp_path / "files" / "film.mp4"
    shutil.copy(films / "film.mp4", film)
    other = Sample("other", BFRAMES, seconds=12)
    with Nginx(tmp_path, http=f"root {tmp_path}/files;") as nginx:
        source = f"http://127.0.0.1:{nginx.http_port}/film.mp4"
        with MistServer(streams={"film": {"source": source}}) as server:
            first = server.get("/film.ts?start=2000&stop=4000")
            new = tmp_path / "files" / "new.mp4"
            run([find_tool("ffmpeg"), "-v", "error", "-i", str(other.flv()), "-c", "copy", str(new)], 60)
            new.rename(film)
            assert server.get("/film.ts?start=2000&stop=4000") == first  # what is in memory goes on
            assert f"{source} has changed on the server" in server.wait_log("begins anew when it is asked for", 20)
            target = tmp_path / "out.ts"

            def plays() -> bool:
                try:
                    target.write_bytes(server.get("/film.ts", timeout_s=40))
                except urllib.error.HTTPError:
                    return False
                return True

            wait_until(plays, 20, "the new file")
            compare(read_media(other.flv()), read_media(target), tolerance_us=1000)


def test_a_server_that_stops_answering_holds_up_its_own_viewers_only(films: Path, tmp_path: Path) -> None:
    with Nginx(tmp_path, http=f"root {films};") as nginx:
        source = f"http://127.0.0.1:{nginx.http_port}/film.ts"
        workers = [one.pid for one in session_processes(nginx.pid)]
        with (
            MistServer(streams={"far": {"source": source}, "near": {"source": str(films / "film.ts")}}) as server,
            ThreadPoolExecutor(1) as pool,
        ):
            first = media(server.get("/near.flv?stop=2000"))
            assert media(server.get("/far.flv?stop=2000")) == first
            try:
                for pid in workers:
                    os.kill(pid, signal.SIGSTOP)
                held_up = pool.submit(server.get, "/far.flv?start=20000", 60)
                whole = [media(server.get("/near.flv")), media(server.get("/near.flv?start=20000"))]
                assert media(server.get("/far.flv?stop=2000")) == first  # what is in memory needs no server
                assert not held_up.done()
            finally:
                for pid in workers:
                    os.kill(pid, signal.SIGCONT)
            assert media(held_up.result(60)) == whole[1]
            assert media(server.get("/far.flv", timeout_s=60)) == whole[0]


def test_the_cache_keeps_index_and_file_through_a_kill(films: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = {"streamcache": {"path": str(cache), "size_bytes": 64 << 20, "assets": True}}
    with Nginx(tmp_path, http=f"root {films};") as nginx:
        streams = {"film": {"source": f"http://127.0.0.1:{nginx.http_port}/film.ts"}}
        with MistServer(streams=streams, config=config) as server:
            first = everything(server, "film")
            os.kill(server.processes_titled("mist: input film")[0].pid, signal.SIGKILL)
            assert everything(server, "film") == first
            wait_until(lambda: list(cache.glob("*.dtsh")), 10, "the index")
        (asset,) = cache.glob("*.asset")
        assert asset.stat().st_size > (films / "film.ts").stat().st_size
        whole = asset.read_bytes()
        asset.write_bytes(whole[:300_000] + bytes(100) + whole[300_100:])  # one block is damaged
        later = time.time() + 60
        for index in cache.glob("*.dtsh"):
            os.utime(index, (later, later))
        with MistServer(streams=streams, config=config) as server:
            assert everything(server, "film") == first
            server.wait_log("spans, from", 5)
        assert asset.read_bytes() == whole


@pytest.mark.tools("moto_server")
def test_objects_of_s3(films: Path, tmp_path: Path) -> None:
    with S3Server(tmp_path) as store:
        store.put("films", "a film.mp4", (films / "film.mp4").read_bytes())
        right, wrong = store.source("films/a film.mp4"), store.source("films/a film.mp4", secret="wrong")
        streams = {
            "here": {"source": f"{films}/film.mp4"},
            "right": {"source": right},
            "wrong": {"source": wrong},
            "missing": {"source": store.source("films/missing.mp4")},
        }
        with MistServer(streams=streams) as server:
            assert everything(server, "right") == everything(server, "here")
            for stream, words in (("wrong", "SignatureDoesNotMatch"), ("missing", "NoSuchKey")):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    server.get(f"/{stream}.ts")
                with caught.value as error:
                    assert words in error.read().decode()
            assert store.secret not in "".join(server.log)
        converted = tmp_path / "out.mkv"
        run([sys.executable, "-m", "mist", "convert", right, str(converted)], 60)
        compare(read_media(films / "film.mp4"), read_media(converted), tolerance_us=1000)
