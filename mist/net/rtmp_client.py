"""Publishing to an RTMP server: connect, with TLS for `rtmps://`, and talk until the server wants media."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from mist.errors import AccessDenied, ConfigError, PeerClosed, TransportError
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.net.tls_relay import TlsRelay

CONNECT_SECONDS: Final = 10.0
READ_BYTES: Final = 64 * 1024
_PORTS: Final = {"rtmp": 1935, "rtmps": 443}


@dataclass(frozen=True, slots=True)
class RtmpAddress:
    """Where a stream is published: `rtmp://host[:port]/app/stream`. verify: a certificate must be right."""

    host: str
    port: int
    app: str
    stream: str
    secure: bool
    verify: bool = True

    @classmethod
    def parse(cls, url: str, *, host: str = "", app: str = "", stream: str = "", verify: bool = True) -> RtmpAddress:
        """Read a URL; what else is given takes the place of its parts. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
            name = parts.hostname or ""
        except (ValueError, KeyError):
            raise ConfigError(f"{url} is no RTMP address: rtmp://HOST/APP/STREAM", path="target", value=url) from None
        path_app, _, path_stream = parts.path.lstrip("/").rpartition("/")
        if parts.query:
            path_stream += f"?{parts.query}"
        found = cls(
            name, port, app or unquote(path_app), stream or unquote(path_stream), parts.scheme == "rtmps", verify
        )
        if not name or not found.stream:
            raise ConfigError(f"{url} names no host or no stream: rtmp://HOST/APP/STREAM", path="target", value=url)
        return found if not host else cls(name, port, found.app, found.stream, found.secure, verify)

    @property
    def tc_url(self) -> str:
        """What the server is told that it was called."""
        scheme = "rtmps" if self.secure else "rtmp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}/{self.app}"


@dataclass(eq=False)
class RtmpPublishing:
    """A connection on which the server waits for media. relay: what does TLS for it."""

    sock: socket.socket
    session: ClientSession
    relay: TlsRelay | None = None

    def close(self) -> None:
        """Close the connection, if nobody else has its socket."""
        self.sock.close()
        if self.relay is not None:
            self.relay.close()


async def publish(address: RtmpAddress) -> RtmpPublishing:
    """Connect and ask to publish. Raises TransportError, AccessDenied (the server's refusal), RemoteProtocolError."""
    loop = asyncio.get_running_loop()
    sock, relay = await _connect(loop, address)
    session = ClientSession(
        app=address.app,
        stream=address.stream,
        tc_url=address.tc_url,
        publish=True,
        entropy=os.urandom,
        now=time.monotonic(),
    )
    connection = RtmpPublishing(sock, session, relay)
    try:
        await _negotiate(loop, connection)
    except TimeoutError:
        connection.close()
        raise TransportError(f"{address.tc_url} does not answer") from None
    except OSError as error:
        connection.close()
        raise TransportError(f"{address.tc_url}: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(loop: asyncio.AbstractEventLoop, address: RtmpAddress) -> tuple[socket.socket, TlsRelay | None]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            sock = await _dial(loop, address)
    except TimeoutError:
        raise TransportError(f"{address.host}:{address.port} does not answer") from None
    except OSError as error:
        raise TransportError(f"{address.host}:{address.port} cannot be reached: {error}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.secure:
        return sock, None
    context = ssl.create_default_context()
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    relay = TlsRelay(loop, sock, context, address.host, address.host)
    return relay.inner, relay


async def _dial(loop: asyncio.AbstractEventLoop, address: RtmpAddress) -> socket.socket:
    """Return a socket connected to the first address of the host that can be reached."""
    failure: OSError = OSError("it has no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
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


async def _negotiate(loop: asyncio.AbstractEventLoop, connection: RtmpPublishing) -> None:
    """Talk until publishing has started."""
    sock, session = connection.sock, connection.session
    async with asyncio.timeout(CONNECT_SECONDS):
        while True:
            if output := session.take_output():
                await loop.sock_sendall(sock, output)
            data = await loop.sock_recv(sock, READ_BYTES)
            if not data:
                cause = connection.relay.error if connection.relay is not None else None
                raise PeerClosed(f"TLS failed: {cause}" if cause else "the server closed the connection")
            for event in session.feed(data, time.monotonic()):
                if isinstance(event, m.Refused):
                    raise AccessDenied(event.description or event.code or "the server refused")
                if isinstance(event, m.Started):
                    return
