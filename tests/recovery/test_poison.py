"""A connection whose bytes kill every worker that reads them is given up, and the others go on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.live import FRAME_MS, Sender, viewer, wait_mark
from tests.support.server import MistServer

# What the server imports at its start: a worker dies, without a word, of a request that says so.
DEADLY = """
import os, signal, mist.net.http_server as server
take = server.HttpConnection.data_received
def data_received(self, data):
    if b"/deadly" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    take(self, data)
server.HttpConnection.data_received = data_received
"""


def test_a_connection_that_kills_is_closed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    one = {"processes": 1}
    with MistServer(protocols={"HTTP": one}, env={"PYTHONPATH": str(tmp_path)}) as server:
        sender = Sender(server)
        sender.send([number * FRAME_MS for number in range(50)], headers=True)
        with (
            viewer(server) as seen,
            socket.create_connection(("127.0.0.1", server.http_port), 10) as calm,
            socket.create_connection(("127.0.0.1", server.http_port), 10) as deadly,
        ):
            calm.sendall(b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert calm.recv(65536)
            deadly.sendall(b"GET /deadly HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with pytest.raises(ConnectionResetError):  # what it said was never taken from the kernel
                deadly.recv(65536)
            server.wait_log("The connection from 127.0.0.1 is closed: 3 workers died of it")
            assert len([line for line in server.log if "was killed by SIGKILL" in line]) == 3
            calm.setblocking(False)
            while True:
                try:
                    assert calm.recv(1 << 20)
                except BlockingIOError:
                    break
            calm.settimeout(10)
            sender.send([(50 + number) * FRAME_MS for number in range(20)])
            assert calm.recv(65536)
            wait_mark(seen, sender.number - 1)
        sender.close()
