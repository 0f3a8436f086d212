"""Requests that write to HTTP servers: bodies that are still growing, and answers that come before their end."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import mist
from mist.errors import LimitExceededError, TransportError
from mist.net.dial import client_context

CONNECT_SECONDS: Final = 10.0
STALL_SECONDS: Final = 30.0  # a server that takes nothing for so long is away
ANSWER_SECONDS: Final = 30.0  # after the last byte
GO_AHEAD_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 30.0  # a connection that was not used for so long is not used again
MAX_HEAD_BYTES: Final = 64 << 10
MAX_ANSWER_BYTES: Final = 4 << 20
MAX_INTERIM: Final = 20
_PORTS: Final = {"http": 80, "https": 443}
_LATER: Final = frozenset({408, 425, 429})


class Away(TransportError):
    """The destination does not take it now; later it may."""


class Refused(TransportError):
    """The destination does not take it, and will not. status: of HTTP."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, reason="WRITE_FAILURE")
        self.status = status


@dataclass(slots=True)
class Answer:
    """What a server said. headers: with names in lower case."""

    status: int
    words: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def location(self) -> str:
        """Where a redirect leads, "" for all other answers."""
        return self.headers.get("location", "") if self.status in (301, 302, 307, 308) else ""


@dataclass(eq=False)
class _Link:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float = 0.0


