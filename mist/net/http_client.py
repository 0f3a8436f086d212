"""Requests to HTTP servers whose bodies and answers are short, on connections that are kept open for the next ones.

Specifications: RFC 9110, RFC 9112. What is streamed in either direction has modules of its own (`uploads`, `http_source`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools

import mist
from mist.errors import ConnectTimeout, LimitExceededError, TransportError, UnsupportedError
from mist.net.dial import client_context
from mist.net.http_login import Login, basic

MAX_HEAD_BYTES: Final = 64 << 10
MAX_INTERIM: Final = 20
MAX_STEPS: Final = 6  # redirects and logins of one request
MAX_IDLE: Final = 64  # connections that wait for another request
IDLE_SECONDS: Final = 30.0
_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "/%:@!$&'()*+,;=~"


@dataclass(slots=True)
class Answer:
    """What a server said. headers: with names in lower case."""

    status: int = 0
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class _Stale(TransportError):
    """A server closed a connection that waited for this request: nothing was done."""


class _Connection(asyncio.Protocol):
    """A connection that carries one request after another."""

    def __init__(self, max_answer_bytes: int) -> None:
        self.transport: Any = None
        self.usable = False
        self.timer: asyncio.TimerHandle | None = None
        self._max_answer_bytes = max_answer_bytes
        self._waiting: asyncio.Future[Answer] | None = None
        self._answers = 0
        self._is_tunnel = False

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.usable = True

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():  # nobody asked for that
            self.close()
            return
        self._heard += 1
        self._head_bytes += 0 if self._in_body else len(data)
        if self._head_bytes > MAX_HEAD_BYTES + self._max_answer_bytes:
            self._fail(LimitExceededError("the head of its answer has no end"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ if isinstance(error.__context__, LimitExceededError) else error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(TransportError(f"what it answers is not HTTP: {error}"))

    def eof_received(self) -> None:
        """Let the connection be closed."""

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._waiting is None or self._waiting.done():
            return
        if self._in_body and not {"content-length", "transfer-encoding"} & self._answer.headers.keys():
            self._settle()  # RFC 9112 section 6.3: it is as long as the connection
        elif self._answers and not self._heard:
            self._fail(_Stale("it closed the connection"))
        else:
            self._fail(TransportError(str(error) if error else "it closed the connection"))

    # -- httptools -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._answer = Answer()
        self._in_body = False
        self._head_bytes = 0

    def on_status(self, words: bytes) -> None:
        self._answer.words += words.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._in_body = self._answer.status >= HTTPStatus.OK
        if self._is_tunnel and self._answer.ok:  # RFC 9110 section 9.3.6: what follows is not HTTP
            self._settle()

    def on_body(self, piece: bytes) -> None:
        self._answer.body += piece
        if len(self._answer.body) > self._max_answer_bytes:
            raise LimitExceededError(f"its answer is over {self._max_answer_bytes} bytes")

    def on_message_complete(self) -> None:
        if self._answer.status < HTTPStatus.OK:  # RFC 9110 section 15.2
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise LimitExceededError("it says nothing but interim answers")
        elif self._waiting is not None and not self._waiting.done():
            self.usable = self.usable and self._parser.should_keep_alive()
            self._settle()
        else:  # an answer to nothing
            self.usable = False

    def _settle(self) -> None:
        if self._waiting is not None:
            self._waiting.set_result(self._answer)

    # -- requests --------------------------------------------------------------------------------------------------

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Send a request and return the answer. seconds: of silence. Raises TransportError, LimitExceededError."""
        loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpResponseParser(self)
        self._heard = self._interim = 0
        self.on_message_begin()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._waiting = waiting
        self.transport.write(request)
        watch = loop.call_later(seconds, self._watch, seconds, 0)
        self._silence = watch
        try:
            answer = await waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._silence.cancel()
        self._answers += 1
        self._waiting = None
        return answer

    async def connect(self, request: bytes, seconds: float) -> Any:
        """Ask a proxy for a tunnel and return the transport that is one from then on. Raises TransportError."""
        self._is_tunnel = True
        answer = await self.ask(request, seconds)
        if not answer.ok:
            self.close()
            raise TransportError(f"the proxy answered {answer.status} {answer.words}")
        return self.transport

    def _watch(self, seconds: float, heard: int) -> None:
        if self._heard == heard:
            self._fail(ConnectTimeout(f"it was silent for {seconds:g} s"))
        else:
            self._silence = asyncio.get_running_loop().call_later(seconds, self._watch, seconds, self._heard)

    def _fail(self, error: BaseException) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.usable = False
        if self.transport is not None:
            self.transport.abort()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a connection leads. proxy: the URL of one, or ""."""

    scheme: str
    host: str
    port: int
    proxy: str = ""


class HttpClient:
    """Asks servers; follows redirects by asking the same again, and logs in with the name and password of a URL."""

    def __init__(self, *, max_answer_bytes: int) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._idle: dict[_Place, list[_Connection]] = {}
        self._idle_count = 0
        self._tls: ssl.SSLContext | None = None
        self._proxies: Mapping[str, str] = getproxies()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        seconds: float,
    ) -> Answer:
        """Return what is answered in the end, whatever the status. seconds: of silence, and for making a connection.

        Raises TransportError; RemoteProtocolError for answers that are too long, lead in circles or away from HTTP.
        """
        parts = _split(url)
        login = (
            Login(unquote(parts.username), unquote(parts.password or ""), _origin(parts)) if parts.username else None
        )
        for _ in range(MAX_STEPS + 1):
            target = _target(parts)
            place = self._place(parts)
            known = login is not None and login.applies(_origin(parts))
            more = {**headers, "Authorization": login.answer(method, target)} if login and known else headers
            answer = await self._exchange(place, _request(method, parts, target, place.proxy, more, body), seconds)
            if 300 <= answer.status < 400 and "location" in answer.headers:
                parts = _split(urljoin(parts.geturl(), answer.headers["location"]))
            elif answer.status != HTTPStatus.UNAUTHORIZED or login is None or known:
                return answer
            else:
                login.take(answer.headers.get("www-authenticate", ""))
        raise LimitExceededError(f"it redirected more than {MAX_STEPS} times")

    def close(self) -> None:
        """Close the connections that wait for another request."""
        for waiting in self._idle.values():
            for connection in waiting:
                connection.close()
        self._idle.clear()
        self._idle_count = 0

    # -- connections -----------------------------------------------------------------------------------------------

    async def _exchange(self, place: _Place, request: bytes, seconds: float) -> Answer:
        connection = self._kept(place)
        if connection is not None:
            try:
                return await self._use(connection, place, request, seconds)
            except _Stale:
                pass  # it had been closed already when the request was sent
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connect(place, seconds)
        except TimeoutError:
            raise ConnectTimeout(f"{place.host}:{place.port} cannot be reached: no answer in {seconds:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise TransportError(f"its certificate is not to be trusted: {error.verify_message}") from None
        except OSError as error:
            raise TransportError(f"{place.host}:{place.port} cannot be reached: {error}") from None
        return await self._use(connection, place, request, seconds)

    async def _use(self, connection: _Connection, place: _Place, request: bytes, seconds: float) -> Answer:
        answer = await connection.ask(request, seconds)
        if connection.usable and self._idle_count < MAX_IDLE:
            self._keep(connection, place)
        else:
            connection.close()
        return answer

    def _keep(self, connection: _Connection, place: _Place) -> None:
        self._idle.setdefault(place, []).append(connection)
        self._idle_count += 1
        connection.timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, place, connection)

    def _expire(self, place: _Place, connection: _Connection) -> None:
        self._remove(place, connection)
        connection.close()

    def _remove(self, place: _Place, connection: _Connection) -> None:
        waiting = self._idle.get(place, [])
        if connection in waiting:
            waiting.remove(connection)
            self._idle_count -= 1
            if not waiting:
                del self._idle[place]

    def _kept(self, place: _Place) -> _Connection | None:
        """Return the connection that was used last: the others end when nobody needs them."""
        while waiting := self._idle.get(place):
            connection = waiting[-1]
            self._remove(place, connection)
            if connection.timer is not None:
                connection.timer.cancel()
            if connection.usable:
                return connection
        return None

    def _place(self, parts: SplitResult) -> _Place:
        scheme, host, port = _origin(parts)
        proxy = self._proxies.get(scheme, "")
        return _Place(scheme, host, port, "" if not proxy or proxy_bypass(host) else proxy)

    async def _connect(self, place: _Place, seconds: float) -> _Connection:
        """Return a new connection. Raises TransportError, OSError."""
        loop = asyncio.get_running_loop()
        if place.scheme == "https" and self._tls is None:
            self._tls = client_context(True)
        tls = self._tls if place.scheme == "https" else None
        make = partial(_Connection, self._max_answer_bytes)
        if not place.proxy:
            return (await loop.create_connection(make, place.host, place.port, ssl=tls))[1]
        _, host, port = _origin(_split(place.proxy))
        connection = (await loop.create_connection(make, host, port))[1]
        if tls is None:
            return connection
        where = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
        tunnel = await connection.connect(_tunnel(where, place.proxy), seconds)
        secured = make()
        secured.connection_made(await loop.start_tls(tunnel, secured, tls, server_hostname=place.host))
        return secured


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError as error:
        raise UnsupportedError(f"{url[:200]} is no URL: {error}") from None
    raise UnsupportedError(f"{url[:200]} is no URL of an HTTP server")


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _target(parts: SplitResult) -> str:
    query = quote(parts.query, safe=_SAFE + "?")
    return quote(parts.path or "/", safe=_SAFE) + (f"?{query}" if query else "")


def _request(
    method: str, parts: SplitResult, target: str, proxy: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    host = parts.netloc.rpartition("@")[2]
    if not host.isascii():
        host = host.encode("idna").decode()
    if proxy and parts.scheme == "http":
        target = f"http://{host}{target}"
        headers = {**headers, **_proxy_login(proxy)}
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if "User-Agent" not in headers:
        lines.append(f"User-Agent: mist/{mist.__version__}")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + body


def _tunnel(where: str, proxy: str) -> bytes:
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    lines += [f"{name}: {value}" for name, value in _proxy_login(proxy).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    return (
        {"Proxy-Authorization": basic(unquote(parts.username), unquote(parts.password or ""))} if parts.username else {}
    )
