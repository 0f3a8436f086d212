"""HLS playlists as sources: complete ones and live ones, from disk, from nginx, from mist itself, encrypted and in fragments."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer
from tests.support.hls_client import media_playlist, record_hls, variants
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx
from tests.support.packets import compare, read_media
from tests.support.players import play
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
SHORT = Sample("short", BFRAMES, seconds=3, keyframe_s=1)
KEY = bytes(range(16))


def make_hls(folder: Path, *options: str, seconds: float = 2) -> Path:
    """Have ffmpeg cut the film into a complete playlist, and return its path."""
    folder.mkdir()
    target = folder / "index.m3u8"
    fixed = ("-v", "error", "-i", str(FILM.flv()), "-c", "copy", "-f", "hls", "-hls_time", str(seconds))
    listed = ("-hls_list_size", "0", "-hls_playlist_type", "vod")
    subprocess.run([find_tool("ffmpeg"), *fixed, *listed, *options, str(target)], check=True, cwd=folder, timeout=60)
    return target


def make_encrypted(folder: Path) -> Path:
    info = folder.with_suffix(".key")
    info.with_name("secret").write_bytes(KEY)
    info.write_text(f"secret\n{info.with_name('secret')}\n")
    target = make_hls(folder, "-hls_key_info_file", str(info))
    shutil.copy(info.with_name("secret"), folder / "secret")
    return target


MAKERS = {
    "ts": lambda folder: make_hls(folder),
    "fmp4": lambda folder: make_hls(folder, "-hls_segment_type", "fmp4"),
    "ranges": lambda folder: make_hls(folder, "-hls_segment_type", "fmp4", "-hls_flags", "single_file"),
    "encrypted": make_encrypted,
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Path]]:
    """Serve a folder of playlists over http."""
    folder = tmp_path_factory.mktemp("origin")
    for name, make in MAKERS.items():
        make(folder / name)
    with Nginx(folder, http=f"root {folder}; etag on; types {{ }}") as nginx:
        yield nginx, folder


@pytest.mark.tools("nginx")
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_complete_playlist_is_the_film(
    make_server: MakeServer, origin: tuple[Nginx, Path], tmp_path: Path, name: str
) -> None:
    if name == "encrypted":
        pytest.importorskip("cryptography")
    nginx, folder = origin
    url = f"http://127.0.0.1:{nginx.http_port}/{name}/index.m3u8"
    server = make_server(streams={"web": {"source": url}, "disk": {"source": str(folder / name / "index.m3u8")}})
    source = read_media(FILM.flv())
    for stream in ("web", "disk"):
        try:
            seen = play(server, "ts", stream, tmp_path / f"{stream}.ts")
        except Exception as error:
            error.add_note("\n".join(server.log))
            raise
        missing = compare(source, seen, tolerance_us=1000)
        assert not any(before or after for before, after in missing.values()), (stream, missing)
    part = tmp_path / "part.mp4"
    part.write_bytes(server.get("/web.mp4?start=11000&stop=16000", timeout_s=30))
    first = read_media(part).of("video")
    assert first[0].key and len(first) == pytest.approx(6 * FILM.frames_per_second, abs=3)
    record_hls(server.play_url("hls", "web"), tmp_path / "again.ts", seconds=3600)
    missing = compare(source, read_media(tmp_path / "again.ts"), tolerance_us=1000)
    assert not any(before or after for before, after in missing.values()), missing


def live_hls(folder: Path) -> subprocess.Popen[bytes]:
    """Have ffmpeg play the film in real time, over and over, into a live playlist."""
    folder.mkdir(exist_ok=True)
    fixed = ("-v", "error", "-re", "-stream_loop", "-1", "-i", str(FILM.flv()), "-c", "copy", "-f", "hls")
    listed = ("-hls_time", "2", "-hls_list_size", "4", "-hls_flags", "delete_segments+program_date_time")
    return subprocess.Popen([find_tool("ffmpeg"), *fixed, *listed, str(folder / "index.m3u8")])


@pytest.mark.tools("nginx")
def test_a_live_playlist_is_followed(make_server: MakeServer, origin: tuple[Nginx, Path], tmp_path: Path) -> None:
    """Nothing is lost or doubled, and a server that fetches mist's own playlist gives the same packets."""
    nginx, folder = origin
    process = live_hls(folder / "live")
    try:
        wait_until(lambda: (folder / "live" / "index2.ts").exists(), 20, "segments of ffmpeg")
        url = f"http://127.0.0.1:{nginx.http_port}/live/index.m3u8"
        server = make_server(streams={"live": {"source": url, "segmentsize": 1000}})
        edge = make_server(streams={"live": {"source": f"{server.http_url}/hls/live/index.m3u8", "inputtimeout": 10}})
        record_hls(server.play_url("hls"), tmp_path / "origin.ts", seconds=4)
        record_hls(edge.play_url("hls"), tmp_path / "edge.ts", seconds=4)
    finally:
        process.terminate()
        process.wait(10)
    source = {packet.digest for packet in read_media(FILM.flv()).of("video")}
    for name in ("origin", "edge"):
        video = read_media(tmp_path / f"{name}.ts").of("video")
        steps = {later.dts_us - packet.dts_us for packet, later in pairwise(video)}
        frame_us = 1e6 / FILM.frames_per_second
        assert all(abs(step - frame_us) < frame_us / 2 for step in steps), (name, steps)
        assert {packet.digest for packet in video} <= source, name


