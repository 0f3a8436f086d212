"""New code takes over from a running server, and nobody notices; code that does not work never gets so far."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.integration.test_runtime import mist, run_mist, status
from tests.support.dtsc_peer import DtscPeer
from tests.support.live import FRAME_MS, assert_rising, viewer, wait_mark
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.rtmp_peer import RtmpPeer
from tests.support.server import MistServer
from tests.support.tls_front import make_certificate

# Each upgrade imports everything twice: on a machine that is busy that takes a while.
pytestmark = pytest.mark.timeout(240)
REPLACED = ("controller", "guardian HTTP", "guardian RTMP", "guardian input live")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Return a folder that comes first in the server's module path: a file there is other code than it started with."""
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


@pytest.fixture
def server(make_server: MakeServer, code: Path) -> MistServer:
    return make_server(env={"PYTHONPATH": str(code)})


def pids(server: MistServer) -> dict[str, int]:
    """Return the processes by title, once each is one; a forked process takes its title a moment later."""

    def found() -> dict[str, int]:
        present = {title: server.processes_titled(f"mist: {title}") for title in REPLACED}
        return {title: ones[0].pid for title, ones in present.items() if len(ones) == 1}

    wait_until(lambda: len(found()) == len(REPLACED), 10, "one process of each kind")
    return found()


def test_an_upgrade_replaces_processes_and_drops_nobody(server: MistServer, send_to: SendTo) -> None:
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        for _ in range(3):
            before = pids(server)
            done = mist(server, "upgrade", "--instance", server.instance)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            after = pids(server)
            assert not set(before.values()) & set(after.values())
            assert server.running
            wait_mark(seen, sender.number + 10)
        assert_rising(seen)
        with viewer(server):
            assert "live" in server.api({"active_streams": True})["active_streams"]
    sender.close()
    wait_until(lambda: len(server.processes_titled("mist: output")) <= 4, 10, "the end of the former workers")


def test_a_signal_upgrades(server: MistServer, send_to: SendTo) -> None:
    """As scripts do that restart the server in place with SIGUSR1."""
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        before = pids(server)
        os.kill(server.pid, signal.SIGUSR1)
        wait_until(lambda: not set(before.values()) & set(pids(server).values()), 30, "other processes")
        wait_mark(seen, sender.number + 10)
        assert_rising(seen)
    sender.close()


@pytest.mark.tools("openssl")
def test_connections_over_tls_are_served_to_their_end(make_server: MakeServer, send_to: SendTo, tmp_path: Path) -> None:
    """The keys cannot go to another process: the former worker stays for those that it has, and others get a new one."""
    cert, key = make_certificate(tmp_path)
    port = free_port()
    tls = {"port": port, "interface": "127.0.0.1", "cert": str(cert), "key": str(key)}
    server = make_server(protocols={"DTSC": tls})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False

    def workers() -> set[int]:
        return {one.pid for one in server.processes_titled("mist: output DTSC") if "(idle)" not in one.title}

    with DtscPeer(port, tls=context, timeout_s=30) as player:
        player.play("live")
        heard = player.packets()
        next(one for one in heard if one.kind == "DTP2")
        wait_until(workers, 10, "the title of the worker")
        former = workers()
        for _ in range(2):
            assert mist(server, "upgrade", "--instance", server.instance).returncode == 0
            mark = b"<%08d>" % (sender.number + 10)
            assert any(mark in one.data for one in heard)
        assert workers() == former
        with DtscPeer(port, tls=context, timeout_s=30) as other:
            other.play("live")
            other.until("DTP2")
            wait_until(lambda: len(workers()) == 2, 10, "another worker")
    wait_until(lambda: not workers() & former, 10, "the end of the former worker")
    sender.close()


def test_code_that_does_not_work_is_refused_with_its_reason(server: MistServer, code: Path, send_to: SendTo) -> None:
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        before = pids(server)
        (code / "setproctitle.py").write_text("raise ImportError('a library is missing')\n")
        done = mist(server, "upgrade", "--instance", server.instance)
        assert done.returncode == 1
        assert "a library is missing" in done.stderr
        assert pids(server) == before
        assert "a library is missing" in status(server)["upgrade_failure"]
        (code / "setproctitle.py").unlink()
        assert mist(server, "upgrade", "--instance", server.instance).returncode == 0
        assert status(server)["upgrade_failure"] == ""
        wait_mark(seen, sender.number + 10)
        assert_rising(seen)
    sender.close()


def test_the_watchdog_lets_new_code_take_its_time(make_server: MakeServer) -> None:
    """It is loaded at low priority, so beside busy programs that may take longer than the service manager waits else."""
    patient, usual = (b"WATCHDOG=1\nWATCHDOG_USEC=%d" % usec for usec in (600_000_000, 4_000_000))
    server = make_server(env={"WATCHDOG_USEC": "4000000"})
    said: list[bytes] = []

    def listen() -> None:
        while said[-2:] != [patient, usual]:
            if (one := manager.recv(4096)).startswith(b"WATCHDOG"):
                said.append(one)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(server.folder / "notify"))
        manager.settimeout(60)
        listener = threading.Thread(target=listen)
        listener.start()
        assert mist(server, "upgrade", "--instance", server.instance).returncode == 0
        listener.join()
    assert said[-2:] == [patient, usual]


