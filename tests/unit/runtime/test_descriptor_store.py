"""Descriptors that the service manager keeps for the next start."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.runtime.descriptor_store import forget, listening_port, store


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_what_is_stored_arrives_with_its_name(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDSTORE", "64")
    with socket.create_server(("127.0.0.1", 0)) as port:
        store("listener HTTP [::1]:8080", [port.fileno()])
        data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
        assert data == b"FDSTORE=1\nFDNAME=listener HTTP [~~1]~8080"
        assert [listening_port(fd) for fd in fds] == [port.getsockname()[1]]
        os.close(fds[0])
    forget("listener HTTP [::1]:8080")
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=listener HTTP [~~1]~8080"


def test_without_a_store_nothing_is_sent(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDSTORE", raising=False)
    store("controller", [manager.fileno()])
    forget("controller")
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_what_listens_and_what_does_not() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert listening_port(one.fileno()) == 0
    with open("/dev/null", "rb") as file:
        assert listening_port(file.fileno()) == 0
