"""HLS of a stream with two sound tracks and subtitles, as players, other servers and the specification see it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.formats.m3u8 import MasterPlaylist, parse_playlist
from tests.support.hls_client import fetch, media_playlist
from tests.support.media import BFRAMES, Sample
from tests.support.packets import read_media
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg")
FILM = Sample("alternatives", BFRAMES, seconds=12, keyframe_s=2)
CUES = [("00:00:01.000", "00:00:03.000", "one"), ("00:00:03.500", "00:00:08.500", "two\nlines")]
CUE = re.compile(r"^([\d:]{5,8}\.\d{3}) --> ([\d:]{5,8}\.\d{3})\n(.+?)\n\n", re.MULTILINE | re.DOTALL)
MAPS = ("-map", "0:v", "-map", "0:a", "-map", "1:a")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MistServer]:
    """Run a server with the film, the film again as a live stream, and a pull of what it serves itself."""
    folder = tmp_path_factory.mktemp("alternatives")
    film = folder / "film.mkv"
    other = ("-f", "lavfi", "-t", "12", "-i", "sine=frequency=880:sample_rate=48000")
    told = ("-c:v", "copy", "-c:a", "aac", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu")
    command = [find_tool("ffmpeg"), "-v", "error", "-i", str(FILM.file()), *other, *MAPS, *told, str(film)]
    subprocess.run(command, check=True, timeout=60)
    texts = (f"{number}\n{start} --> {end}\n{text}\n\n" for number, (start, end, text) in enumerate(CUES, 1))
    Path(f"{film}.ger.srt").write_text("".join(texts).replace(".", ","))
    again = f"mkv-exec:{find_tool('ffmpeg')} -v error -re -stream_loop -1 -i {film} -map 0 -c copy -f matroska -"
    port = free_port()
    streams = {"film": str(film), "now": again, "pull": f"http://127.0.0.1:{port}/hls/film/index.m3u8"}
    sources = {name: {"source": source} for name, source in streams.items()}
    with MistServer(streams=sources, protocols={"HTTP": {"port": port}}) as server:
        server.http_port = port
        yield server


def master_of(server: MistServer, stream: str) -> MasterPlaylist:
    found = parse_playlist(fetch(server.play_url("hls", stream), 40))
    assert isinstance(found, MasterPlaylist)
    return found


def test_players_find_every_sound_track(served: MistServer, tmp_path: Path) -> None:
    sounds = [one for one in master_of(served, "film").renditions if one.type == "AUDIO"]
    assert [(one.language, one.name, one.default, bool(one.uri)) for one in sounds] == [
        ("en", "English", True, False),
        ("de", "German", False, True),
    ]
    target = tmp_path / "played.mkv"
    command = [find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", served.play_url("hls", "film"), "-map", "0"]
    subprocess.run([*command, "-c", "copy", str(target)], check=True, timeout=60)
    wanted, got = read_media(Path(served.config["streams"]["film"]["source"])), read_media(target)

    def tracks(media: object) -> list[list[str]]:
        packets = media.packets  # type: ignore[attr-defined]
        return sorted([one.digest for one in packets if one.stream == n] for n in {one.stream for one in packets})

    assert tracks(got) == tracks(wanted)


def test_each_segment_has_all_cues_that_are_shown_in_it(served: MistServer) -> None:
    (texts,) = [one for one in master_of(served, "film").renditions if one.type == "SUBTITLES"]
    assert (texts.language, texts.name) == ("de", "German")
    playlist = media_playlist(served.play_url("hls", "film").replace("index.m3u8", texts.uri))
    assert playlist.ended and len(playlist.segments) == 6
    shown = []
    for _, url in playlist.segments:
        body = fetch(url).decode()
        assert re.match(r"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:\d\d:\d\d:\d\d\.\d{3},MPEGTS:\d+\n\n", body)
        shown.append(CUE.findall(body))
    one, two = CUES
    assert shown == [[one], [one, two], [two], [two], [two], []]


@pytest.mark.tools("ffmpeg-new")
def test_ffmpeg_reads_the_subtitles(served: MistServer) -> None:
    command = [find_tool("ffmpeg-new"), "-v", "error", "-i", served.play_url("hls", "film"), "-map", "0:s"]
    done = subprocess.run([*command, "-f", "webvtt", "-"], capture_output=True, text=True, check=True, timeout=60)
    assert {text for _, _, text in CUE.findall(done.stdout + "\n")} == {text for _, _, text in CUES}


def test_another_server_pulls_all_of_it(served: MistServer) -> None:
    def tracks() -> list[tuple[str, str]]:
        found = json.loads(served.get("/json_pull.js", timeout_s=40)).get("meta", {}).get("tracks", {}).values()
        return sorted((one["codec"], one.get("lang", "")) for one in found)

    wait_until(lambda: len(tracks()) == 4, 30, "four tracks")
    assert [codec for codec, _ in tracks()] == ["AAC", "AAC", "H264", "subtitle"]
    assert ("AAC", "deu") in tracks() and ("subtitle", "deu") in tracks()
    shown = CUE.findall(served.get("/pull.vtt", timeout_s=40).decode())
    assert [text for _, _, text in shown] == [text for _, _, text in CUES]  # once, however many segments it stands in


def test_live_streams_have_them_too(served: MistServer) -> None:
    (sound,) = [one for one in master_of(served, "now").renditions if one.uri]
    assert (sound.type, sound.language, sound.autoselect) == ("AUDIO", "de", True)
    address = served.play_url("hls", "now").replace("index.m3u8", sound.uri)
    command = [find_tool("ffmpeg"), "-v", "warning", "-xerror", "-i", address, "-t", "4", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
