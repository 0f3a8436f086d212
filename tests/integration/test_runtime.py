"""Processes: each may be killed and the others go on; publishers and viewers come and go; nothing is left at the end."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mist.controller.state import FEW_SESSIONS
from tests.integration.conftest import MakeServer
from tests.support.ports import free_port
from tests.support.processes import cpu_seconds, descriptors, look, pss_kib, wait_until
from tests.support.rtmp_peer import Refused, RtmpPeer
from tests.support.server import MistServer, ServerFailed

FRAME_S = 0.04
FRAMES_PER_KEY = 10
# Of a server whose ports nobody has visited (docs/performance.md).
IDLE_PSS_KIB = 60 * 1024


class Publisher:
    """An encoder of a few lines: a picture every 40 ms, from a thread, until stopped."""

    def __init__(self, server: MistServer, stream: str = "live", app: str = "live") -> None:
        self.peer = RtmpPeer(server.rtmp_port)
        try:
            self.peer.publish(stream, app)
            self.peer.send_headers(audio=False)
        except BaseException:
            self.peer.socket.close()
            raise
        self._frame = 0
        self._ended = threading.Event()
        self._paused = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while not self._ended.wait(FRAME_S):
                if not self._paused.is_set():
                    key = self._frame % FRAMES_PER_KEY == 0
                    self.peer.send_video(int(self._frame * FRAME_S * 1000), os.urandom(400), key=key)
                    self._frame += 1

    def pause(self) -> None:
        """Stop sending and stay connected."""
        self._paused.set()

    def is_connected(self) -> bool:
        """Tell whether the server has not hung up."""
        try:
            while select.select([self.peer.socket], [], [], 0)[0]:
                if not self.peer.socket.recv(4096):
                    return False
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self.peer.socket.close()


class Viewer:
    """A player of a few lines: asks for FLV over HTTP and counts what comes."""

    def __init__(self, server: MistServer, stream: str = "live") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.http_port), timeout=10)
        self.socket.sendall(f"GET /{stream}.flv HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.bytes = 0
        self.ended = False

    def read(self, seconds: float = 0.0) -> int:
        """Read for so long and return the bytes that came."""
        before, deadline = self.bytes, time.monotonic() + seconds
        while not self.ended:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self.socket], [], [], left)
            if not readable:
                break
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            self.bytes += len(data)
            self.ended = not data
        return self.bytes - before

    def read_more(self, count: int = 4000, timeout_s: float = 10) -> None:
        """Read until that many more bytes have come."""
        goal = self.bytes + count

        def arrived() -> bool:
            self.read(0.02)
            return self.bytes >= goal or self.ended

        wait_until(arrived, timeout_s, "media")
        assert self.bytes >= goal, "the connection ended"

    def close(self) -> None:
        self.socket.close()


class People:
    """Makes publishers and viewers, and sends them home at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def publisher(self, server: MistServer, stream: str = "live", app: str = "live") -> Publisher:
        made = Publisher(server, stream, app)
        self._stack.callback(made.stop)
        return made

    def viewer(self, server: MistServer, stream: str = "live") -> Viewer:
        made = Viewer(server, stream)
        self._stack.callback(made.close)
        return made


@pytest.fixture
def people() -> Iterator[People]:
    with ExitStack() as stack:
        yield People(stack)


def pid_of(server: MistServer, title: str) -> int:
    """Return the number of the one process with this title."""
    found = wait_until(lambda: server.processes_titled(f"mist: {title}"), 5, f"a process titled {title}")
    assert len(found) == 1, found
    return found[0].pid


def kill(server: MistServer, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(one.pid != pid for one in server.processes()), 5, f"the end of {pid}")


def another(server: MistServer, title: str, former: int) -> int:
    """Return the number of the process that took the place of a killed one."""

    def find() -> int:
        return next((one.pid for one in server.processes_titled(f"mist: {title}") if one.pid != former), 0)

    return wait_until(find, 8, f"another {title}")