def test_a_bad_configuration_stops_an_upgrade(server: MistServer) -> None:
    before = pids_but_streams(server)
    server.config_file.write_text('{"steams": {}}')
    for command in ("reload", "upgrade"):
        done = mist(server, command, "--instance", server.instance)
        assert done.returncode == 1
        assert 'did you mean "streams"' in done.stderr
    assert pids_but_streams(server) == before


def pids_but_streams(server: MistServer) -> set[int]:
    return {one.pid for one in server.processes() if "guardian" in one.title or "controller" in one.title}


def test_a_restart_by_the_service_manager_drops_nobody(
    make_server: MakeServer, send_to: SendTo, tmp_path: Path
) -> None:
    """The main process alone ends; the next one replaces all others, and viewer and publisher keep their connections."""
    jobs, manager = tmp_path / "jobs", tmp_path / "systemctl"
    manager.write_text(f'#!/bin/sh\n[ "$1" = list-jobs ] && cat "{jobs}"\n')
    manager.chmod(0o755)
    server = make_server(
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "MIST_UNIT": "mist.service", "MIST_REJOIN_SECONDS": "60"}
    )
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        for _ in range(2):
            before = pids(server)
            jobs.write_text("17 mist.service restart running\n")
            os.kill(server.pid, signal.SIGTERM)
            server.restart()
            jobs.write_text("18 mist.service stop running\n")
            wait_until(lambda old=before: not set(old.values()) & set(pids(server).values()), 10, "others")  # type: ignore[misc]
            wait_mark(seen, sender.number + 10)
        assert_rising(seen)
    sender.close()


# -- what is left --------------------------------------------------------------------------------------------------------


def test_nuke_and_cleanup(make_server: MakeServer, send_to: SendTo, tmp_path: Path) -> None:
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    assert any(".live" in name for name in server.shared_memory())
    with socket.create_connection(("127.0.0.1", server.http_port), 30) as watcher:
        watcher.sendall(b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert watcher.recv(1000)
        assert mist(server, "nuke", "live", "--instance", server.instance).returncode == 0
        while watcher.recv(1 << 20):  # to the end, which comes
            pass
    wait_until(lambda: not any(".live" in name for name in server.shared_memory()), 5, "the end of its memory")
    wait_until(lambda: not server.processes_titled("mist: input"), 5, "the end of its input")
    sender.close()
    again = mist(server, "nuke", "live", "--instance", server.instance)
    assert again.returncode == 1 and "live does not run" in again.stderr
    for folder, words in ((server.runtime_base, "already running"), (tmp_path, "another runtime directory")):
        refused = run_mist(("cleanup", "--instance", server.instance), {"MIST_RUNTIME_DIR": str(folder)})
        assert refused.returncode == 1
        assert words in refused.stderr
    assert server.running
    assert server.shared_memory()


def test_cleanup_removes_what_a_dead_server_left() -> None:
    server = MistServer()
    server.start()
    try:
        for one in server.processes():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: not server.processes() and not server.running, 5, "the end of all processes")
        done = mist(server, "cleanup", "--instance", server.instance)
        assert done.returncode == 0, done.stderr
        assert str(server.runtime_folder / "lock") in done.stdout
        assert server.leftovers() == []
        assert not server.runtime_folder.exists()
    finally:
        server.stop(check=False)


# -- ports of the service manager ----------------------------------------------------------------------------------------

# Does what systemd does for a service with stored or activated sockets, then becomes the command that it is given.
MANAGER = """
import os, socket, sys
names, ports = sys.argv[1].split(), [int(one) for one in sys.argv[2].split()]
for number, port in enumerate(ports, 3):
    with socket.create_server(("127.0.0.1", port)) as sock:
        os.dup2(sock.fileno(), number + 40)
for number in range(3, 3 + len(ports)):
    os.dup2(number + 40, number, inheritable=True)
    os.close(number + 40)
os.environ.update(LISTEN_FDS=str(len(ports)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(names))
os.execvp(sys.argv[3], sys.argv[3:])
"""


def test_kept_ports_are_taken_back() -> None:
    """By name from the descriptor store, by number from a socket unit; what nobody listens on any more is closed."""
    server = MistServer()
    gone = free_port()
    ports = (server.http_port, server.rtmp_port, server.api_port, gone)
    names = ("mist.socket", f"listener~RTMP~127.0.0.1~{server.rtmp_port}", "controller", "old.socket")
    server.wrap = (sys.executable, "-c", MANAGER, " ".join(names), " ".join(str(port) for port in ports))
    with server:
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=5) as early:
            early.sendall(b"GET /nothing.flv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert early.recv(4096).startswith(b"HTTP/1.1 404")
        assert "authorize" in server.api({"authorize": {}})
        with RtmpPeer(server.rtmp_port) as peer:
            peer.publish("live")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gone), timeout=5)
