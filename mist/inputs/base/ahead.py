"""A connection to a source that is made ahead: by a process that will go on with a stream, while another one still feeds it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import suppress
from typing import Any, Final, Protocol, cast

log = logging.getLogger(__name__)

AHEAD_SECONDS: Final = 3.0  # for the source to say something
MAX_HELD_BYTES: Final = 8 << 20  # after which no more is read before it is this process's turn


class Successor(Protocol):
    """What goes on with the connection: an `asyncio.Protocol`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...


class Ahead(asyncio.Protocol):
    """Keeps what the source sends. request: what it is sent first."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None
        self._heard = asyncio.Event()
        self._lost = False

    @classmethod
    async def connect(cls, host: str, port: int, tls: ssl.SSLContext | None, request: bytes) -> Ahead | None:
        """Return a connection on which the source sends already, None if it does not."""
        ahead = cls(request)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(AHEAD_SECONDS):
                await loop.create_connection(lambda: ahead, host, port, ssl=tls, server_hostname=host if tls else None)
                await ahead._heard.wait()
        except OSError as error:  # TimeoutError is one
            log.debug("The source is not reached ahead: %s", error)
            ahead.close()
        return ahead if ahead.is_open else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._heard.set()
        if len(self._held) > MAX_HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._heard.set()

    @property
    def is_open(self) -> bool:
        """Whether the source still sends."""
        return not self._lost and self._transport is not None and not self._transport.is_closing()

    def hand_to(self, successor: Successor) -> None:
        """Let the connection's true protocol go on; only while it is open."""
        transport = self._transport
        assert transport is not None
        transport.set_protocol(cast(Any, successor))
        successor.connection_made(transport)
        held, self._held = bytes(self._held), bytearray()
        successor.data_received(held)
        with suppress(RuntimeError):  # it was not paused
            transport.resume_reading()

    def close(self) -> None:
        """End the connection, if nobody went on with it."""
        self._lost = True
        if self._transport is not None:
            self._transport.close()
