"""Messages to the service manager."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.runtime.notify import notify, notify_watchdog


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_manager_gets_the_state(manager: socket.socket) -> None:
    assert notify("READY=1")
    assert manager.recv(100) == b"READY=1"


@pytest.mark.timeout(20)
def test_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    while notify("STATUS=1 streams"):
        continue
    assert manager.recv(100) == b"STATUS=1 streams"
    assert notify("STATUS=2 streams"), "it is told again once it reads"


def test_no_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


def test_a_sign_of_life_says_how_long_it_holds(manager: socket.socket) -> None:
    notify_watchdog(600.0)
    assert manager.recv(100) == b"WATCHDOG=1\nWATCHDOG_USEC=600000000"
