"""HTTP connections on real sockets and both event loops: what a fake transport cannot show."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from mist.errors import NotFound
from mist.net.http_messages import HttpSettings, Request
from mist.net.http_server import HttpConnection, Response
from tests.support.http import Application, FakeRecord, split_replies
from tests.support.processes import wait_until


class Server:
    """A server in a thread of its own."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop], application: Application) -> None:
        self.loop = new_loop()
        self.application = application
        self.records: list[FakeRecord] = []
        self.address = ("127.0.0.1", 0)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _connection(self) -> HttpConnection:
        self.records.append(FakeRecord())
        return HttpConnection(
            self.application, HttpSettings(), loop=self.loop, log=logging.getLogger("test"), record=self.records[-1]
        )

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(self.loop.create_server(self._connection, "127.0.0.1", 0))
        self.address = server.sockets[0].getsockname()
        self._ready.set()
        self.loop.run_forever()
        server.close()
        self.loop.run_until_complete(server.wait_closed())
        self.loop.run_until_complete(asyncio.sleep(0.05))
        self.loop.close()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=10)
        sock.settimeout(10)
        return sock

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Server]]:
    servers: list[Server] = []

    def start(handler: Any = None) -> Server:
        servers.append(Server(request.param, Application(handler)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *lines, "", ""]).encode()


def test_the_socket_of_an_endless_reply_is_the_handlers(serve: Callable[[Any], Server]) -> None:
    taken: list[int] = []
    ready = threading.Event()

    def media(request: Request, response: Response) -> None:
        if request.path == "/page":
            response.send(200, b"page")
            return
        fd, head = response.take_socket(200, "video/x-flv", {"X-Test": "1"})
        assert not os.get_blocking(fd)
        taken.append(fd)
        os.write(fd, head)
        ready.set()

    server = serve(media)
    with server.connect() as sock:
        # A reply to a request ahead of it must come first, and a request behind it is not answered.
        sock.sendall(get("/page") + get("/live.flv") + get("/page"))
        assert ready.wait(10)
        fd = taken[0]
        threading.Event().wait(0.1)  # the transport is closed by now
        assert server.records[0].closed == 1
        for number in range(50):
            assert os.write(fd, b"%04d" % number) == 4
        sock.sendall(b"whatever the viewer says now is ours to read")
        deadline = 100
        while deadline:
            try:
                assert os.read(fd, 100).startswith(b"whatever")
                break
            except BlockingIOError:
                deadline -= 1
                threading.Event().wait(0.02)
        assert deadline
        os.close(fd)
        data = read_all(sock)
    page, rest = data[: data.index(b"page") + 4], data[data.index(b"page") + 4 :]
    assert split_replies(page)[0][2] == b"page"
    head, _, body = rest.partition(b"\r\n\r\n")
    assert (
        b"Connection: close" in head
        and b"X-Test: 1" in head
        and b"Content-Length" not in head
        and b"Transfer-Enc" not in head
    )
    assert body == b"".join(b"%04d" % number for number in range(50))


def test_a_taken_record_stays_open(serve: Callable[[Any], Server]) -> None:
    def media(_request: Request, response: Response) -> None:
        response.take_record()
        fd, head = response.take_socket()
        os.write(fd, head)
        os.close(fd)

    server = serve(media)
    with server.connect() as sock:
        sock.sendall(get("/live.flv"))
        assert read_all(sock).startswith(b"HTTP/1.1 200 OK")
    assert server.records[0].closed == 0


def test_a_socket_that_is_given_back_gets_an_answer(serve: Callable[[Any], Server]) -> None:
    """Whoever took it could not use it: what was asked before it is answered, then the viewer learns why, and it ends.

    It ends although another process, as a listener's guardian, has a copy of the descriptor.
    """
    copies = []

    def media(request: Request, response: Response) -> None:
        if request.path == "/page":
            response.send(200, b"page")
            return
        record = response.take_record()
        fd, _ = response.take_socket(200, "video/mp2t")
        copies.append(os.dup(fd))
        response.give_back(fd, record)
        raise NotFound("no such format")

    server = serve(media)
    with server.connect() as sock:
        sock.sendall(get("/page") + get("/live.ts") + get("/page"))
        page, refused = split_replies(read_all(sock))
    os.close(*copies)
    assert (page[0], page[2]) == (200, b"page")
    assert (refused[0], refused[2], refused[1]["connection"]) == (404, b"no such format", "close")
    wait_until(lambda: [record.closed for record in server.records] == [1], 10, "the end of the record")


def test_a_slow_reader_gets_everything(serve: Callable[[Any], Server]) -> None:
    body = os.urandom(8 << 20)
    server = serve(lambda request, response: response.send(200, body, "video/mp2t"))
    with server.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(get("/1") + get("/2", "Connection: close"))
        threading.Event().wait(0.2)
        assert len(server.application.requests) == 1
        replies = split_replies(read_all(sock))
    assert [reply[2] == body for reply in replies] == [True, True]


def test_a_refused_peer_can_read_why(serve: Callable[[Any], Server]) -> None:
    server = serve(None)
    with server.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 500_000)
        [(status, _, body)] = split_replies(read_all(sock))
    assert status == 413 and b"over" in body


def test_the_peers_address_and_no_delay(serve: Callable[[Any], Server]) -> None:
    server = serve(None)
    with server.connect() as sock:
        sock.sendall(get("/"))
        sock.recv(1000)
        assert server.application.requests[0].peer == "127.0.0.1"


def test_a_viewer_that_resets_ends_only_its_connection(serve: Callable[[Any], Server]) -> None:
    server = serve(lambda request, response: response.send(200, b"x" * (1 << 20)))
    for _ in range(5):
        sock = server.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.sendall(get("/a"))
        sock.close()
    with server.connect() as sock:
        sock.sendall(get("/b", "Connection: close"))
        assert split_replies(read_all(sock))[0][0] == 200
