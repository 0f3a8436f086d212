"""Streams pushed to programs: what they read is the stream, and they end with the push, however that ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, Publish
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer

SENT = Sample("programs", BFRAMES, seconds=5)
STREAMS = {"live": {"source": "push://127.0.0.1", "inputtimeout": 2}, "film": {"source": str(SENT.flv())}}
# Writes its own number and that of a child, then what it reads; names the end of its input.
PROGRAM = """#!/bin/sh
sleep 1000 &
echo "$$ $!" > "$1.pids"
cat > "$1"
kill $!
echo ended > "$1.end"
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "program"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    yield path


def alive(files: Path) -> list[int]:
    """Return those processes of a program that run."""
    return [int(pid) for pid in Path(f"{files}.pids").read_text().split() if Path(f"/proc/{pid}/cmdline").exists()]


def ended(server: MistServer) -> bool:
    return not server.api({"push_list": 1})["push_list"]


def test_programs_read_the_stream(make_server: MakeServer, publish: Publish, program: Path, tmp_path: Path) -> None:
    """Live until its end, and a film at the speed of its clock."""
    server = make_server(streams=STREAMS)
    publisher = publish(server, SENT)
    server.wait_tracks(2)
    server.api({"push_start": ["live", f"ts-exec:{program} '{tmp_path}/live $stream.ts'?start=1"]})
    server.api({"push_start": ["film", f"EBML:mkv-exec:{program} {tmp_path}/film.mkv"]})
    publisher.wait(40)
    wait_until(lambda: ended(server), 40, "the end of the pushes")
    source = read_media(SENT.flv())
    for name in ("live live.ts", "film.mkv"):
        assert (tmp_path / f"{name}.end").exists(), name
        assert alive(tmp_path / name) == []
        missing = compare(source, read_media(tmp_path / name), tolerance_us=1001)
        assert {after for _, after in missing.values()} == {0}, name


def test_programs_end_with_their_push(make_server: MakeServer, publish: Publish, program: Path, tmp_path: Path) -> None:
    """When it is stopped they see the end of their input; when its process is killed they are, and another is started."""
    server = make_server(streams=STREAMS)
    publish(server, SENT, loop=True)
    server.wait_tracks(2)
    media = tmp_path / "media.ts"
    server.api({"push_start": ["live", f"ts-exec:{program} {media}"]})
    wait_until(lambda: media.exists() and media.stat().st_size > 0, 20, "media")
    [worker] = wait_until(lambda: server.processes_titled("mist: push live to "), 20, "the push")
    first = alive(media)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: first[0] not in alive(media) and len(alive(media)) == 2, 20, "another program")
    server.api({"push_stop": [1]})
    wait_until(lambda: ended(server), 20, "the end of the push")
    assert alive(media) == []
    assert Path(f"{media}.end").exists()


def test_a_program_that_fails_is_named(make_server: MakeServer, publish: Publish) -> None:
    server = make_server(streams=STREAMS)
    publish(server, SENT, loop=True)
    server.wait_tracks(2)
    server.api({"push_start": ["live", "ts-exec:/nowhere/at/all"]})
    server.wait_log("/nowhere/at/all cannot be started", 20)
    server.api({"push_start": ["live", "ts-exec:sh -c 'echo no room >&2; exit 3'"]})
    server.wait_log("sh ended with 3: no room", 20)
