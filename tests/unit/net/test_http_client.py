"""Requests on connections that are kept open: what is sent, what answers may look like, and what becomes of the connections."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mist.errors import LimitExceededError, MistError, RemoteProtocolError, TransportError, UnsupportedError
from mist.net import http_client
from mist.net.http_client import Answer, HttpClient

YES = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


class Peer:
    """A server whose connections are answered from a list; requests: (number of the connection, head and body)."""

    def __init__(self, *answers: bytes | None, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.port = 0
        self._answers = list(answers)
        self._tls = tls
        self._connections = 0
        self._serving: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0)  # whoever has just connected is served
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        number = self._connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split()
                body = await reader.readexactly(int(length[0])) if length else b""
                self.requests.append((number, head + body))
                answer = self._answers.pop(0) if self._answers else YES
                if answer is None:
                    return
                writer.write(answer)
                if b"close" in answer or b"\r\n\r\n" not in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()


def run(work: Callable[[HttpClient], Coroutine[Any, Any, Any]], limit: int = 1000) -> Any:
    async def whole() -> Any:
        client = HttpClient(max_answer_bytes=limit)
        try:
            return await work(client)
        finally:
            client.close()

    return asyncio.run(whole())


def one(*answers: bytes | None, limit: int = 1000, seconds: float = 5.0) -> Answer:
    async def work(client: HttpClient) -> Answer:
        async with Peer(*answers) as peer:
            return await client.ask("GET", peer.url, seconds=seconds)

    found: Answer = run(work, limit)
    return found


def test_a_request_and_its_answer() -> None:
    async def work(client: HttpClient) -> tuple[Answer, bytes]:
        async with Peer(b"HTTP/1.1 201 Made It\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody") as peer:
            url = f"http://127.0.0.1:{peer.port}/a b\u00e4?c=d e"
            return await client.ask("POST", url, body=b"payload", headers={"X-Own": "z"}, seconds=5), peer.requests[0][
                1
            ]

    answer, request = run(work)
    assert (answer.status, answer.words, answer.headers["x-one"], bytes(answer.body)) == (201, "Made It", "1", b"body")
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%20b%C3%A4?c=d%20e HTTP/1.1" and body == b"payload"
    assert {"X-Own: z", "Content-Length: 7"} <= set(lines) and lines[1].startswith("Host: 127.0.0.1:")


def test_a_connection_is_used_again() -> None:
    async def work(client: HttpClient) -> list[int]:
        async with Peer() as peer:
            for _ in range(3):
                await client.ask("GET", peer.url, seconds=5)
            await asyncio.gather(*(client.ask("GET", peer.url, seconds=5) for _ in range(2)))
            return sorted(number for number, _ in peer.requests)

    assert run(work) == [1, 1, 1, 1, 2]


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    async def work(client: HttpClient) -> list[int]:
        async with Peer(YES, None, YES) as peer:
            await client.ask("GET", peer.url, seconds=5)
            answer = await client.ask("GET", peer.url, seconds=5)
            assert answer.body == b"yes"
            return [number for number, _ in peer.requests]

    assert run(work) == [1, 1, 2]


def test_a_connection_that_is_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "IDLE_SECONDS", 0.0)

    async def work(client: HttpClient) -> list[int]:
        async with Peer() as peer:
            for _ in range(2):
                await client.ask("GET", peer.url, seconds=5)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            return [number for number, _ in peer.requests]

    assert run(work) == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nye\r\n1;x=y\r\ns\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nyes",
        b"HTTP/1.0 200 OK\r\nServer: discloses\r\n\r\nyes",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + YES,
    ],
)
def test_shapes_of_answers(answer: bytes) -> None:
    found = one(answer)
    assert (found.status, bytes(found.body)) == (200, b"yes")


def test_no_content_has_no_body() -> None:
    assert one(b"HTTP/1.1 204 Nothing\r\n\r\n").body == b""


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ([None], TransportError, "closed the connection"),
        ([b"SSH-2.0-closed\r\n\r\n"], TransportError, "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nyes"], TransportError, "closed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1001)], LimitExceededError, "over 1000 bytes"),
        (
            [b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 14_000 + b"\r\n"],
            LimitExceededError,
            "head of its answer has no end",
        ),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 30], LimitExceededError, "interim"),
        ([b"HTTP/1.1 302 There\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"] * 9, LimitExceededError, "redirected"),
        ([b"HTTP/1.1 302 There\r\nLocation: file:///etc\r\nContent-Length: 0\r\n\r\n"], UnsupportedError, "no URL"),
    ],
)
def test_answers_that_are_none(answers: list[bytes | None], error: type[MistError], words: str) -> None:
    with pytest.raises(error, match=words):
        one(*answers)


def test_a_silent_server_fails() -> None:
    with pytest.raises(TransportError, match=r"silent for 0\.1 s"):
        one(b"HTTP/1.1 200 OK\r\n\r\n"[:-2] + b"A: \r\n\r\n", seconds=0.1)


@pytest.mark.parametrize("url", ["ftp://a/b", "http://", "http://a:99999/", "http://[1/", "nothing"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(RemoteProtocolError, match="URL"):
        run(lambda client: client.ask("GET", url, seconds=1))


def test_a_login_is_not_told_to_others() -> None:
    async def work(client: HttpClient) -> list[bytes]:
        async with Peer() as other:
            there = f"Location: http://127.0.0.1:{other.port}/\r\n".encode()
            wants = b'HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm="a"\r\nContent-Length: 0\r\n\r\n'
            async with Peer(wants, b"HTTP/1.1 307 There\r\n" + there + b"Content-Length: 0\r\n\r\n") as peer:
                await client.ask("GET", f"http://user:word@127.0.0.1:{peer.port}/", seconds=5)
                return [request for _, request in (*peer.requests, *other.requests)]

    assert [b"Authorization: Basic dXNlcjp3b3Jk" in request for request in run(work)] == [False, True, False]


def test_a_proxy_is_asked_for_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(port: int) -> Answer:
        client = HttpClient(max_answer_bytes=1000)
        answer = await client.ask("GET", "http://elsewhere.invalid/x", seconds=5)
        client.close()
        return answer

    async def whole() -> bytes:
        async with Peer() as peer:
            monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{peer.port}")
            assert (await work(peer.port)).body == b"yes"
            return peer.requests[0][1]

    request = asyncio.run(whole())
    assert request.startswith(b"GET http://elsewhere.invalid/x HTTP/1.1\r\nHost: elsewhere.invalid\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in request


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "both.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", str(path), "-out", str(tmp_path / "cert")], check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "cert").read_text())
    return path


@pytest.mark.tools("openssl")
def test_tls_straight_and_through_a_proxy(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def ask(port: int) -> bytes:
        client = HttpClient(max_answer_bytes=1000)
        found = [await client.ask("GET", f"https://localhost:{port}/", seconds=5) for _ in range(2)]
        client.close()
        assert found[0] == found[1]
        return bytes(found[0].body)

    async def tunnel(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(f"CONNECT localhost:{port} HTTP/1.1".encode())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        ways: list[Awaitable[None]] = [_copy(reader, back), _copy(there, writer)]
        await asyncio.gather(*ways)

    async def whole() -> list[bytes]:
        async with Peer(tls=context) as peer:
            straight = await ask(peer.port)
            proxy = await asyncio.start_server(lambda *ends: tunnel(peer.port, *ends), "127.0.0.1", 0)
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
            found = [straight, await ask(peer.port)]
            proxy.close()
            return found

    assert asyncio.run(whole()) == [b"yes", b"yes"]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(10_000):
        writer.write(data)
    writer.close()


@pytest.mark.tools("openssl")
def test_a_certificate_of_nobody_is_refused(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def work(client: HttpClient) -> Answer:
        async with Peer(tls=context) as peer:
            return await client.ask("GET", f"https://localhost:{peer.port}/", seconds=5)

    with pytest.raises(TransportError, match="not to be trusted"):
        run(work)