def status(server: MistServer) -> dict[str, Any]:
    """Return what `mist status --json` prints."""
    found = mist(server, "status", "--json", "--instance", server.instance)
    assert found.returncode == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def mist(server: MistServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_mist(arguments, {"MIST_RUNTIME_DIR": str(server.runtime_base)})


def run_mist(arguments: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mist", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=240,  # an upgrade takes as long as the machine is busy; the time limit of the test comes first
        check=False,
    )


def stream_state(server: MistServer, stream: str = "live") -> str:
    return next((one["state"] for one in status(server)["streams"] if one["name"] == stream), "OFF")


def wait_ready(server: MistServer, stream: str = "live") -> None:
    server.wait_tracks(1, stream)


# -- death ---------------------------------------------------------------------------------------------------------


def test_the_viewers_of_a_killed_worker_go_on(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    first, second = people.viewer(server), people.viewer(server)
    first.read_more()
    second.read_more()
    busy = wait_until(
        lambda: [p for p in server.processes_titled("mist: output HTTP") if "(1 connection)" in p.title], 5, "workers"
    )
    kill(server, busy[0].pid)
    another(server, "output HTTP (1", busy[0].pid)
    first.read_more()
    second.read_more()
    third = people.viewer(server)
    third.read_more()
    wait_until(lambda: not (server.runtime_folder / "bell" / str(busy[0].pid)).exists(), 5, "its doorbell gone")


def test_a_killed_listener_guardian_is_replaced_and_its_workers_go_on(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    former = pid_of(server, "guardian HTTP")
    workers = {one.pid for one in server.processes_titled("mist: output HTTP")}
    kill(server, former)
    another(server, "guardian HTTP", former)
    viewer.read_more()
    newcomer = people.viewer(server)
    newcomer.read_more()
    viewer.close()
    assert workers & {one.pid for one in server.processes()}, "the workers that were left go on"
    newcomer.read_more()


def test_a_killed_controller_comes_back_and_nobody_notices(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    former = pid_of(server, "controller")
    kill(server, former)
    # Its socket is the main process's: a request that comes now waits for the next controller.
    assert "authorize" in server.api({"authorize": {}}, timeout_s=15)
    assert pid_of(server, "controller") != former
    viewer.read_more()


def test_what_a_killed_controller_knew_of_many_sessions_is_known_by_the_next(
    server: MistServer, people: People
) -> None:
    """So many are written down by a process beside."""
    people.publisher(server)
    wait_ready(server)
    people.viewer(server).read_more()
    with ExitStack() as stack:
        for number in range(FEW_SESSIONS + 10):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 10))
            sock.sendall(f"GET /live.flv?tkn=many{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        def begun() -> dict[str, int]:
            """Return when each session of these began; the seconds differ, where a session is taken for a new one."""
            asked = {"clients": {"fields": ["conntime", "sessid"], "protocols": ["FLV"]}}
            return {row[1]: row[0] for row in server.api(asked, timeout_s=15)["clients"]["data"] or []}

        wait_until(lambda: len(begun()) > FEW_SESSIONS, 20, "all viewers")
        times: set[int] = set()

        def written_twice_more() -> bool:
            times.add((server.runtime_folder / "controller.state").stat().st_mtime_ns)
            return len(times) > 2

        wait_until(written_twice_more, 20, "the state")  # the first may have been begun before all were there
        before, former = begun(), pid_of(server, "controller")
        mark = len(server.log)
        kill(server, former)
        wait_until(lambda: len(begun()) >= len(before), 20, "the next controller's sessions")
        assert all(begun()[name] >= seconds for name, seconds in before.items())
        assert not [line for line in server.log[mark:] if "afresh" in line or "cannot be read" in line]
        assert {one.split(".")[-1] for one in os.listdir(server.runtime_folder) if ".controller.state." in one} == set()


def test_a_killed_input_is_replaced_and_its_publisher_stays(server: MistServer, people: People) -> None:
    publisher = people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    former = pid_of(server, "input live")
    kill(server, former)
    another(server, "input live", former)
    viewer.read_more()
    assert publisher.is_connected() and not viewer.ended
    assert stream_state(server) == "READY"


def test_a_killed_pulled_input_is_started_again(make_server: MakeServer, people: People) -> None:
    pytest.importorskip("av")
    server = make_server(streams={"test": {"source": "demo:?width=64&height=64&fps=10"}})
    viewer = people.viewer(server, "test")
    viewer.read_more()
    former = pid_of(server, "input test")
    kill(server, former)
    another(server, "input test", former)
    viewer.read_more()


def test_a_killed_input_guardian_is_replaced_and_the_input_goes_on(server: MistServer, people: People) -> None:
    publisher = people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    former = pid_of(server, "guardian input live")
    feeder = pid_of(server, "input live")
    kill(server, former)
    another(server, "guardian input live", former)
    viewer.read_more()
    people.viewer(server).read_more()
    assert pid_of(server, "input live") == feeder
    with pytest.raises(Refused, match="publisher"):
        people.publisher(server)
    publisher.stop()
    wait_until(lambda: look(feeder) is None, 10, "the end of the input")
    wait_until(lambda: stream_state(server) == "WAIT", 10, "a stream without publisher")
    people.publisher(server)
    viewer.read_more()


def test_a_hung_worker_does_not_hold_up_the_end(make_server: MakeServer, people: People) -> None:
    with MistServer() as server:
        people.publisher(server)
        wait_ready(server)
        people.viewer(server).read_more()
        os.kill(pid_of(server, "input live"), signal.SIGSTOP)
        os.kill(pid_of(server, "guardian RTMP"), signal.SIGSTOP)
        # Leaving the block checks that all ends in time and that nothing is left.


def test_a_main_process_that_does_not_come_back_is_the_end_of_all(people: People) -> None:
    server = MistServer(env={"MIST_REJOIN_SECONDS": "0.5"})
    server.start()
    try:
        people.publisher(server)
        wait_ready(server)
        people.viewer(server).read_more()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.processes(), 5, "the end of all processes")
        wait_until(lambda: not server.running, 5, "the end of the main process")
    finally:
        server.stop(check=False)


def test_a_new_server_clears_what_a_killed_one_left(people: People) -> None:
    server = MistServer()
    server.start()
    try:
        people.publisher(server)
        wait_ready(server)
        for one in server.processes():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: not server.processes(), 5, "the end of all processes")
        wait_until(lambda: not server.running, 5, "the end of the main process")
        assert server.shared_memory()
        assert server.runtime_folder.exists()
        server.start()
        wait_until(lambda: "live" not in "".join(server.shared_memory()), 1, "a clean start")
        people.publisher(server)
        wait_ready(server)
    finally:
        server.stop()


# -- publishers ----------------------------------------------------------------------------------------------------


def test_a_second_publisher_is_refused_while_the_first_sends(server: MistServer, people: People) -> None:
    first = people.publisher(server)
    wait_ready(server)
    with pytest.raises(Refused, match="has a publisher"):
        people.publisher(server)
    assert first.is_connected()
    people.viewer(server).read_more()


def test_a_silent_publisher_gives_way(server: MistServer, people: People) -> None:
    first = people.publisher(server)
    wait_ready(server)
    first.pause()
    deadline = time.monotonic() + 30
    while True:
        try:
            people.publisher(server)
            break
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.25)
    wait_until(lambda: not first.is_connected(), 5, "the end of the silent publisher")
    people.viewer(server).read_more()


