"""The controller's HTTP server: uvicorn's protocol on a listening socket of this event loop, with bounds of our own."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mist.controller.api import CONNECTION_KEY, ApiConnection
from mist.errors import TransportError

BACKLOG = 500
MAX_CONNECTIONS = 2000
MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 60
REQUEST_SECONDS = 60.0  # from the first byte of a request to its last
STOP_SECONDS = 2.0


class ApiProtocol(HttpToolsProtocol):
    """One connection. Requests see its `ApiConnection`; a request that is too slow or has too long a head ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection = ApiConnection()
        self._head_bytes = 0
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

    def on_message_complete(self) -> None:
        self._stop_deadline()
        super().on_message_complete()

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
    """Serves an ASGI application on a listening socket until it is closed."""

    def __init__(self, application: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._state = ServerState()
        self._config = uvicorn.Config(
            application,
            http=ApiProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to accept. listener: bound and listening; it is closed with the server."""
        self._config.load()
        self._server = await self._loop.create_server(self._protocol, sock=listener, backlog=BACKLOG)

    def _protocol(self) -> ApiProtocol:
        return ApiProtocol(config=self._config, server_state=self._state, app_state={}, _loop=self._loop)

    async def close(self) -> None:
        """Stop accepting, let requests that are being answered finish, and close all connections."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


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
