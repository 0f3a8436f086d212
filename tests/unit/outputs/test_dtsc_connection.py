"""The DTSC listener's connections: pushers handed over or refused, peers that dawdle, and those that talk nonsense."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from mist.errors import Busy, ConfigError
from mist.formats import dtsc_session
from mist.formats.dtsc_session import ReceivingSession
from mist.outputs.base import session_connection
from mist.outputs.dtsc import OUTPUT
from tests.support.dtsc_peer import command, media, read_value
from tests.support.rtmp_fakes import FakeOutputServices

STREAMS = {"live": {"source": "push://"}, "word": {"source": "push://@secret"}, "file": {"source": "/x.mkv"}}


class Given:
    """What was handed over."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.requests: list[Mapping[str, Any]] = []
        self.states: list[bytes] = []
        self.sockets: list[socket.socket] = []

    async def take(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.sockets.append(socket.socket(fileno=os.dup(fd)))
        self.requests.append(request)
        self.states.append(state)


class Client:
    """A peer on the running loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.received = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def command(self) -> dict[str, Any]:
        """Return the next command's members, {} at the end of the connection."""
        async with asyncio.timeout(5):
            while len(self.received) < 8 or len(self.received) < 8 + int.from_bytes(self.received[4:8], "big"):
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
                if not data:
                    return {}
                self.received += data
        size = 8 + int.from_bytes(self.received[4:8], "big")
        members: dict[str, Any] = read_value(bytes(self.received[:size]), 8)[0]
        del self.received[:size]
        return members


Work = Callable[[Client], Awaitable[None]]


def run(work: Work, given: Given | None = None, **options: Any) -> FakeOutputServices:
    given = given or Given()

    async def main() -> FakeOutputServices:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        listener.close()
        services = FakeOutputServices(loop, {"streams": STREAMS, "streamkeys": {"k3y": "live"}}, given.take)
        served = OUTPUT.connection(services, options, theirs, "127.0.0.1")  # type: ignore[arg-type]
        try:
            client = Client(ours)
            assert (await client.command())["cmd"] == b"hi"
            await work(client)
        finally:
            ours.close()
            served.close()
            for sock in given.sockets:
                sock.close()
        assert [record.closed for record in services.records] == [1]
        return services

    return asyncio.run(main())


def test_a_pusher_is_handed_over_with_what_it_sent() -> None:
    given = Given()

    async def work(client: Client) -> None:
        await client.send(command("push", stream="live") + media(1, 0, b"x"))
        async with asyncio.timeout(5):
            while not given.requests:
                await asyncio.sleep(0)

    services = run(work, given)
    expected = {"stream": "live", "input": "DTSC", "connector": "DTSC", "host": "127.0.0.1", "name": "live"}
    assert given.requests == [expected]
    assert given.states[0].endswith(media(1, 0, b"x"))
    assert isinstance(ReceivingSession.restore(given.states[0]), ReceivingSession)
    assert services.records[0].up > 20


@pytest.mark.parametrize(
    ("stream", "password", "error", "text"),
    [
        ("live", "", Busy("taken"), b"taken"),
        ("word", "wrong", None, b"password"),
        ("file", "", None, b"not configured"),
        ("none", "", None, b"no stream"),
        ("", "", None, b"no name"),
    ],
)
def test_refused_pushers_hear_why(
    monkeypatch: pytest.MonkeyPatch, stream: str, password: str, error: Exception | None, text: bytes
) -> None:
    monkeypatch.setattr(session_connection, "REFUSED_SECONDS", 0.0)

    async def work(client: Client) -> None:
        await client.send(command("push", stream=stream, password=password))
        refused = await client.command()
        assert refused["cmd"] == b"error" and text in refused["msg"]
        assert await client.command() == {}

    run(work, Given(error))


@pytest.mark.parametrize(("stream", "password", "expected"), [("word", "secret", "word"), ("k3y", "", "live")])
def test_passwords_and_stream_keys(stream: str, password: str, expected: str) -> None:
    given = Given()

    async def work(client: Client) -> None:
        await client.send(command("push", stream=stream, password=password))
        async with asyncio.timeout(5):
            while not given.requests:
                await asyncio.sleep(0)

    run(work, given)
    assert given.requests[0]["stream"] == expected and ("source" in given.requests[0]) == (stream == "k3y")


def test_a_stream_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_connection, "REFUSED_SECONDS", 0.0)

    async def work(client: Client) -> None:
        await client.send(command("play", stream="nosuch"))
        assert b"nosuch" in (await client.command())["msg"]
        assert await client.command() == {}

    run(work)


def test_nonsense_is_answered_and_ends_the_connection() -> None:
    async def work(client: Client) -> None:
        await client.send(media(1, 0, b"x"))
        assert (await client.command())["cmd"] == b"error"
        assert await client.command() == {}

    run(work)


def test_pings_are_answered() -> None:
    async def work(client: Client) -> None:
        await client.send(command("ping"))
        assert await client.command() == {"cmd": b"ok", "msg": b"Pong!"}

    run(work)


def test_a_peer_that_dawdles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtsc_session, "FIRST_WORD_SECONDS", 0.0)

    async def work(client: Client) -> None:
        assert await client.command() == {}

    run(work)


def test_a_certificate_that_is_not_there() -> None:
    ours, theirs = socket.socketpair()
    services = FakeOutputServices(asyncio.new_event_loop(), {}, Given().take)
    try:
        with pytest.raises(ConfigError, match="nosuch"):
            OUTPUT.connection(services, {"cert": "/nosuch.pem"}, theirs, "")  # type: ignore[arg-type]
    finally:
        services.loop.close()
        ours.close()
        theirs.close()