def test_takeover_lets_the_newest_publisher_in(make_server: MakeServer, people: People) -> None:
    server = make_server(streams={"live": {"source": "push://127.0.0.1", "publisher": "takeover"}})
    first = people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    people.publisher(server)
    wait_until(lambda: not first.is_connected(), 5, "the end of the first publisher")
    viewer.read_more()
    assert len(server.processes_titled("mist: input live")) == 1


def test_a_stream_ends_when_no_publisher_comes_back(make_server: MakeServer, people: People) -> None:
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 1}})
    publisher = people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    publisher.stop()
    wait_until(lambda: viewer.read(0.05) >= 0 and viewer.ended, 8, "the viewer's end")
    wait_until(lambda: not server.processes_titled("mist: guardian input live"), 5, "the guardian's end")
    assert not [name for name in server.shared_memory() if ".live" in name]
    people.publisher(server)
    people.viewer(server)
    wait_ready(server)


def test_publishing_to_what_is_not_configured_is_refused(server: MistServer, people: People) -> None:
    with pytest.raises(Refused):
        people.publisher(server, "other")
    assert not server.processes_titled("mist: guardian input")


def test_wildcard_streams_are_streams_of_their_own(server: MistServer, people: People) -> None:
    people.publisher(server, "live+one")
    people.publisher(server, "live+Two")
    people.viewer(server, "live+one")
    wait_ready(server, "live+one")
    wait_ready(server, "live+Two")
    kill(server, pid_of(server, "input live+one"))
    people.viewer(server, "live+Two").read_more()


