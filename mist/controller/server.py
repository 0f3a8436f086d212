"""The controller's HTTP server: uvicorn's protocol on a listening socket of this event loop, with bounds of our own."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mist.controller.api import ADMIN_SOCKET_KEY, CONNECTION_KEY, ApiConnection
from mist.errors import ConfigError, TransportError
from mist.net.http_reader import LineEnds

log = logging.getLogger(__name__)
logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it has a line for each websocket

BACKLOG = 500
MAX_CONNECTIONS = 2000
MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 60
REQUEST_SECONDS = 60.0  # from the first byte of a request to its last
STOP_SECONDS = 2.0
HANDSHAKE_SECONDS = 10.0
MAX_HANDSHAKES = 200
MAX_MESSAGE_BYTES = 16 * 1024
ACCEPT_PAUSE_SECONDS = 0.1

_NAME = re.compile(rb"(?m)^[a-z][a-z0-9-]*(?=: )")
_SPELLED = {b"www-authenticate": b"WWW-Authenticate", b"x-ua-compatible": b"X-UA-Compatible", b"etag": b"ETag"}


def capitalised(head: bytes) -> bytes:
    """Return a reply's head with names as `Content-Type`: there are clients that know no other spelling."""
    return _NAME.sub(lambda name: _SPELLED.get(name[0]) or b"-".join(map(bytes.capitalize, name[0].split(b"-"))), head)


class ReplyTransport:
    """The transport of one reply. uvicorn writes names of headers in lower case, as other versions of HTTP do."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write a head, at first, or a part of the body."""
        if not self._begun and not data.startswith(b"HTTP/1.1 100"):
            self._begun = True
            data = capitalised(data)
        self._transport.write(data)


class ApiProtocol(HttpToolsProtocol):
    """One connection. Requests see its `ApiConnection`; a request that is too slow or has too long a head ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection = ApiConnection()
        self._head_bytes = 0
        self._in_head = True
        self._line_ends = LineEnds()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect_request_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for piece in self._line_ends.pieces(data, lambda: self._in_head):
            if self.parser is not None:
                super().data_received(piece)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        scope: Any = self.scope
        scope[CONNECTION_KEY] = self._connection
        self._expect_request_end()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        before = self.cycle
        super().on_headers_complete()
        cycle: Any = self.cycle
        if cycle is not before:
            cycle.transport = ReplyTransport(cycle.transport)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._stop_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Go on as a websocket: requests have an end, a websocket has none."""
        self._stop_deadline()
        super().handle_websocket_upgrade()

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def _expect_request_end(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ApiServer:
    """Serves an ASGI application on listening sockets until it is closed."""

    def __init__(self, application: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._state = ServerState()
        self._config = uvicorn.Config(
            application,
            http=ApiProtocol,
            ws="wsproto",
            ws_max_size=MAX_MESSAGE_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._accepting: list[asyncio.Task[None]] = []
        self._listeners: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self.tls: ssl.SSLContext | None = None
        self.refusing = False  # encryption is configured and cannot be had: nobody is served in the clear instead

    async def start(self, listener: socket.socket, *, admin: bool = False) -> None:
        """Begin to accept. listener: bound and listening; it is closed with the server. admin: only its owner can open it."""
        if not self._config.loaded:
            self._config.load()
        listener.setblocking(False)
        self._listeners.append(listener)
        self._accepting.append(self._loop.create_task(self._accept(listener, admin)))

    async def _accept(self, listener: socket.socket, admin: bool) -> None:
        while True:
            try:
                sock, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                if listener.fileno() < 0:
                    return
                log.error("The control API cannot accept connections: %s", error.strerror or error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            if len(self._handshakes) >= MAX_HANDSHAKES or (self.refusing and not admin):
                sock.close()
                continue
            task = self._loop.create_task(self._connect(sock, admin))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _connect(self, sock: socket.socket, admin: bool) -> None:
        """Give an accepted socket its protocol, after the handshake of TLS where that is on."""
        tls = None if admin else self.tls
        seconds = HANDSHAKE_SECONDS if tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(admin), sock, ssl=tls, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("A connection to the control API ended: %s", error)
            sock.close()

    def _protocol(self, admin: bool) -> ApiProtocol:
        state = {ADMIN_SOCKET_KEY: admin}  # websockets get it, too
        return ApiProtocol(config=self._config, server_state=self._state, app_state=state, _loop=self._loop)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is connected."""
        return not self._state.connections and not self._handshakes

    async def close(self) -> None:
        """Stop accepting, let requests that are being answered finish, and close all connections."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._handshakes, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return what TLS connections are made with. Raises ConfigError that names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.controller.tls: {certificate} and {key} cannot be used: {error}") from None
    return context


def listen(interface: str, port: int) -> socket.socket:
    """Return a listening socket; the any-address serves IPv6 and IPv4. Raises TransportError that says what to do."""
    if interface in ("", "0.0.0.0", "::"):
        try:
            return _bound(socket.AF_INET6, "::", port, dual=True)
        except OSError as error:
            if error.errno is None or isinstance(error, TransportError):
                raise
        return _bound(socket.AF_INET, "0.0.0.0", port)
    return _bound(socket.AF_INET6 if ":" in interface else socket.AF_INET, interface, port)


def _bound(family: socket.AddressFamily, host: str, port: int, *, dual: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if dual and not _is_refused(error):
            raise
        raise TransportError(
            f"The control API cannot listen on {host} port {port}: {error.strerror or error}; "
            "stop what uses it, or change config.controller.port",
            reason="PORT_IN_USE",
        ) from error
    return listener


def _is_refused(error: OSError) -> bool:
    """Return whether the address is taken or forbidden, as opposed to a machine without IPv6."""
    import errno

    return error.errno in (errno.EADDRINUSE, errno.EACCES)


def listen_here(path: str) -> socket.socket:
    """Return a listening socket at a path that only this process's user can open. Raises TransportError."""
    import os

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise TransportError(f"The control API cannot listen at {path}: {error.strerror or error}") from error
    return listener
