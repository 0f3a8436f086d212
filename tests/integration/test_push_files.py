"""Recordings whose files go elsewhere: by HTTP PUT, to S3, through programs; and destinations that are away for a while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Publish
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.s3 import S3Server
from tests.support.server import MistServer

SAMPLE = Sample("pushed", BFRAMES)
TICK_US = 1001


@pytest.fixture(scope="module")
def server() -> Iterator[MistServer]:
    with MistServer(streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 1}}) as started:
        yield started


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink() as started:
        yield started


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as started:
        started.put("media", "first", b"x")
        yield started


def pushes(server: MistServer) -> list[list[Any]]:
    return server.api({"push_list": 1})["push_list"] or []


def record(server: MistServer, publish: Publish, target: str) -> None:
    """Publish the sample once, and record it to its end."""
    publisher = publish(server, SAMPLE)
    server.wait_tracks(2)
    server.api({"push_start": ["live", f"{target}{'&' if '?' in target else '?'}start=1"]})
    publisher.wait(30)
    wait_until(lambda: not pushes(server), 20, "the end of the push")
    wait_idle(server)


def wait_idle(server: MistServer) -> None:
    """Wait until the stream has ended, so that nothing of it is in the next recording."""
    wait_until(lambda: "live" not in (server.api({"active_streams": 1})["active_streams"] or []), 15, "its end")


def kill_worker(server: MistServer) -> None:
    """Kill the process of the only push, and wait for the next one."""
    [before] = server.processes_titled("mist: push live to")
    os.kill(before.pid, signal.SIGKILL)
    wait_until(
        lambda: [one for one in server.processes_titled("mist: push live to") if one.pid != before.pid],
        20,
        "another process",
    )
    server.wait_log("of the process before wait for the destination", 10)


def assert_same(data: bytes, path: Path) -> None:
    """Compare with what was published."""
    path.write_bytes(data)
    missing = compare(read_media(SAMPLE.flv()), read_media(path), tolerance_us=TICK_US)
    assert {after for _, after in missing.values()} == {0}


@pytest.mark.parametrize("needs_length", [False, True])
def test_a_file_by_put(server: MistServer, publish: Publish, sink: PutSink, tmp_path: Path, needs_length: bool) -> None:
    """In HTTP chunks as it grows, or with its length where the server wants that."""
    sink.needs_length = needs_length
    record(server, publish, f"http://me:word@127.0.0.1:{sink.port}/a%20b/$stream.mkv")
    assert sorted(sink.files) == ["/a%20b/live.mkv"]
    assert_same(sink.files["/a%20b/live.mkv"], tmp_path / "a.mkv")
    headers = sink.headers["/a%20b/live.mkv"]
    assert (headers["Content-Type"], headers["Authorization"]) == ("video/x-matroska", "Basic bWU6d29yZA==")
    assert ("Transfer-Encoding" in headers) is not needs_length
    assert not any("word" in line for line in server.log if "push" in line and "CONF" not in line)


def test_segments_and_a_playlist_that_slides(server: MistServer, publish: Publish, sink: PutSink) -> None:
    record(server, publish, f"{sink.url}/hls/$segmentCounter.ts?m3u8=../live.m3u8&split=1&maxEntries=3")
    listed = [line for line in sink.files["/live.m3u8"].decode().splitlines() if not line.startswith("#")]
    assert len(listed) == 3
    assert {f"/{name}" for name in listed} | {"/live.m3u8"} == set(sink.files)
    assert ("DELETE", "/hls/0.ts", "") in sink.requests
    assert all(data[:1] == b"G" and len(data) % 188 == 0 for name, data in sink.files.items() if name.endswith(".ts"))


def test_what_comes_while_the_destination_is_away_follows_in_order(
    server: MistServer, publish: Publish, tmp_path: Path
) -> None:
    """Also when the process that has what waits is killed, while it records and after that."""
    sink = PutSink()
    publisher = publish(server, SAMPLE)
    server.wait_tracks(2)
    server.api({"push_start": ["live", f"{sink.url}/$segmentCounter.ts?m3u8=list.m3u8&split=1&start=1"]})
    [row] = wait_until(
        lambda: [row for row in pushes(server) if len(row) > 5 and "trouble" in row[5]], 15, "its status"
    )
    assert row[5]["buffer_bytes"] > 0
    assert str(sink.port) in row[5]["trouble"]
    server.wait_log("The destination is away, what comes waits on disk", 5)
    kill_worker(server)
    publisher.wait(30)
    wait_idle(server)
    kill_worker(server)
    with sink:
        wait_until(lambda: not pushes(server), 30, "the end of the push")
    server.wait_log("The destination is back", 5)
    order = [path for _, path, _ in sink.requests]
    numbers = [int(path[1:-3]) for path in order if path.endswith(".ts")]
    assert numbers == sorted(set(numbers))
    listed = [line for line in sink.files["/list.m3u8"].decode().splitlines() if not line.startswith("#")]
    assert listed == [f"{number}.ts" for number in numbers]
    assert_same(b"".join(sink.files[f"/{number}.ts"] for number in numbers), tmp_path / "whole.ts")


def test_a_refusal_ends_the_push(server: MistServer, publish: Publish, sink: PutSink) -> None:
    sink.status = 403
    publisher = publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": ["live", f"{sink.url}/a.ts"]})
    server.wait_log("the server answers 403 Forbidden (WRITE_FAILURE)", 10)
    server.api({"push_start": ["live", "gopher://127.0.0.1/a.ts"]})
    server.wait_log("No output pushes to gopher://127.0.0.1/a.ts", 10)
    publisher.stop()
    wait_idle(server)


def test_a_program_of_the_operator(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    """It gets the file on its standard input and the URL as its last word."""
    script = tmp_path / "write it"
    script.write_text('#!/bin/sh\ncat >"$1/$(basename "$2")"\n')
    script.chmod(0o755)
    writer = {"name": "mine", "cmdline": f"'{script}' {tmp_path}", "protocols": ["keep", "other://"]}
    server.api({"external_writer_add": writer})
    try:
        record(server, publish, "keep://somewhere/else/$stream.flv")
        assert_same((tmp_path / "live.flv").read_bytes(), tmp_path / "copy.flv")
        room = tmp_path / "room"
        fails = f"test -e {room} || {{ echo no room >&2; exit 3; }}; cat"
        server.api({"external_writer_add": {**writer, "cmdline": f"sh -c '{fails}'"}})
        publisher = publish(server, SAMPLE, loop=True)
        server.wait_tracks(2)
        server.api({"push_start": ["live", "other://somewhere/a.ts"]})
        server.wait_log("the external writer mine ended with 3: no room", 10)
        room.touch()
        server.api({"push_stop": "live"})
        publisher.stop()
        wait_until(lambda: not pushes(server), 40, "the end of the push")
        wait_idle(server)
    finally:
        server.api({"external_writer_remove": "mine"})


@pytest.mark.tools("moto_server")
def test_s3(server: MistServer, publish: Publish, s3: S3Server, tmp_path: Path) -> None:
    record(server, publish, s3.source("media/a b/") + "$stream.mkv")
    assert_same(s3.get("media/a b/live.mkv"), tmp_path / "a.mkv")
    record(server, publish, s3.source("media/hls/") + "$segmentCounter.ts?m3u8=live.m3u8&split=1&maxEntries=2")
    listed = [line for line in s3.get("media/hls/live.m3u8").decode().splitlines() if not line.startswith("#")]
    assert len(listed) == 2
    assert s3.names("media", "hls/") == sorted([*(f"hls/{name}" for name in listed), "hls/live.m3u8"])


@pytest.mark.tools("moto_server")
def test_s3_with_wrong_keys(server: MistServer, publish: Publish, s3: S3Server) -> None:
    publisher = publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": ["live", s3.source("media/b.ts", secret="wrong") + "?duration=1"]})
    server.wait_log("SignatureDoesNotMatch", 15)
    publisher.stop()
    wait_until(lambda: not pushes(server), 10, "the end of the push")