# -- viewers -------------------------------------------------------------------------------------------------------


def test_a_pulled_stream_runs_as_long_as_it_is_watched(make_server: MakeServer, people: People) -> None:
    pytest.importorskip("av")
    source = "demo:?width=64&height=64&fps=10"
    server = make_server(
        streams={"test": {"source": source, "inputtimeout": 1}, "kept": {"source": source, "always_on": True}}
    )
    wait_until(lambda: server.processes_titled("mist: input kept"), 10, "the stream that is always on")
    assert not server.processes_titled("mist: input test")
    viewers = [people.viewer(server, "test") for _ in range(5)]
    for viewer in viewers:
        viewer.read_more()
    assert len(server.processes_titled("mist: input test")) == 1
    for viewer in viewers:
        viewer.close()
    wait_until(lambda: not server.processes_titled("mist: input test"), 30, "the end of an unwatched stream")
    assert server.processes_titled("mist: input kept")


def test_a_stream_that_is_offline_gives_its_fallback(make_server: MakeServer, people: People) -> None:
    streams = {"live": {"source": "push://"}, "main": {"source": "push://", "fallback_stream": "live"}}
    server = make_server(streams=streams)
    people.publisher(server)
    wait_ready(server)
    people.viewer(server, "main").read_more()


def test_three_hundred_connections_spread_over_the_workers(make_server: MakeServer) -> None:
    workers = 6
    server = make_server(protocols={"HTTP": {"processes": workers}})
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=10))
            for _ in range(300)
        ]
        for connection in connections:
            connection.sendall(b"GET /nothing.flv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for connection in connections:
            assert connection.recv(4096).startswith(b"HTTP/1.1 404")
        counts = wait_until(lambda: connection_counts(server, 300), 10, "300 connections in the titles")
        assert len(counts) == workers
        assert max(counts) - min(counts) <= 2, counts
        guardian = pid_of(server, "guardian HTTP")
        assert len([one for one in descriptors(guardian) if one.startswith("socket:")]) >= 300
    wait_until(lambda: sum(connection_counts(server, 0)) == 0, 10, "no connections in the titles")
    wait_until(lambda: len(descriptors(guardian)) < 40, 5, "the guardian lets go of its duplicates")


def connection_counts(server: MistServer, total: int) -> list[int]:
    """Return how many connections each worker shows, once they are that many together, else an empty list."""
    found = [re.search(r"\((\d+) conn", one.title) for one in server.processes_titled("mist: output HTTP")]
    counts = [int(match[1]) if match else 0 for match in found]
    return counts if sum(counts) == total else []


def test_zero_processes_means_one_for_each_connection(make_server: MakeServer) -> None:
    server = make_server(protocols={"HTTP": {"processes": 0}})
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), timeout=10))
        counts = wait_until(lambda: connection_counts(server, 20), 10, "20 connections in the titles")
        assert sorted(counts)[-20:] == [1] * 20


