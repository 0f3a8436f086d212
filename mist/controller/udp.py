"""The command port for datagrams: one JSON object in, one out, for programs on this machine only."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any
from urllib.parse import urlsplit

from mist.controller.access import is_own
from mist.controller.calls import execute
from mist.controller.permissions import EVERYTHING, Caller
from mist.controller.requests import parse_strict
from mist.controller.state import Command, Controller
from mist.formats.json_text import dumps

LOCAL_HOST = "127.0.0.1"
ADDRESS_VARIABLE = "UDP_API"
MAX_COMMANDS = 64  # under way at once; more are dropped, as datagrams may be
MAX_REPLY_BYTES = 65_000
RETRY_SECONDS = 10.0


class UdpPort(asyncio.DatagramProtocol):
    """Answers datagrams. Whoever can send one to the loopback interface is on this machine, and may do everything."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.address: tuple[str, int] | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, port: int) -> None:
        """Listen on the API's own number or, when that is taken, on any other; tries again later when there is none."""
        self._retry = None
        loop = self.controller.services.loop
        sock = _bind(*_wanted(port))
        if sock is None:
            self.controller.log.warning("There is no port for datagrams; trying again in %d s", RETRY_SECONDS)
            self._retry = loop.call_later(RETRY_SECONDS, lambda: loop.create_task(self.open(port)))
            return
        self.address = sock.getsockname()[:2]
        await loop.create_datagram_endpoint(lambda: self, sock=sock)
        self.controller.udp_address = self.address

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if len(self._tasks) >= MAX_COMMANDS:
            return
        task = self.controller.services.loop.create_task(self._answer(data, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, address: Any) -> None:
        try:
            values = parse_strict(data)
        except (ValueError, RecursionError):
            values = {}
        values = values if isinstance(values, dict) else {}
        caller = Caller("UDP", str(address[0]), EVERYTHING, local=True)
        command = Command({**values, "minimal": True}, caller)
        await execute(self.controller, command)
        if self.address is None or address[1] == self.address[1] or self._transport is None:
            return
        reply = dumps(command.reply).encode()
        if len(reply) > MAX_REPLY_BYTES:
            reply = dumps({"LTS": 1, "error": "The reply is too long for a datagram"}).encode()
        self._transport.sendto(reply, address)

    def close(self) -> None:
        """Stop listening."""
        if self._retry is not None:
            self._retry.cancel()
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.close()


def _wanted(port: int) -> tuple[str, int]:
    """Return the address in the environment (`udp://HOST:PORT`), else the loopback interface and a number."""
    try:
        parts = urlsplit(os.environ.get(ADDRESS_VARIABLE, ""))
        host, given = parts.hostname or LOCAL_HOST, parts.port or port
    except ValueError:
        return LOCAL_HOST, port
    return (host if host == "localhost" or is_own(host, ()) else LOCAL_HOST), given


def _bind(host: str, port: int) -> socket.socket | None:
    other = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
    for address in ((host, port), (host, 0), (other, 0)):
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind(address)
            sock.setblocking(False)
        except (OSError, UnicodeError):
            sock.close()
            continue
        return sock
    return None
