"""Recordings whose processes are killed, hang or are replaced: one file, no packet lost or doubled, one end that tells the truth."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from tests.integration.conftest import MakeServer, Publish
from tests.integration.test_runtime import mist
from tests.support.media import BFRAMES, NO_BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

UPGRADED = Sample("upgraded", NO_BFRAMES, seconds=10)
RECORDED = Sample("handed", BFRAMES, seconds=20)
ONE_FILE = ("ts", "flv", "mp4", "mkv")
TOLERANCE_US = 1001
LAST = Sample("last", BFRAMES, seconds=5)
STREAMS = {"live": {"source": "push://127.0.0.1", "inputtimeout": 3}}
HANDLER = '#!/bin/sh\ncat > "$0.$1.$$.part" && mv "$0.$1.$$.part" "$0.$1.$$"\n'


def recorders(server: MistServer) -> dict[int, str]:
    return {one.pid: one.title for one in server.processes_titled("mist: push live to ")}


def guardians(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes_titled("mist: guardian pushes")}


def lose(server: MistServer, how: signal.Signals, count: int) -> None:
    """Send a signal to all recorders, and wait until others have taken their places."""
    lost = recorders(server)
    assert len(lost) == count
    for pid in lost:
        os.kill(pid, how)
    wait_until(
        lambda: len(now := recorders(server)) == count and not lost.keys() & now.keys(), 20, f"others than {lost}"
    )


def wait_written(folder: Path, count: int) -> None:
    """Wait until all files grow: the recorders are at work."""
    before = {path: path.stat().st_size for path in folder.iterdir()}

    def grown() -> bool:
        now = {path: path.stat().st_size for path in folder.iterdir()}
        return sum(size > before.get(path, 0) for path, size in now.items()) >= count

    wait_until(grown, 20, "more in the files")


def said(handler: Path) -> list[list[str]]:
    found = handler.parent.glob(f"{handler.name}.RECORDING_END.*")
    return [path.read_text().splitlines() for path in found if path.suffix != ".part"]


def decode_errors(path: Path) -> str:
    done = run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], 120)
    return done.stderr.decode()


def test_recordings_outlive_their_processes(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    handler = tmp_path / "handler"
    handler.write_text(HANDLER)
    handler.chmod(0o755)
    media = tmp_path / "media"
    triggers = {"RECORDING_END": [{"handler": str(handler), "sync": False, "streams": []}]}
    server = make_server(streams=STREAMS, config={"triggers": triggers})
    publisher = publish(server, RECORDED)
    server.wait_tracks(2)
    targets = [f"{media}/a.{suffix}" for suffix in ONE_FILE] + [f"{media}/$segmentCounter.ts?split=2&m3u8=list.m3u8"]
    for target in targets:
        server.api({"push_start": ["live", target]})
    count = len(targets)
    wait_until(lambda: len(recorders(server)) == count, 20, "the recorders")
    wait_until(lambda: media.exists() and len(list(media.glob("*.*"))) >= count, 20, "the files")
    wait_written(media, count)

    for how in (signal.SIGKILL, signal.SIGSEGV):
        lose(server, how, count)
        wait_written(media, count)
    before = recorders(server)
    lost = guardians(server)
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(now := guardians(server)) == 1 and not now & lost, 20, "another guardian")
    wait_written(media, count)
    assert recorders(server) == before
    for pid in (*guardians(server), *recorders(server)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(now := recorders(server)) == count and not now.keys() & before.keys(), 20, "other recorders")
    wait_written(media, count)
    before = recorders(server)
    lose(server, signal.SIGSTOP, count)
    wait_written(media, count)

    publisher.wait(40)
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 30, "the end of the pushes")
    source = read_media(RECORDED.flv())
    for suffix in ONE_FILE:
        path = media / f"a.{suffix}"
        missing = compare(source, read_media(path), tolerance_us=TOLERANCE_US)
        assert {after for _, after in missing.values()} == {0}, suffix
        assert decode_errors(path) == "", suffix
    listed = parse_playlist((media / "list.m3u8").read_bytes())
    assert isinstance(listed, MediaPlaylist)
    assert listed.ended
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((media / one.uri).read_bytes() for one in listed.segments))
    missing = compare(source, read_media(joined), tolerance_us=TOLERANCE_US)
    assert {after for _, after in missing.values()} == {0}

    ends = wait_until(lambda: len(found := said(handler)) >= count and found, 10, "the ends")
    assert len(ends) == count
    for lines in ends:
        path = Path(lines[1])
        whole = sum((media / one.uri).stat().st_size for one in listed.segments)
        size = whole if path.name[0].isdigit() else path.stat().st_size
        assert int(lines[3]) == size, lines
        assert int(lines[7]) in range(18_000, 21_000), lines
        assert lines[10] == "CLEAN_EOF"
    assert not list((server.runtime_folder / "push").iterdir())


def test_an_upgrade_goes_on_in_the_same_file(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    server = make_server(streams=STREAMS)
    publish(server, UPGRADED, loop=True)
    server.wait_tracks(2)
    paths = [tmp_path / "media" / name for name in ("a.ts", "a.mkv")]
    for path in paths:
        server.api({"push_start": ["live", str(path)]})
    wait_until(lambda: all(path.exists() and path.stat().st_size > 10_000 for path in paths), 20, "the files")
    before = recorders(server)
    done = mist(server, "upgrade", "--instance", server.instance)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wait_until(lambda: len(now := recorders(server)) == 2 and not now.keys() & before.keys(), 30, "other recorders")
    wait_written(tmp_path / "media", 2)
    server.api({"push_stop": [1, 2]})
    wait_until(lambda: not recorders(server), 20, "the end of the recordings")
    source = [packet.digest for packet in read_media(UPGRADED.flv()).of("video")]
    for path in paths:
        found = [source.index(packet.digest) for packet in read_media(path).of("video")]
        assert all(after == (one + 1) % len(source) for one, after in pairwise(found)), path
        assert decode_errors(path) == "", path


def test_a_stream_stays_for_the_recorder_that_comes_after_its_end(
    make_server: MakeServer, publish: Publish, tmp_path: Path
) -> None:
    """The recorders are killed as the publisher leaves; their guardian hangs, so that others come long after the time-out."""
    server = make_server(streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 1}})
    with PutSink() as sink:
        publisher = publish(server, LAST)
        server.wait_tracks(2)
        names = ("a.flv", "b.ts")
        for name in names:
            server.api({"push_start": ["live", f"{tmp_path}/{name}?start=1"]})
            server.api({"push_start": ["live", f"http://127.0.0.1:{sink.port}/{name}?start=1"]})
        wait_until(lambda: len(recorders(server)) == 4, 20, "the recorders")
        [guardian] = guardians(server)
        lost = recorders(server)
        publisher.wait(40)
        os.kill(guardian, signal.SIGSTOP)
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        server.wait_log("The recording goes on", 60)
        wait_until(lambda: not server.api({"push_list": 1})["push_list"], 60, "the end of the pushes")
        for name in names:
            (tmp_path / f"sent-{name}").write_bytes(sink.files[f"/{name}"])
    wait_until(lambda: not server.api({"active_streams": 1})["active_streams"], 20, "the end of the stream")
    source = read_media(LAST.flv())
    for path in (*(tmp_path / name for name in names), *(tmp_path / f"sent-{name}" for name in names)):
        missing = compare(source, read_media(path), tolerance_us=TOLERANCE_US)
        assert {after for _, after in missing.values()} == {0}, path
    assert not list((server.runtime_folder / "push").iterdir())


@pytest.mark.parametrize(
    "order", [{"push_stop": [1, 2, 3, 4, 5, 6]}, {"deletestream": "live"}, {"nuke_stream": "live"}]
)
@pytest.mark.parametrize("killed_first", [False, True])
def test_recorders_killed_as_they_are_to_end(
    make_server: MakeServer, publish: Publish, tmp_path: Path, order: dict[str, Any], killed_first: bool
) -> None:
    """Because they are stopped, or because their stream is removed: other processes end the files, tell of it, and leave."""
    handler = tmp_path / "handler"
    handler.write_text(HANDLER)
    handler.chmod(0o755)
    triggers = {"RECORDING_END": [{"handler": str(handler), "sync": False, "streams": []}]}
    server = make_server(streams=STREAMS, config={"triggers": triggers})
    publish(server, UPGRADED, loop=True)
    server.wait_tracks(2)
    paths = [tmp_path / "media" / f"a.{suffix}" for suffix in (*ONE_FILE, "dtsc")]
    with PutSink() as sink:
        for target in (*map(str, paths), f"http://127.0.0.1:{sink.port}/a.ts"):
            server.api({"push_start": ["live", target]})
        wait_until(lambda: len(recorders(server)) == 6, 20, "the recorders")
        wait_until(lambda: all(path.exists() for path in paths), 20, "the files")
        wait_written(tmp_path / "media", len(paths))
        doing = [lambda: server.api(order)]
        for pid in recorders(server):
            doing.insert(0 if killed_first else len(doing), partial(_kill, pid))
        for do in doing:
            do()
        wait_until(lambda: not server.api({"push_list": 1})["push_list"], 30, "the end of the pushes")
        wait_until(lambda: not recorders(server), 20, "the end of the recorders")
        wait_until(lambda: {lines[1] for lines in said(handler)} >= {*map(str, paths)}, 30, "the ends")
        for lines in said(handler):
            if lines[1].startswith("/"):
                assert int(lines[3]) == Path(lines[1]).stat().st_size, lines
                assert "CLEAN" in lines[10] or lines[10] == "UNKNOWN", lines
    for path in paths[:-1]:
        assert decode_errors(path) == "", path
    assert not list((server.runtime_folder / "push").iterdir())


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it may have ended by then
        os.kill(pid, signal.SIGKILL)