def has_listed(server: MistServer, count: int) -> bool:
    """Tell whether a live stream has had so many segments."""
    try:
        playlist = media_playlist(variants(server.play_url("hls"))[0])
    except (urllib.error.HTTPError, IndexError, AssertionError):
        return False
    return playlist.first_number + len(playlist.segments) >= count


@pytest.mark.tools("nginx")
def test_a_killed_pull_goes_on(make_server: MakeServer, origin: tuple[Nginx, Path], tmp_path: Path) -> None:
    """The process that fetches a live playlist is killed again and again: no packet is lost or comes twice, and times go on."""
    nginx, folder = origin
    process = live_hls(folder / "killed")
    try:
        wait_until(lambda: (folder / "killed" / "index2.ts").exists(), 20, "segments of ffmpeg")
        url = f"http://127.0.0.1:{nginx.http_port}/killed/index.m3u8"
        server = make_server(streams={"live": {"source": url, "segmentsize": 1000}})
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(record_hls, server.play_url("hls"), tmp_path / "seen.ts", seconds=11)
            for count in (1, 3, 4):
                wait_until(partial(has_listed, server, count), 40, "segments of mist")
                server.lose("mist: input live")
            seen.result(60)
    finally:
        process.terminate()
        process.wait(10)
    order = {packet.digest: number for number, packet in enumerate(read_media(FILM.flv()).of("video"))}
    video = read_media(tmp_path / "seen.ts").of("video")
    frame_us = 1e6 / FILM.frames_per_second
    for packet, later in pairwise(video):
        assert (order[packet.digest] + 1) % len(order) == order[later.digest], (packet.dts_us, later.dts_us)
        assert abs(later.dts_us - packet.dts_us - frame_us) < frame_us / 2, (packet.dts_us, later.dts_us)


def test_a_program_and_a_list_of_files(make_server: MakeServer, tmp_path: Path) -> None:
    """A program's output is a live stream for as long as somebody watches; files follow each other without a jump."""
    shutil.copy(SHORT.flv(), tmp_path / "one.flv")
    (tmp_path / "day.pls").write_text("# two of them\none.flv\nmissing.flv\n")
    command = f"{find_tool('ffmpeg')} -v error -re -stream_loop -1 -i '{SHORT.flv()}' -c copy -f %s -"
    sources = {"ts": f"ts-exec:{command % 'mpegts'}", "mkv": f"mkv-exec:{command % 'matroska'}"}
    sources["pls"] = str(tmp_path / "day.pls")
    server = make_server(streams={name: {"source": source, "segmentsize": 1000} for name, source in sources.items()})
    known = {packet.digest for packet in read_media(SHORT.flv()).of("video")}
    for name in sources:
        record_hls(server.play_url("hls", name), tmp_path / f"{name}.ts", seconds=3)
        video = read_media(tmp_path / f"{name}.ts").of("video")
        assert {packet.digest for packet in video} <= known, name
        assert all(0 < later.dts_us - packet.dts_us < 200_000 for packet, later in pairwise(video)), name
