"""Files on demand pushed to another server, where they are live: each packet once, at the clock's speed, whoever is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from tests.integration.test_push_connections import publishers, replaced, status, workers
from tests.integration.test_runtime import mist
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenMedia, compare, read_media
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tls_front import make_certificate
from tests.support.tools import run

pytestmark = [pytest.mark.tools("ffmpeg", "openssl"), pytest.mark.timeout(240)]
FILM = Sample("pushed", BFRAMES)
LONG_FILM = Sample("handed", BFRAMES, seconds=20)
MILLISECOND_US = 1001
TAKES = {"source": "push://127.0.0.1", "inputtimeout": 4}
KINDS = ("rtmp", "rtmps", "dtsc", "dtscs")


@dataclass
class Pair:
    """A server with films, and one that takes pushes in every way. targets: addresses there by kind, without the stream."""

    here: MistServer
    there: MistServer
    targets: dict[str, str]

    def push(self, kind: str, film: str, stream: str, recorded: Path, query: str = "") -> None:
        """Push a film, and have what comes there recorded from its beginning."""
        before = len(publishers(self.there))
        self.here.api({"push_start": [film, f"{self.targets[kind]}/{stream}{query}"]})
        self.there.wait_tracks(2, stream)
        self.there.api({"push_start": [stream, f"{recorded}?start=1"]})
        assert len(publishers(self.there)) == before + 1

    def wait_end(self) -> None:
        """Wait until all is over, here and there."""
        wait_until(lambda: not self.here.api({"push_list": 1})["push_list"], 60, "the end of the pushes")
        wait_until(lambda: not self.there.api({"push_list": 1})["push_list"], 30, "the end of the recordings")


def assert_whole(film: SeenMedia, recorded: Path) -> None:
    """Fail unless a recording has each packet of a film once, at the same distances; it begins with the picture."""
    missing = compare(film, read_media(recorded), tolerance_us=MILLISECOND_US)
    assert missing["video"] == (0, 0), recorded
    assert missing["audio"] in ((0, 0), (1, 0), (2, 0)), recorded


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    cert, key = make_certificate(tmp_path_factory.mktemp("tls"))
    ports = {kind: free_port() for kind in KINDS}
    there = MistServer(streams=dict.fromkeys(("plain", *KINDS), TAKES))
    for kind, port in ports.items():
        secure = {"cert": str(cert), "key": str(key)} if kind.endswith("s") else {}
        connector = kind.removesuffix("s").upper()
        there.config["config"]["protocols"].append(
            {"connector": connector, "port": port, "interface": "127.0.0.1", **secure}
        )
    films = {"film": {"source": str(FILM.flv())}, "long": {"source": str(LONG_FILM.flv())}}
    with ExitStack() as stack:
        stack.enter_context(there)
        here = stack.enter_context(MistServer(streams=films, env={"SSL_CERT_FILE": str(cert)}))
        application = {"rtmp": "/live", "rtmps": "/live", "dtsc": "", "dtscs": ""}
        yield Pair(here, there, {kind: f"{kind}://localhost:{ports[kind]}{application[kind]}" for kind in KINDS})


def test_films_arrive_in_every_way(pair: Pair, tmp_path: Path) -> None:
    for kind in KINDS:
        pair.push(kind, "film", kind, tmp_path / f"{kind}.flv")
    rows = wait_until(lambda: len(found := status(pair.here)) == len(KINDS) and found, 15, "figures")
    for row in rows.values():
        assert row["bytes"] > 0
        assert 0 < row["mediatime"] <= row["active_ms"] + 1000, "ahead of the clock"
    pair.wait_end()
    film = read_media(FILM.flv())
    for kind in KINDS:
        assert_whole(film, tmp_path / f"{kind}.flv")
    assert [line for line in pair.here.log if "the stream has ended (CLEAN_EOF)" in line]


def furthest_ms(pair: Pair) -> list[int]:
    """Return how far each push is that tells of it."""
    return sorted(row["mediatime"] for row in status(pair.here).values())


def test_another_process_goes_on_at_the_byte(pair: Pair, tmp_path: Path) -> None:
    came = len(publishers(pair.there))
    pair.push("rtmp", "long", "rtmp", tmp_path / "rtmp.flv", "?rate=0.5")
    pair.push("dtsc", "long", "dtsc", tmp_path / "dtsc.flv", "?rate=0.5")
    wait_until(lambda: len(furthest_ms(pair)) == 2, 20, "figures")
    for blow in (signal.SIGKILL, signal.SIGSEGV):
        former, before = workers(pair.here), furthest_ms(pair)
        for pid in former:
            os.kill(pid, blow)
        wait_until(lambda former=former: replaced(pair.here, former), 20, "another worker")  # type: ignore[misc]
        wait_until(lambda before=before: min(furthest_ms(pair), default=0) > max(before), 20, "media from it")  # type: ignore[misc]
    done = mist(pair.here, "upgrade", "--instance", pair.here.instance)
    assert (done.returncode, done.stderr) == (0, "")
    pair.wait_end()
    film = read_media(LONG_FILM.flv())
    assert_whole(film, tmp_path / "rtmp.flv")
    assert_whole(film, tmp_path / "dtsc.flv")
    assert len(publishers(pair.there)) == came + 2, "a connection was made again"


def test_over_tls_it_goes_on_at_a_keyframe(pair: Pair, tmp_path: Path) -> None:
    """The keys of TLS die with a process: the next one connects again, and begins where the film was, not where it begins."""
    pair.push("rtmps", "long", "rtmps", tmp_path / "tls.flv")
    before = wait_until(
        lambda: (found := status(pair.here)) and next(iter(found.values()))["mediatime"] > 4000, 20, "media"
    )
    assert before
    former = workers(pair.here)
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: replaced(pair.here, former), 20, "another worker")
    pair.wait_end()
    wanted = [one.digest for one in read_media(LONG_FILM.flv()).of("video")]
    got = [one.digest for one in read_media(tmp_path / "tls.flv").of("video")]
    assert list(dict.fromkeys(got)) == wanted
    assert len(got) - len(wanted) <= 75


def test_a_part_with_silence_beside_it(pair: Pair, tmp_path: Path) -> None:
    """`start`, `duration`, the choice of tracks and other audio mean what they mean for live streams."""
    pair.push("rtmp", "film", "rtmp", tmp_path / "part.flv", "?audio=none,silence&start=3000&duration=4&rate=2")
    pair.wait_end()
    media = read_media(tmp_path / "part.flv")
    assert sorted(media.codecs.values()) == ["aac", "h264"]
    wanted = [one.digest for one in read_media(FILM.flv()).of("video")]
    got = [one.digest for one in media.of("video")]
    begin = wanted.index(got[0])
    assert begin == 75
    assert got == wanted[begin : begin + len(got)]
    assert len(got) in range(98, 103)


def test_a_push_that_is_stopped_says_goodbye(pair: Pair, tmp_path: Path) -> None:
    pair.push("rtmp", "long", "rtmp", tmp_path / "stopped.flv")
    wait_until(lambda: (tmp_path / "stopped.flv").exists(), 10, "the recording")
    number = pair.here.api({"push_list": 1})["push_list"][0][0]
    pair.here.api({"push_stop": number})
    pair.wait_end()
    film = read_media(LONG_FILM.flv())
    missing = compare(film, read_media(tmp_path / "stopped.flv"), tolerance_us=MILLISECOND_US)
    assert all(before == 0 for before, _ in missing.values())
    assert any(after > 0 for _, after in missing.values())


def test_films_become_files(pair: Pair, tmp_path: Path) -> None:
    """As fast as they are read, into any format, in parts, and in segments with their list."""
    files = ("a.ts", "a.flv", "a.mp4", "a.mkv", "a.dtsc", "part.flv?start=3000&duration=4", "a.aac?video=none")
    targets = [*files, "$segmentCounter.ts?split=5&m3u8=list.m3u8"]
    for target in targets:
        pair.here.api({"push_start": ["long", f"{tmp_path}/{target}"]})

    def ended() -> int:
        return sum(f"Push to {tmp_path}" in line and "has ended (CLEAN_EOF)" in line for line in pair.here.log)

    wait_until(lambda: ended() == len(targets), 60, "the end of the recordings")
    film = read_media(LONG_FILM.flv())
    for name in ("a.ts", "a.flv", "a.mp4"):
        assert set(compare(film, read_media(tmp_path / name), tolerance_us=MILLISECOND_US).values()) == {(0, 0)}, name
    part = read_media(tmp_path / "part.flv").of("video")
    wanted = [one.digest for one in film.of("video")]
    assert [one.digest for one in part] == wanted[75:175]
    sound = [one.digest for one in read_media(tmp_path / "a.aac").of("audio")]
    assert sound == [one.digest for one in film.of("audio")]
    for name in ("a.mkv", "a.dtsc"):
        converted = tmp_path / f"{name}.flv"
        run([sys.executable, "-m", "mist", "convert", str(tmp_path / name), str(converted)], 60)
        assert set(compare(film, read_media(converted), tolerance_us=MILLISECOND_US).values()) == {(0, 0)}, name
    text = (tmp_path / "list.m3u8").read_text()
    assert "#EXT-X-PLAYLIST-TYPE:VOD" in text
    assert "#EXT-X-ENDLIST" in text
    listed = parse_playlist(text.encode())
    assert isinstance(listed, MediaPlaylist)
    assert [round(one.duration_us / 1e6) for one in listed.segments] == [5, 5, 5, 5]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / one.uri).read_bytes() for one in listed.segments))
    assert set(compare(film, read_media(joined), tolerance_us=MILLISECOND_US).values()) == {(0, 0)}


def test_films_are_recorded_at_a_pace(pair: Pair, tmp_path: Path) -> None:
    """Each packet once, no faster than was asked for: while it goes on, and when another process takes over."""
    begun = time.monotonic()
    pair.here.api({"push_start": ["long", f"{tmp_path}/a.flv?rate=2"]})
    pair.here.api({"push_start": ["film", f"{tmp_path}/b.mp4?realtime"]})
    wait_until(lambda: (path := tmp_path / "a.flv").exists() and path.stat().st_size > 10_000, 20, "the file")
    [recorder] = wait_until(lambda: pair.here.processes_titled("mist: push long to "), 20, "the title")
    os.kill(recorder.pid, signal.SIGKILL)
    pair.wait_end()
    assert time.monotonic() - begun > LONG_FILM.seconds / 2 - 2
    for sample, name in ((LONG_FILM, "a.flv"), (FILM, "b.mp4")):
        assert_whole(read_media(sample.flv()), tmp_path / name)
