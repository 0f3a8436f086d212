"""A running API on fakes, and raw requests to it, for tests that look at bytes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from mist.controller.accounts import answer, password_hash
from mist.controller.api import application
from mist.controller.server import ApiServer, listen
from tests.support.fake_control import ControllerUnderTest


@asynccontextmanager
async def serving(control: ControllerUnderTest, interface: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve the API of a controller on a free port, which is the value."""
    listener = listen(interface, 0)
    port: int = listener.getsockname()[1]
    control.controller.endpoint = listener.getsockname()[:2]
    server = ApiServer(application(control.controller), asyncio.get_running_loop())
    await server.start(listener)
    try:
        yield port
    finally:
        await server.close()
        await control.controller.watch.close()


class Client:
    """One TCP connection. Requests that carry `X-Real-IP` count as remote."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Client:
        """Open a connection."""
        return cls(*await asyncio.open_connection(host, port))

    async def request(
        self, target: str, headers: dict[str, str] | None = None, body: bytes = b"", method: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request and return status, headers (lower case) and body of the reply."""
        sent = {"Host": "localhost:4242", **(headers or {})}
        lines = [f"{method or ('POST' if body else 'GET')} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in sent.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return await self.reply(has_body=method != "HEAD")

    async def reply(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Read one reply."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await asyncio.wait_for(self.reader.readexactly(int(found["content-length"])), 10) if has_body else b""
        return int(head[0].split()[1]), found, body

    async def command(self, command: dict[str, Any], *, remote: bool = True, path: str = "/api2") -> dict[str, Any]:
        """Send a command as JSON and return the reply's object."""
        headers = {"Content-Type": "application/json", **({"X-Real-IP": "192.0.2.1"} if remote else {})}
        _status, _headers, body = await self.request(path, headers, json.dumps(command).encode())
        reply: dict[str, Any] = json.loads(body)
        return reply

    async def log_in(self, username: str, clear: str) -> dict[str, Any]:
        """Ask for the challenge and answer it; returns the reply's `authorize`."""
        challenge = (await self.command({}))["authorize"]["challenge"]
        login = {"username": username, "password": answer(password_hash(clear), challenge)}
        status: dict[str, Any] = (await self.command({"authorize": login}))["authorize"]
        return status

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def free_socket() -> socket.socket:
    """Return a listening socket on a free port of the loopback address."""
    return listen("127.0.0.1", 0)
