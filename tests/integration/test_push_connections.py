"""Pushes to other servers go on in their connections when their processes are killed, hang or are replaced: each packet arrives once."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.integration.test_runtime import mist
from tests.support.live import FRAME_MS, assert_rising, viewer, wait_mark
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer

pytestmark = pytest.mark.timeout(240)
STREAM = {"source": "push://", "inputtimeout": 20}
BLOWS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)


def workers(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes_titled("mist: push")}


def guardians(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes_titled("mist: guardian pushes")}


def replaced(server: MistServer, former: set[int]) -> bool:
    now = workers(server)
    return bool(now) and not now & former


def status(server: MistServer) -> dict[int, dict[str, int]]:
    """Return how far each push is."""
    return {row[0]: row[5] for row in server.api({"push_list": 1})["push_list"] or [] if len(row) > 5}


def publishers(server: MistServer) -> list[str]:
    """Return the lines that tell of a publisher that came."""
    return [line for line in server.log if "Stream is live" in line]


class Scene:
    """A server that pushes one stream to three of another one, where each is watched."""

    def __init__(self, make_server: MakeServer, send_to: SendTo, stack: ExitStack) -> None:
        port = free_port()
        self.there = make_server(
            streams={"one": STREAM, "two": STREAM, "three": STREAM},
            protocols={"DTSC": {"port": port, "interface": "127.0.0.1"}},
        )
        self.here = make_server(streams={"live": {**STREAM, "inputtimeout": 4}})
        self.sender = send_to(self.here)
        self.sender.send([n * FRAME_MS for n in range(60)], headers=True)
        self.sender.keep_sending()
        targets = {
            "one": f"rtmp://127.0.0.1:{self.there.rtmp_port}/live/one",
            "two": f"dtsc://127.0.0.1:{port}/two",
            "three": f"rtmp://127.0.0.1:{self.there.rtmp_port}/live/three?audio=none,silence",
        }
        for target in targets.values():
            self.here.api({"push_start": ["live", target]})
        for stream in targets:
            self.there.wait_tracks(2, stream)
        self.seen = [stack.enter_context(viewer(self.there, stream)) for stream in targets]
        self.go_on()
        wait_until(lambda: len(status(self.here)) == len(targets), 15, "figures")

    def go_on(self) -> None:
        """Wait until everybody sees what is published now."""
        number = self.sender.number
        for one in self.seen:
            wait_mark(one, number + 10)

    def strike(self, blow: signal.Signals) -> None:
        """Lose all workers, and see that others go on."""
        former = workers(self.here)
        for pid in former:
            os.kill(pid, blow)
        wait_until(lambda: replaced(self.here, former), 20, "other workers")
        self.go_on()

    def check(self) -> None:
        """Fail unless each packet arrived once, in connections that were made once."""

        def figures_of_the_whole() -> bool:
            found = status(self.here)
            return set(found) == {1, 2, 3} and all(one["active_ms"] >= 6000 for one in found.values())

        wait_until(figures_of_the_whole, 20, "figures of the whole")
        self.sender.close()
        for one in self.seen[:2]:
            assert_rising(one)
        assert len(publishers(self.there)) == len(self.seen), "a connection was made again"
        wait_until(lambda: not self.here.api({"push_list": 1})["push_list"], 20, "the end of the pushes")
        assert not [line for line in self.here.log if "cannot be continued" in line]


def test_killed_and_stopped(make_server: MakeServer, send_to: SendTo) -> None:
    with ExitStack() as stack:
        scene = Scene(make_server, send_to, stack)
        for blow in BLOWS:
            scene.strike(blow)
        former, lost = workers(scene.here), guardians(scene.here)
        for pid in lost:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(now := guardians(scene.here)) == 1 and not now & lost, 20, "another guardian")
        scene.go_on()
        assert workers(scene.here) == former
        scene.strike(signal.SIGKILL)  # the next guardian holds the connections as well
        scene.check()


def test_an_upgrade(make_server: MakeServer, send_to: SendTo) -> None:
    with ExitStack() as stack:
        scene = Scene(make_server, send_to, stack)
        former = workers(scene.here)
        done = mist(scene.here, "upgrade", "--instance", scene.here.instance)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert replaced(scene.here, former)
        scene.go_on()
        scene.check()


def test_a_server_that_goes_meanwhile(make_server: MakeServer, send_to: SendTo) -> None:
    """The next process finds the connection broken, and says so."""
    here = make_server(streams={"live": {**STREAM, "inputtimeout": 4}})
    there = make_server(streams={"one": STREAM})
    sender = send_to(here)
    sender.send([n * FRAME_MS for n in range(60)], headers=True)
    sender.keep_sending()
    here.api({"push_start": ["live", f"rtmp://127.0.0.1:{there.rtmp_port}/live/one"]})
    there.wait_tracks(2, "one")
    former = workers(here)
    for pid in former:
        os.kill(pid, signal.SIGSTOP)
    for one in there.processes_titled("mist: input one"):
        os.kill(one.pid, signal.SIGKILL)
    there.stop(check=False)
    for pid in former:
        os.kill(pid, signal.SIGKILL)
    here.wait_log("ended: ", 20)
    wait_until(lambda: not here.api({"push_list": 1})["push_list"], 20, "the end of the push")
    with socket.create_connection(("127.0.0.1", here.rtmp_port), 5):
        pass
    sender.close()
