"""TLS for code that wants a plain socket: a relay between a TLS connection and one end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from mist.errors import ConfigError

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
# For the capability document of a listener.
TLS_OPTIONS: Final[Mapping[str, Any]] = {
    "cert": {
        "name": "Certificate",
        "help": "File with the certificate chain, PEM; with it, connections are TLS",
        "type": "str",
        "default": "",
        "option": "--cert",
        "short": "C",
    },
    "key": {
        "name": "Key",
        "help": "File with the private key, PEM; empty when the certificate's file has it",
        "type": "str",
        "default": "",
        "option": "--key",
        "short": "K",
    },
}
_contexts: dict[tuple[str, str, int, int], ssl.SSLContext] = {}


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return what TLS needs of a certificate and its key, which are files in PEM form; the key may be in the first.

    A file that has changed is read again. Raises OSError (ssl.SSLError is one), ValueError.
    """
    key = key or certificate
    which = (certificate, key, os.stat(certificate).st_mtime_ns, os.stat(key).st_mtime_ns)
    if which not in _contexts:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        _contexts.clear()
        _contexts[which] = context
    return _contexts[which]


class _Side(asyncio.Protocol):
    """One side of a relay: what it receives, the other one sends. A side that is full holds the other one back."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self._ended = ended
        self._early = b""
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._early:
            self.transport.write(self._early)
            self._early = b""
        if self._over:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early += data
        else:
            self.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.close()
        if self.other is not None:
            self.other.close()
        self._ended()

    def close(self) -> None:
        """Send what is left, and close."""
        self._over = True
        if self.transport is not None:
            self.transport.close()


class TlsRelay:
    """Ends TLS of a connection in this process. `inner` is the plain end, the caller's to use and to close."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: ssl.SSLContext,
        peer: str,
        server_name: str | None = None,
    ) -> None:
        """Begin the handshake. sock: a non-blocking socket, the relay's from now on. server_name: of the server that it is connected to;
        None for an accepted socket. Raises OSError.
        """
        ours, self.inner = socket.socketpair()
        ours.setblocking(False)
        self.inner.setblocking(False)
        self._peer = peer
        self._server_name = server_name
        self.error: Exception | None = None  # why there was no handshake
        self._over = asyncio.Event()
        self._outer_side, self._inner_side = _Side(self._end), _Side(lambda: None)
        self._outer_side.other, self._inner_side.other = self._inner_side, self._outer_side
        self._task: asyncio.Task[None] | None = loop.create_task(self._run(loop, sock, ours, context))

    async def _run(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, ours: socket.socket, context: ssl.SSLContext
    ) -> None:
        try:
            await loop.create_unix_connection(lambda: self._inner_side, sock=ours)
            if self._server_name is None:
                await loop.connect_accepted_socket(
                    lambda: self._outer_side, sock, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
                )
            else:
                await loop.create_connection(
                    lambda: self._outer_side,
                    sock=sock,
                    ssl=context,
                    server_hostname=self._server_name,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
        except (OSError, TimeoutError) as error:
            self.error = error
            log.info("TLS with %s failed: %s", self._peer, str(error) or "the connection was closed in the handshake")
            sock.close()
            self.close()
            self._over.set()

    def _end(self) -> None:
        self._task = None
        self._over.set()

    async def wait_sent(self, seconds: float) -> None:
        """Wait until what was written to the inner end, which is closed, is sent; no longer than so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def close(self) -> None:
        """Send what is left, and close both connections."""
        self._inner_side.close()
        self._outer_side.close()


def accept_tls(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, options: Mapping[str, Any], peer: str
) -> TlsRelay | None:
    """Return the relay of a connection that a listener with these options accepted, None where they name no certificate.

    Raises OSError; ConfigError for files that cannot be used.
    """
    if not options.get("cert"):
        return None
    certificate, key = str(options["cert"]), str(options.get("key") or "")
    try:
        context = server_context(certificate, key)
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS with {certificate} is not possible: {error}") from error
    return TlsRelay(loop, sock, context, peer)
