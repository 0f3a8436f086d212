"""Many automatic pushes to one server: they share processes, and each one's end is its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Publish
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx, rtmp_module
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer

pytestmark = [
    pytest.mark.tools("nginx", "ffmpeg"),
    pytest.mark.skipif(rtmp_module() is None, reason="nginx has no RTMP module"),
]
SAMPLE = Sample("pushed", BFRAMES)
COUNT = 60
REFUSED = 6


@pytest.fixture(scope="module")
def server() -> Iterator[MistServer]:
    with MistServer(streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 4}}) as started:
        yield started


def rows(server: MistServer) -> dict[int, list[Any]]:
    return {row[0]: row for row in server.api({"push_list": 1})["push_list"] or []}


def sending(server: MistServer) -> set[int]:
    """Return the numbers of the pushes that have sent something."""
    return {number for number, row in rows(server).items() if len(row) > 5 and row[5].get("bytes")}


def workers(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes_titled("mist: push")}


def guardians(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes_titled("mist: guardian pushes")}


def test_many_pushes(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    nobody = free_port()
    with Nginx(tmp_path, rtmp="meta off;") as sink:
        targets = {f"r{n}": sink.url(f"s{n}") for n in range(COUNT)}
        targets |= {f"x{n}": f"rtmp://127.0.0.1:{nobody}/live/s{n}" for n in range(REFUSED)}
        rules = {name: {"stream": "live", "target": target} for name, target in targets.items()}
        server.api({"push_settings": {"wait": 1}, "push_auto_add": rules})
        first = wait_until(lambda: len(found := sending(server)) == COUNT and found, 40, "all pushes")
        assert len(workers(server)) <= (os.cpu_count() or 1)
        assert len(guardians(server)) == 1

        refused = f"{nobody} cannot be reached"  # each is over before a list would show it
        wait_until(lambda: sum(refused in line for line in server.log) > 3 * REFUSED, 20, "more attempts of those")
        assert sending(server) == first, "a push that fails concerns only itself"

        server.api({"push_stop_graceful": min(first)})
        wait_until(lambda: min(first) not in rows(server), 10, "the end of one push")
        again = wait_until(lambda: len(found := sending(server)) == COUNT and found, 30, "the push of the rule")
        assert len(again - first) == 1

        lost = workers(server)
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: (now := workers(server)) and not now & lost, 20, "other workers")
        wait_until(lambda: sending(server) == again, 30, "the same pushes")
        kept = workers(server)
        for pid in guardians(server):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(guardians(server)) == 1, 20, "another guardian")
        stamp = {number: row[5].get("bytes", 0) for number, row in rows(server).items() if number in again}
        wait_until(
            lambda: all(
                row[5].get("bytes", 0) > stamp[number] for number, row in rows(server).items() if number in again
            ),
            20,
            "more bytes of all",
        )
        assert kept <= workers(server)  # another one may have begun since
        assert sending(server) == again

    wait_until(lambda: not sending(server), 20, "the end of all pushes: the server is away")
    server.api({"push_auto_remove": list(rules), "push_stop": "live"})
    wait_until(lambda: not rows(server), 20, "no push")
    wait_until(lambda: not workers(server) and not guardians(server), 30, "no process of pushes")
    assert not list((server.runtime_folder / "push").iterdir())