class Uploader:
    """One connection to one server at a time, used again for the next request. Requests come one after the other."""

    def __init__(self, *, verify: bool = True) -> None:
        self._verify = verify
        self._link: _Link | None = None
        self._to: tuple[str, str, int] = ("", "", 0)
        self._says_go_ahead = True

    async def ask(
        self,
        method: str,
        url: str,
        body: AsyncIterator[bytes] | None = None,
        *,
        size: int | None = 0,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """Send a request and return what is answered, also when that is a refusal.

        size: of the body; None for one that is sent in HTTP chunks, because nobody knows. Raises Away, Refused (a certificate).
        """
        parts = urlsplit(url)
        try:
            link = await self._connect(parts)
            return await self._ask(link, method, parts, body, size, headers)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise Refused(
                f"{parts.hostname}: its certificate is not to be trusted: {error.verify_message}", 0
            ) from None
        except TimeoutError:
            self.close()
            raise Away(f"{parts.hostname}:{_port(parts)} does not answer") from None
        except (OSError, EOFError) as error:
            self.close()
            raise Away(f"{parts.hostname}:{_port(parts)}: {error}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            link.writer.close()

    async def _connect(self, parts: SplitResult) -> _Link:
        now = asyncio.get_running_loop().time()
        to = (parts.scheme, parts.hostname or "", _port(parts))
        link = self._link
        if link is not None and to == self._to and now - link.used_at < IDLE_SECONDS and not link.reader.at_eof():
            return link
        self.close()
        tls = client_context(self._verify) if parts.scheme == "https" else None
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(to[1], to[2], ssl=tls, limit=MAX_HEAD_BYTES)
        self._link, self._to = _Link(reader, writer), to
        return self._link

    async def _ask(
        self,
        link: _Link,
        method: str,
        parts: SplitResult,
        body: AsyncIterator[bytes] | None,
        size: int | None,
        headers: Mapping[str, str],
    ) -> Answer:
        wait = size is None and self._says_go_ahead
        link.writer.write(_head(method, parts, size, headers, wait))
        go_ahead = asyncio.Event()
        answer = asyncio.ensure_future(_read_answer(link.reader, method, go_ahead))
        try:
            if wait:
                self._says_go_ahead = await _wait_go_ahead(go_ahead, answer)
            sent_all = body is None or await _send_body(link.writer, body, size is None, answer)
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await answer
        finally:
            if not answer.done():
                answer.cancel()
                with suppress(asyncio.CancelledError, OSError, EOFError):
                    await answer
        link.used_at = asyncio.get_running_loop().time()
        if not sent_all or found.headers.get("connection", "").lower() == "close":
            self.close()
        return found


def check(answer: Answer, what: str) -> Answer:
    """Return an answer that says yes. Raises Away, Refused."""
    if answer.ok:
        return answer
    words = f"{what}: the server answers {answer.status} {answer.words}".rstrip()
    if answer.status >= 500 or answer.status in _LATER:
        raise Away(words)
    raise Refused(words, answer.status)


def redirected(url: str, answer: Answer) -> str:
    """Return where a request is to be repeated, "" where the answer is one. Raises Refused for another scheme."""
    if not answer.location:
        return ""
    found = urljoin(url, answer.location)
    if urlsplit(found).scheme not in _PORTS:
        raise Refused(f"the server redirects to {found[:200]}", answer.status)
    return found


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def _head(method: str, parts: SplitResult, size: int | None, headers: Mapping[str, str], wait: bool) -> bytes:
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
    lines += [f"User-Agent: mist/{mist.__version__}", "Accept: */*"]
    if parts.username and "Authorization" not in headers:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {b64encode(pair.encode()).decode()}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if size is None:
        lines.append("Transfer-Encoding: chunked")
    elif size or method in ("PUT", "POST"):
        lines.append(f"Content-Length: {size}")
    if wait:
        lines.append("Expect: 100-continue")
    return "\r\n".join([*lines, "", ""]).encode()


async def _wait_go_ahead(go_ahead: asyncio.Event, answer: asyncio.Future[Answer]) -> bool:
    """Wait for the server's go-ahead, or for its answer; returns whether it says such things at all."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(go_ahead.wait())
    try:
        done, _ = await asyncio.wait([waiting, answer], timeout=GO_AHEAD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return bool(done)


async def _send_body(
    writer: asyncio.StreamWriter, body: AsyncIterator[bytes], chunked: bool, answer: asyncio.Future[Answer]
) -> bool:
    """Send a body; False if the answer came before its end, so that nobody wants the rest."""
    pieces = aiter(body)
    while True:
        piece: asyncio.Future[Any] = asyncio.ensure_future(_next(pieces))
        try:
            await asyncio.wait([piece, answer], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return False
            data = piece.result()
        finally:
            if not piece.done():
                piece.cancel()
                with suppress(asyncio.CancelledError):
                    await piece
        if data is None:
            break
        writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        async with asyncio.timeout(STALL_SECONDS):
            await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    return True


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


async def _read_answer(reader: asyncio.StreamReader, method: str, go_ahead: asyncio.Event) -> Answer:
    """Read what the server says, past its interim answers (RFC 9110 section 15.2)."""
    for _ in range(MAX_INTERIM):
        answer = await _read_head(reader)
        if answer.status == HTTPStatus.CONTINUE:
            go_ahead.set()
        if answer.status >= 200:
            answer.body = await _read_body(reader, method, answer)
            return answer
    raise OSError("the server says nothing but interim answers")


async def _read_head(reader: asyncio.StreamReader) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise OSError("the head of the server's answer has no end") from None
    except asyncio.IncompleteReadError:
        raise OSError("the server closed the connection") from None
    version, _, rest = head[0].partition(" ")
    number, _, words = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not number.isdigit():
        raise OSError("what the server answers is not HTTP")
    pairs = (line.partition(":") for line in head[1:] if line)
    return Answer(int(number), words[:200], {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _read_body(reader: asyncio.StreamReader, method: str, answer: Answer) -> bytes:
    if method == "HEAD" or answer.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return b""
    if answer.headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    length = answer.headers.get("content-length")
    if length is not None and length.isdigit():
        return await reader.readexactly(_bounded(int(length)))
    answer.headers["connection"] = "close"
    found = await reader.read(MAX_ANSWER_BYTES)
    while found and len(found) < MAX_ANSWER_BYTES and (more := await reader.read(MAX_ANSWER_BYTES - len(found))):
        found += more
    return found


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while True:
        line = await reader.readline()
        try:
            count = int(line.split(b";")[0], 16)
        except ValueError:
            raise OSError("the body of the server's answer is damaged") from None
        if not count:
            while (await reader.readline()).strip():
                pass
            return bytes(found)
        found += (await reader.readexactly(_bounded(count + len(found)) - len(found) + 2))[:-2]


def _bounded(count: int) -> int:
    if count > MAX_ANSWER_BYTES:
        raise LimitExceededError(f"an answer of {count} bytes; the limit is {MAX_ANSWER_BYTES}")
    return count
