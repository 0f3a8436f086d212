"""HLS of several qualities: fetched from a real server, and made so that all qualities are cut at the same keyframes."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hls_client import fetch, media_playlist, variants
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx
from tests.support.packets import SeenMedia, read_media
from tests.support.server import MistServer
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "nginx")

FILM = Sample("renditions", BFRAMES, seconds=12, keyframe_s=2)
PICTURE = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0")
RATES = (
    "-b:v:0",
    "400k",
    "-b:v:1",
    "150k",
    "-s:v:1",
    "160x90",
    "-c:a",
    "aac",
    "-b:a",
    "64k",
)  # without them ffmpeg lists nothing
STREAMS = "v:0,agroup:sound,name:large v:1,agroup:sound,name:small a:0,agroup:sound,name:sound,language:deu"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MistServer, Path]]:
    """Run a server that plays a master playlist of ffmpeg, with two pictures and one sound, from nginx."""
    folder = tmp_path_factory.mktemp("renditions")
    maps = ("-map", "0:v", "-map", "0:v", "-map", "0:a", *PICTURE, *RATES)
    listed = ("-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-master_pl_name", "index.m3u8")
    subprocess.run(
        [find_tool("ffmpeg"), "-v", "error", "-i", str(FILM.flv()), *maps, *listed, "-var_stream_map", STREAMS]
        + ["-hls_segment_filename", str(folder / "%v-%d.ts"), str(folder / "%v.m3u8")],
        check=True,
        timeout=60,
    )
    with Nginx(folder, http=f"root {folder};") as nginx:
        source = f"http://127.0.0.1:{nginx.http_port}/index.m3u8"
        with MistServer(streams={"web": {"source": source}}) as server:
            yield server, folder


def sizes(server: MistServer) -> dict[int, int]:
    """Return the video tracks by their width."""
    tracks = json.loads(server.get("/json_web.js", timeout_s=30))["meta"]["tracks"].values()
    return {int(track["width"]): int(track["idx"]) for track in tracks if track["type"] == "video"}


def hashes(media: SeenMedia, kind: str) -> list[str]:
    return [packet.digest for packet in media.of(kind)]


def test_every_rendition_of_another_server_is_a_track(served: tuple[MistServer, Path], tmp_path: Path) -> None:
    server, folder = served
    found = sizes(server)
    assert sorted(found) == [160, 320]
    sound = hashes(read_media(folder / "sound.m3u8"), "audio")
    for width, name in ((320, "large"), (160, "small")):
        target = tmp_path / f"{name}.ts"
        target.write_bytes(server.get(f"/web.ts?video={found[width]}", timeout_s=40))
        seen = read_media(target)
        assert hashes(seen, "video") == hashes(read_media(folder / f"{name}.m3u8"), "video")
        assert hashes(seen, "audio") == sound


def test_all_qualities_are_cut_at_the_same_keyframes(served: tuple[MistServer, Path], tmp_path: Path) -> None:
    server, _ = served
    master = server.play_url("hls", "web")
    qualities = [media_playlist(url) for url in variants(master)]
    assert len(qualities) == 2 and all(one.ended for one in qualities)
    assert [duration for duration, _ in qualities[0].segments] == [duration for duration, _ in qualities[1].segments]
    begins: list[list[int]] = []
    for number, quality in enumerate(qualities):
        begins.append([])
        for part, (_, url) in enumerate(quality.segments):
            segment = tmp_path / f"{number}-{part}.ts"
            segment.write_bytes(fetch(url))
            first = read_media(segment).of("video")[0]
            assert first.key
            begins[-1].append(first.pts_us)
    assert begins[0] == begins[1]


def played(master: str, target: Path) -> Counter[int]:
    """Have ffmpeg play all pictures of a master playlist, without a complaint; return the packets of each."""
    command = [find_tool("ffmpeg"), "-v", "warning", "-xerror", "-i", master, "-map", "0:v", "-c", "copy", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return Counter(packet.stream for packet in read_media(target).packets)


def test_ffmpeg_plays_the_master_playlist_with_all_qualities(served: tuple[MistServer, Path], tmp_path: Path) -> None:
    server, folder = served
    theirs = played(str(folder / "index.m3u8"), tmp_path / "theirs.mkv")
    assert played(server.play_url("hls", "web"), tmp_path / "ours.mkv") == theirs
    assert len(theirs) == 2
