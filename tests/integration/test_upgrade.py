"""New code takes over from a running server, and nobody notices; code that does not work never gets so far."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.integration.test_runtime import mist, run_mist, status
from tests.support.live import FRAME_MS, assert_rising, viewer, wait_mark
from tests.support.processes import wait_until
from tests.support.server import MistServer

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
    found = {}
    for title in REPLACED:
        [one] = server.processes_titled(f"mist: {title}")
        found[title] = one.pid
    return found


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


# -- what is left --------------------------------------------------------------------------------------------------------


def test_nuke_and_cleanup(make_server: MakeServer, send_to: SendTo, tmp_path: Path) -> None:
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    assert any(".live" in name for name in server.shared_memory())
    assert mist(server, "nuke", "live", "--instance", server.instance).returncode == 0
    wait_until(lambda: not any(".live" in name for name in server.shared_memory()), 5, "the end of its memory")
    wait_until(lambda: not server.processes_titled("mist: input"), 5, "the end of its input")
    sender.close()
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
