"""The RTMP listener's connections: publishers handed over or refused, peers that dawdle, and those that talk nonsense."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from mist.errors import Busy
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.server import ServerSession, State
from mist.outputs.base import session_connection
from mist.outputs.rtmp import OUTPUT, RtmpConnection
from tests.support.rtmp_fakes import ClientOnLoop, FakeOutputServices

STREAMS = {"live": {"source": "push://"}, "word": {"source": "push://@secret"}, "file": {"source": "/x.mkv"}}


class Given:
    """What was handed over."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.requests: list[Mapping[str, Any]] = []
        self.sockets: list[socket.socket] = []

    async def take(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.sockets.append(socket.socket(fileno=os.dup(fd)))
        self.requests.append(request)
        session = ServerSession.restore(state, 0.0)
        assert session.state is State.PUBLISH_REQUESTED
        session.send_publish_start("live", 0.0)
        self.sockets[0].sendall(session.take_output())


Work = Callable[[FakeOutputServices, RtmpConnection, socket.socket], Awaitable[None]]


def run(work: Work, given: Given | None = None, **options: Any) -> FakeOutputServices:
    given = given or Given()

    async def main() -> FakeOutputServices:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        listener.close()
        services = FakeOutputServices(loop, {"streams": STREAMS, "streamkeys": {"k3y": "live"}}, given.take)
        connection = OUTPUT.connection(services, options, theirs, "127.0.0.1")
        try:
            await work(services, connection, ours)
        finally:
            ours.close()
            connection.close()
            for sock in given.sockets:
                sock.close()
        assert [record.closed for record in services.records] == [1]
        return services

    return asyncio.run(main())


def test_a_publisher_is_handed_over_with_its_socket() -> None:
    given = Given()

    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        client = ClientOnLoop(ours, publish=True, stream="live?lang=de")
        await client.until(m.Started)
        assert given.requests == [
            {
                "stream": "live",
                "input": "RTMP",
                "connector": "RTMP",
                "host": "127.0.0.1",
                "name": "live",
                "query": "lang=de",
            }
        ]

    services = run(work, given)
    assert services.records[0].up > 3000


@pytest.mark.parametrize(
    ("stream", "app", "error", "code"),
    [
        ("live", "live", Busy("taken"), "NetStream.Publish.BadName"),
        ("word", "wrong", None, "NetStream.Publish.Rejected"),
        ("file", "live", None, "NetStream.Publish.Rejected"),
        ("none", "live", None, "NetStream.Publish.Rejected"),
    ],
)
def test_refused_publishers_hear_why(
    monkeypatch: pytest.MonkeyPatch, stream: str, app: str, error: Exception | None, code: str
) -> None:
    monkeypatch.setattr(session_connection, "REFUSED_SECONDS", 0.0)

    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        client = ClientOnLoop(ours, publish=True, stream=stream, app=app)
        refused = await client.until(m.Refused)
        assert refused.code == code and refused.description
        await client.until_closed()

    run(work, Given(error))


def test_passwords_and_stream_keys() -> None:
    for stream, app, expected in (("word", "secret", "word"), ("k3y", "live", "live")):
        given = Given()

        async def work(
            services: FakeOutputServices,
            connection: RtmpConnection,
            ours: socket.socket,
            stream: str = stream,
            app: str = app,
        ) -> None:
            await ClientOnLoop(ours, publish=True, stream=stream, app=app).until(m.Started)

        run(work, given)
        assert given.requests[0]["stream"] == expected and ("source" in given.requests[0]) == (stream == "k3y")


@pytest.mark.parametrize(("acceptable", "publish"), [(1, True), (2, False)])
def test_what_a_port_does_not_take(acceptable: int, publish: bool) -> None:
    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        refused = await ClientOnLoop(ours, publish=publish).until(m.Refused)
        assert "switched off" in refused.description

    run(work, acceptable=acceptable)


def test_a_stream_that_is_not_there() -> None:
    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        refused = await ClientOnLoop(ours, publish=False, stream="none").until(m.Refused)
        assert refused.code == "NetStream.Play.StreamNotFound" and "none" in refused.description

    run(work)


def test_a_silent_peer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.formats.rtmp.server.CONNECT_SECONDS", 0.0)

    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        client = ClientOnLoop(ours, publish=True)
        await client.until_closed()

    run(work)


def test_nonsense_ends_the_connection() -> None:
    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        client = ClientOnLoop(ours, publish=True)
        await client.loop.sock_sendall(ours, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((ConnectionResetError, RuntimeError)):
            await client.until_closed()
            raise RuntimeError("closed")

    run(work)


@pytest.mark.parametrize("place", ["feed", "_hand_over"])
def test_a_defect_ends_its_connection_and_is_reported(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        reported = []
        services.loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))

        def fail(*_arguments: Any, **_more: Any) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(connection._session if place == "feed" else connection, place, fail)
        client = ClientOnLoop(ours, publish=True)
        with suppress(ConnectionResetError):
            async with asyncio.timeout(5):
                while not client.closed:
                    await client.flush()
                    await client.hear()
        assert [type(one) for one in reported] == [ZeroDivisionError]

    run(work)


def test_a_peer_that_goes_away() -> None:
    async def work(services: FakeOutputServices, connection: RtmpConnection, ours: socket.socket) -> None:
        ours.close()
        async with asyncio.timeout(5):
            while not services.records[0].closed:
                await asyncio.sleep(0.01)

    run(work)