def test_a_reply_that_closes_is_closed_at_once(server: MistServer) -> None:
    """The guardian's duplicate must not keep a connection open that the worker has closed."""
    for _ in range(5):
        # The worker looks for forgotten sockets every 5 s: what closes only then does so after this time-out.
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=4) as connection:
            connection.sendall(b"GET /nothing.flv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while connection.recv(4096):
                pass


def test_accepted_connections_are_undelayed(server: MistServer) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
        port = connection.getsockname()[1]
        row = wait_until(lambda: _socket_options(server.http_port, port), 5, "the accepted socket")
        assert "nodelay" in row or "nonagle" in row or "keepalive" in row, row


def _socket_options(server_port: int, client_port: int) -> str:
    """Return what `ss` says of the server's end of a connection; "" until the kernel lists it."""
    found = subprocess.run(
        ["ss", "-Htnoei", f"sport = :{server_port} and dport = :{client_port}"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return found.stdout


# -- configuration -------------------------------------------------------------------------------------------------


def test_a_port_in_use_at_the_first_start_is_one_clear_line() -> None:
    server = MistServer()
    with socket.create_server(("127.0.0.1", server.rtmp_port)), pytest.raises(ServerFailed) as failure:
        server.start()
    server.stop(check=False)
    assert re.search(rf"mist: port {server.rtmp_port} for RTMP is in use", str(failure.value)), failure.value
    assert "Traceback" not in str(failure.value)


def test_protocols_come_and_go_with_the_configuration(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    port = free_port()
    entry = {"connector": "HTTP", "port": port, "interface": "127.0.0.1"}
    with socket.create_server(("127.0.0.1", port)):
        server.api({"addprotocol": entry})
        states = wait_until(
            lambda: [one for one in listeners(server, port) if one["state"] not in (0, 1)], 5, "a state"
        )
        assert "in use" in states[0]["state"]
    wait_until(lambda: [one for one in listeners(server, port) if one["state"] == 1], 8, "the port")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        server.api({"deleteprotocol": entry})
        wait_until(lambda: not listeners(server, port), 5, "the end of the listener")
        connection.settimeout(5)
        assert connection.recv(1) == b""
    viewer.read_more()


def listeners(server: MistServer, port: int) -> list[dict[str, Any]]:
    return [one for one in status(server)["listeners"] if one.get("port") == port]


def test_a_changed_listener_keeps_its_port_and_its_connections(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    former = pid_of(server, "guardian HTTP")
    old = next(one for one in server.config["config"]["protocols"] if one["connector"] == "HTTP")
    server.api({"updateprotocol": [old, {**old, "processes": 2}]})
    another(server, "guardian HTTP", former)
    viewer.read_more()
    people.viewer(server).read_more()
    viewer.close()
    wait_until(lambda: look(former) is None, 10, "the former guardian ends with its last connection")


def test_a_listener_moves_to_another_port_with_its_connections(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    old = next(one for one in server.config["config"]["protocols"] if one["connector"] == "HTTP")
    others = [pid_of(server, title) for title in ("guardian RTMP", "guardian input live", "input live")]
    port, server.http_port = server.http_port, free_port()
    server.api({"updateprotocol": [old, {**old, "port": server.http_port}]})
    wait_until(lambda: [one for one in listeners(server, server.http_port) if one["state"] == 1], 8, "the new port")
    viewer.read_more()
    people.viewer(server).read_more()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    assert others == [pid_of(server, title) for title in ("guardian RTMP", "guardian input live", "input live")]


def test_a_removed_stream_ends(server: MistServer, people: People) -> None:
    publisher = people.publisher(server)
    wait_ready(server)
    viewer = people.viewer(server)
    viewer.read_more()
    server.api({"deletestream": "live"})
    wait_until(lambda: viewer.read(0.05) >= 0 and viewer.ended, 8, "the viewer's end")
    wait_until(lambda: not publisher.is_connected(), 5, "the publisher's end")
    with pytest.raises(Refused):
        people.publisher(server)


def test_nuking_a_hung_stream_clears_it(server: MistServer, people: People) -> None:
    people.publisher(server)
    wait_ready(server)
    for title in ("input live", "guardian input live"):
        os.kill(pid_of(server, title), signal.SIGSTOP)
    server.api({"nuke_stream": "live"})
    wait_until(lambda: not server.processes_titled("mist: guardian input live"), 5, "the end of the stream")
    wait_until(lambda: not [name for name in server.shared_memory() if ".live" in name], 5, "no memory of it")
    people.publisher(server)
    people.viewer(server)
    wait_ready(server)


def test_the_api_moves_to_another_port(server: MistServer) -> None:
    port = free_port()
    reply = server.api({"config": {**server.config["config"], "controller": {"interface": "127.0.0.1", "port": port}}})
    assert "config" in reply
    server.api_port = port

    def answers() -> bool:
        with suppress(OSError):
            return "authorize" in server.api({"authorize": {}})
        return False

    wait_until(answers, 15, "the API at its new port")
    assert status(server)["api_port"] == port


def test_reload_reads_the_configuration_again(server: MistServer, people: People) -> None:
    server.api({"authorize": {}})  # the controller is up
    server.config["streams"]["more"] = {"source": "push://"}
    server.config_file.write_text(json.dumps(server.config))
    assert mist(server, "reload", "--instance", server.instance).returncode == 0
    server.wait_log("read ", 10)
    deadline = time.monotonic() + 30
    while True:
        try:
            people.publisher(server, "more")
            return
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# -- several, and the command line ---------------------------------------------------------------------------------


def test_two_instances_do_not_meet(make_server: MakeServer, people: People) -> None:
    one, other = make_server(), make_server()
    people.publisher(one)
    wait_ready(one)
    people.viewer(one).read_more()
    assert stream_state(other) == "OFF"
    with pytest.raises(OSError, match="404"):
        other.get("/live.flv")
    other.stop()
    people.viewer(one).read_more()


def test_an_instance_runs_once(server: MistServer) -> None:
    found = mist(server, "serve", "--config", str(server.config_file), "--instance", server.instance)
    assert found.returncode == 1
    assert re.fullmatch(
        rf'mist: instance "{server.instance}" is already running \(process {server.pid}.*\n', found.stderr
    )
    assert server.running


def test_status_and_stop(make_server: MakeServer, people: People) -> None:
    with MistServer() as server:
        people.publisher(server)
        wait_ready(server)
        people.viewer(server).read_more()
        shown = mist(server, "status", "--instance", server.instance)
        assert shown.returncode == 0
        assert re.search(r"live +READY", shown.stdout)
        assert re.search(r"HTTP +.*\d+ +running", shown.stdout)
        assert "mist: controller" in shown.stdout
        assert "H264" in shown.stdout
        assert mist(server, "stop", "--instance", server.instance).returncode == 0
        wait_until(lambda: not server.running, 5, "the end of the main process")
        assert server.leftovers() == []
        server.start()
    found = mist(server, "status", "--instance", server.instance)
    assert found.returncode == 1
    assert "mist serve" in found.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('{"config": {"protocols": [{"connector": "HTTP", "port": 99999}]}}', ["config.json", "port", "99999"]),
        ('{"confg": {}}', ["config.json", "confg"]),
        ("{", ["config.json"]),
        (None, ["config.json", "--config"]),
    ],
)
def test_a_bad_configuration_is_named(tmp_path: Path, config: str | None, words: list[str]) -> None:
    path = tmp_path / "config.json"
    if config is not None:
        path.write_text(config)
    found = run_mist(("serve", "--config", str(path), "--instance", "bad"), {"MIST_RUNTIME_DIR": str(tmp_path / "run")})
    assert found.returncode == 2
    assert found.stderr.startswith("mist: ")
    assert "Traceback" not in found.stderr
    for word in words:
        assert word in found.stderr
    assert not (tmp_path / "run" / "bad").exists()


def test_an_unusable_runtime_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = run_mist(("serve", "--instance", "x"), {"MIST_RUNTIME_DIR": str(tmp_path / "file" / "run")})
    assert found.returncode == 1
    assert re.fullmatch(r"mist: cannot make the runtime directory .*MIST_RUNTIME_DIR.*\n", found.stderr)


def test_a_port_has_processes_from_its_first_visitor_on(server: MistServer) -> None:
    assert all(one["state"] == 1 for one in status(server)["listeners"])
    for connector, port in (("HTTP", server.http_port), ("RTMP", server.rtmp_port)):
        assert not server.processes_titled(f"mist: guardian {connector}")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as visitor:
            former = pid_of(server, f"guardian {connector}")
            kill(server, former)
            another(server, f"guardian {connector}", former)
            if connector == "HTTP":
                visitor.settimeout(10)
                visitor.sendall(b"GET /json_none.js HTTP/1.1\r\nHost: x\r\n\r\n")
                assert visitor.recv(100).startswith(b"HTTP/1.1 ")


def test_an_idle_server_is_small_and_quiet(server: MistServer) -> None:
    server.api({"authorize": {}})
    pids = [one.pid for one in server.processes()]
    assert pss_kib(pids) < IDLE_PSS_KIB
    before = cpu_seconds(pids)
    time.sleep(3)  # what is measured is this time itself
    used = cpu_seconds(pids) - before
    assert used < 0.03 * 3, f"{used / 3:.1%} of a core"
