"""Commands over the server's own socket, also in the moment in which its controller is away."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.commands.operate_link import call
from mist.errors import TransportError


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mist-") as name:  # sockets need a short path
        yield Path(name)


def test_who_asks_while_the_controller_is_away_waits_for_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "api.sock"
    waits: list[float] = []
    listener = socket.socket(socket.AF_UNIX)

    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            while b"}" not in sock.recv(65536):
                pass
            body = json.dumps({"LTS": 1, "version": "1"}).encode()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:  # what the former one has left behind
            listener.bind(str(path))
        else:
            listener.listen()
            threading.Thread(target=answer, daemon=True).start()

    monkeypatch.setattr(time, "sleep", sleep)
    with listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as main:
        main.bind(str(folder / "spawner.sock"))
        main.listen()
        assert call(path, {"version": 1}) == {"version": "1"}
    assert len(waits) == 2


@pytest.mark.parametrize("left", [(), ("spawner.sock",), ("spawner.sock", "api.sock")])
def test_without_a_server_nobody_waits(folder: Path, left: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when one that was killed has left its files."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    for name in left:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET if name == "spawner.sock" else socket.SOCK_STREAM
        ) as dead:
            dead.bind(str(folder / name))
    with pytest.raises(TransportError, match="no server runs here"):
        call(folder / "api.sock", {"version": 1})
