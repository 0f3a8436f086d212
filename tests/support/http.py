"""What tests of the HTTP layer need: a transport without a socket, a loop with a fake clock, an application of a few lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mist.errors import MistError
from mist.net.http_messages import HttpSettings, Request
from mist.net.http_server import HttpConnection, Response


class FakeLoop:
    """Timers and tasks under the test's own clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(when, callback)
        self.timers.append(timer)
        return timer

    def create_task(self, coroutine: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine)

    def get_debug(self) -> bool:
        return False

    def advance(self, seconds: float) -> None:
        """Let time pass, in the order of the timers."""
        end = self.now + seconds
        while True:
            due = [timer for timer in self.timers if not timer.cancelled and timer.when() <= end]
            if not due:
                break
            timer = min(due, key=lambda timer: timer.when())
            self.timers.remove(timer)
            self.now = max(self.now, timer.when())
            timer.callback()
        self.now = end


class FakeTimer:
    """A timer handle."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self._when = when
        self.callback = callback
        self.cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.cancelled = True


class FakeTransport:
    """A transport that keeps what is written; `accept` is how many bytes the peer takes before it stalls, None for all."""

    def __init__(self, peer: str = "203.0.113.9") -> None:
        self.peer = peer
        self.protocol: HttpConnection | None = None
        self.sent = bytearray()
        self.waiting = bytearray()
        self.accept: int | None = None
        self.closed = False
        self.aborted = False
        self.eof = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.peer, 50000) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def write(self, data: bytes) -> None:
        assert not self.closed and not self.eof
        was_waiting = bool(self.waiting)
        self.waiting += data
        self.drain(None)
        if self.waiting and not was_waiting and self.protocol is not None:
            self.protocol.pause_writing()

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(bytes(part) for part in parts))

    def drain(self, more: int | None) -> None:
        """Move bytes to the peer; more raises what the peer takes."""
        if more is not None and self.accept is not None:
            self.accept += more
        room = len(self.waiting) if self.accept is None else min(len(self.waiting), self.accept)
        self.sent += self.waiting[:room]
        del self.waiting[:room]
        if self.accept is not None:
            self.accept -= room
        if more is not None and not self.waiting and self.protocol is not None:
            self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class FakeRecord:
    """A statistics record that remembers."""

    def __init__(self) -> None:
        self.down = self.up = self.closed = 0
        self.stream = self.connector = self.token = ""

    def add_bytes(self, down: int, up: int) -> None:
        self.down += down
        self.up += up

    def set_host(self, host: str) -> None:
        """Addresses of viewers are not looked at."""

    def set_stream(self, stream: str) -> None:
        self.stream = stream

    def set_connector(self, connector: str) -> None:
        self.connector = connector

    def set_token(self, token: str) -> None:
        self.token = token

    def set_position(self, media_us: int) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Application:
    """Answers with what the test says, by default with the path; keeps the requests."""

    def __init__(self, handler: Callable[[Request, Response], Awaitable[None] | None] | None = None) -> None:
        self.requests: list[Request] = []
        self.errors: list[Exception] = []
        self.handler = handler

    def handle(self, request: Request, response: Response) -> Awaitable[None] | None:
        self.requests.append(request)
        if self.handler is not None:
            return self.handler(request, response)
        response.send(200, request.path.encode(), "text/plain")
        return None

    def failed(self, request: Request, response: Response, error: Exception) -> None:
        self.errors.append(error)
        response.send(404 if isinstance(error, MistError) else 500, str(error).encode())


class Peer:
    """One connection under test, with its transport, loop and record."""

    def __init__(
        self, application: Application | None = None, settings: HttpSettings | None = None, peer: str = ""
    ) -> None:
        self.application = application or Application()
        self.loop = FakeLoop()
        self.record = FakeRecord()
        self.transport = FakeTransport()
        self.connection = HttpConnection(
            self.application,
            settings or HttpSettings(),
            loop=cast(asyncio.AbstractEventLoop, self.loop),
            log=logging.getLogger("test.http"),
            record=self.record,
            peer=peer or self.transport.peer,
            salt="7",
        )
        self.transport.protocol = self.connection
        self.connection.connection_made(cast(asyncio.BaseTransport, self.transport))

    def say(self, data: bytes) -> bytes:
        """Feed bytes and return what was answered since the last time."""
        self.connection.data_received(data)
        return self.heard()

    def heard(self) -> bytes:
        """Return what was sent since the last time."""
        sent = bytes(self.transport.sent)
        self.transport.sent.clear()
        return sent


def split_replies(data: bytes, heads_only: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
    """Return (status, headers with lower-case names, body) of replies that have a Content-Length."""
    replies = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, head
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = 0 if heads_only else int(headers.get("content-length", "0"))
        assert len(data) >= size
        replies.append((int(first.split()[1]), headers, data[:size]))
        data = data[size:]
    return replies
