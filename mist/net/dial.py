"""Connections to servers that streams are pushed to: one address of the host after the other, TLS, and the talk before the media."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from mist.errors import PeerClosed, TransportError
from mist.net.tls_relay import TlsRelay

CONNECT_SECONDS: Final = 10.0
READ_BYTES: Final = 64 * 1024
AT_ONCE: Final = 32  # connections of a process that are being made
TURN_SECONDS: Final = 4.0  # then the next one begins, though the server has not answered yet

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Session(Protocol):
    """The client's end of a protocol, without its socket."""

    def feed(self, data: bytes, now: float) -> Any: ...
    def take_output(self) -> bytes: ...
    def export_state(self) -> bytes: ...


@dataclass(eq=False)
class Dialled:
    """A connection to a server. name: of the server, for messages. relay: what does TLS for it."""

    sock: socket.socket
    name: str
    relay: TlsRelay | None = None

    def close(self) -> None:
        """Close the connection, if nobody else has its socket."""
        self.sock.close()
        if self.relay is not None:
            self.relay.close()


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Make a connection when it is one's turn: a thousand at once on a busy machine would all take too long, and begin again for ever."""
    loop = asyncio.get_running_loop()
    turns = _turns.setdefault(loop, asyncio.Semaphore(AT_ONCE))
    await turns.acquire()
    held = [turns]

    def let_next() -> None:
        if held:
            held.pop().release()

    timer = loop.call_later(TURN_SECONDS, let_next)
    try:
        yield
    finally:
        timer.cancel()
        let_next()


def client_context(verify: bool) -> ssl.SSLContext:
    """Return what TLS to a server needs. verify: its certificate must be right."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def dial(host: str, port: int, tls: ssl.SSLContext | None = None) -> Dialled:
    """Connect to the first address of a host that can be reached, and begin with TLS if that is given. Raises TransportError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            sock = await _reach(loop, host, port)
    except TimeoutError:
        raise TransportError(f"{host}:{port} does not answer") from None
    except OSError as error:
        raise TransportError(f"{host}:{port} cannot be reached: {error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return Dialled(sock, f"{host}:{port}")
    relay = TlsRelay(loop, sock, tls, host, host)
    return Dialled(relay.inner, f"{host}:{port}", relay)


async def _reach(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    failure: OSError = OSError("it has no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, where)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def talk(dialled: Dialled, session: Session, is_started: Callable[[Any], bool]) -> None:
    """Talk until an event says that the server wants media; closes the connection when it does not.

    is_started: looks at an event; raises MistError for a refusal. Raises that, TransportError, RemoteProtocolError.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await _talk(asyncio.get_running_loop(), dialled, session, is_started)
    except TimeoutError:
        dialled.close()
        raise TransportError(f"{dialled.name} does not answer") from None
    except OSError as error:
        dialled.close()
        raise TransportError(f"{dialled.name}: {error}") from None
    except BaseException:
        dialled.close()
        raise


async def _talk(
    loop: asyncio.AbstractEventLoop, dialled: Dialled, session: Session, is_started: Callable[[Any], bool]
) -> None:
    while True:
        if output := session.take_output():
            await loop.sock_sendall(dialled.sock, output)
        data = await loop.sock_recv(dialled.sock, READ_BYTES)
        if not data:
            cause = dialled.relay.error if dialled.relay is not None else None
            raise PeerClosed(f"TLS failed: {_words(cause)}" if cause else "the server closed the connection")
        if any(is_started(event) for event in session.feed(data, time.monotonic())):
            return


def _words(error: Exception) -> str:
    """Return why there is no TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not to be trusted: {error.verify_message}"
    return str(error) or type(error).__name__


async def hear_out(fd: int, seconds: float) -> None:
    """Let a server hang up first, for so many seconds, and close the descriptor.

    To close while something of the server is unread would take back what it has not received yet.
    """
    with socket.socket(fileno=fd) as sock, suppress(OSError):
        sock.setblocking(False)
        sock.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await asyncio.get_running_loop().sock_recv(sock, READ_BYTES):
                    pass
