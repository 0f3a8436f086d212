"""Which input fetches a source; delays; how processes end; the notification protocol."""

from __future__ import annotations

import errno
import os
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from mist.runtime.backoff import GOOD_RUN_SECONDS, MAX_DELAY_SECONDS, Backoff
from mist.runtime.notify import notify, watchdog_seconds
from mist.runtime.process import children, descendants, describe_exit, fork, is_alive
from mist.runtime.program import Program, fits
from mist.stream.capability import Capability


@dataclass(frozen=True)
class Module:
    capability: Capability


def program(**inputs: dict[str, Any]) -> Program:
    made = {name: Module(Capability(name, name, "", **values)) for name, values in inputs.items()}
    outputs = {"HTTP": Module(Capability("HTTP", "", "", default_port=8080)), "FLV": Module(Capability("FLV", "", ""))}
    return Program("1", outputs, made, dict)


@pytest.mark.parametrize(
    ("pattern", "source", "expected"),
    [
        ("demo:*", "demo:", True),
        ("demo:*", "dem", False),
        ("/*.flv", "/a.flv", True),
        ("/*.flv", "/a.mp4", False),
        ("a*a", "a", False),
        ("exact", "exact", True),
        ("exact", "exactly", False),
    ],
)
def test_patterns(pattern: str, source: str, expected: bool) -> None:
    assert fits(pattern, source) is expected


def test_the_input_of_a_source() -> None:
    found = program(
        demo={"source_match": ("demo:*",)},
        File={"source_match": ("/*",), "priority": 1},
        FLV={"source_match": ("/*.flv",), "priority": 5},
        RTMP={"source_match": ("push://*",), "non_provider": True},
    )
    assert found.input_for("demo:?width=10") == "demo"
    assert found.input_for("/a.flv") == "FLV"
    assert found.input_for("/a.flv?start=3") == "FLV"
    assert found.input_for("/a.mp4") == "File"
    assert found.input_for("file:/a.flv") == "File"
    assert found.input_for("push://") is None
    assert found.input_for("nonsense") is None
    assert found.find_input("rtmp") == "RTMP"
    assert found.find_input("other") is None


def test_listeners_are_outputs_with_a_port() -> None:
    found = program()
    assert found.listener("HTTP") is not None
    assert found.listener("FLV") is None
    assert found.listener("none") is None
    assert sorted(found.capabilities()["connectors"]) == ["FLV", "HTTP"]


def test_delays_grow_and_a_good_run_forgets_them() -> None:
    backoff = Backoff()
    assert [backoff.next_delay(0.1) for _ in range(4)] == [0, 1, 2, 3]
    assert backoff.next_delay(GOOD_RUN_SECONDS) == 0
    assert backoff.next_delay(0.1) == 1
    assert max(backoff.next_delay(0) for _ in range(100)) == MAX_DELAY_SECONDS
    hurried = Backoff(2)
    assert [hurried.next_delay(0) for _ in range(4)] == [0, 1, 2, 2]


def test_how_a_process_ended_in_words() -> None:
    assert describe_exit(3) == "ended with status 3"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-200) == "was killed by signal 200"


def test_a_forked_child_has_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    kept, other = os.pipe()
    report = tmp_path / "report"

    def role() -> int:
        with report.open("w") as file:
            names = sorted(int(name) for name in os.listdir("/proc/self/fd"))
            file.write(repr([fd for fd in names if fd > 2 and fd not in (file.fileno(), file.fileno() + 1)]))
        return 7

    pid = fork(role, keep=[kept])
    assert pid in children(os.getpid())
    assert pid in descendants(os.getpid())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert report.read_text() == f"[{kept}]"
    os.close(kept)
    os.close(other)


def test_a_fork_that_fails_leaves_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", fail)
    with pytest.raises(BlockingIOError):
        fork(lambda: 0, keep=())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_child_that_fails_says_so_by_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    pid = fork(lambda: 1 // 0, keep=())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(pid)
    os.waitpid(pid, 0)
    assert not is_alive(pid)


def test_notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_the_watchdog_is_fed_twice_as_often_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_seconds() is None


def test_what_pushes_to_a_target() -> None:
    found = replace(
        program(),
        outputs={
            "FLV": Module(Capability("FLV", "", "", push_urls=("/*.flv",))),
            "RTMP": Module(Capability("RTMP", "", "", push_urls=("rtmp://*",))),
        },
        pushes={"FLV": cast(Any, None), "RTMP": cast(Any, None)},
    )
    assert found.push_role("/a.flv?split=3") == ("FLV", "/a.flv?split=3")
    assert found.push_role("flv:/a") == ("FLV", "/a")
    assert found.push_role("rtmp://host/a.flv") == ("RTMP", "rtmp://host/a.flv")
    assert found.push_role("http://host/a.flv") is None
    assert found.push_role("http://host/a.flv?split=3", {"http"}) == ("FLV", "http://host/a.flv?split=3")
    assert found.push_role("ftp://host/a.flv", {"http"}) is None
    assert found.push_role("http://host/a.mp4", {"http"}) is None
