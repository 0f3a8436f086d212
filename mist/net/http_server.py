"""HTTP/1.0 and 1.1 server connections: an asyncio protocol that parses with httptools and answers in order.

A connection answers one request at a time. Requests that are pipelined behind it wait in a short queue, and no request
is started while the reply before it is still in the transport, so a handler may take the socket away at any moment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Protocol, cast

from mist.errors import LocalProtocolError, MistError, PeerClosed
from mist.net.http_messages import (
    LINGER_S,
    HeadAnswered,
    HttpSettings,
    Request,
    RequestRefused,
    fixed_head,
    header_lines,
    normalise_address,
)
from mist.net.http_reader import RequestReader
from mist.net.wire import Wire, recovery_record

MAX_LINGER_BYTES: Final = 1 << 20
MAX_CORK_BYTES: Final = 65536
MAX_KEPT_BYTES: Final = 1 << 17  # of pipelined requests, besides the largest one, that are kept until they are answered
SLICE_BYTES: Final = 16384  # read at a time, so that many small requests in one read stay few in memory
JOIN_BYTES: Final = 32768  # bodies up to this are copied behind their head, larger ones are sent from where they are

_BODILESS = frozenset({204, 304})
_NO_HEADERS: Mapping[str, str] = {}
IDLE_STATE: Final = b'{"kind": "http"}\n'

_date = (0, b"")


def _date_line() -> bytes:
    """Return the Date header line, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (
            now,
            b"Date: " + formatdate(now, usegmt=True).encode("ascii") + b"\r\n",
        )
    return _date[1]


class Record(Protocol):
    """What a connection tells the statistics; `mist.stream.services.ConnectionRecord` has it."""

    def add_bytes(self, down: int, up: int) -> None: ...
    def close(self) -> None: ...


class Application(Protocol):
    """What answers the requests of a connection."""

    def handle(self, request: Request, response: Response) -> Awaitable[None] | None:
        """Answer through response, at once or in the returned awaitable."""
        ...

    def failed(self, request: Request, response: Response, error: Exception) -> None:
        """Answer for a handler that raised before it answered; called from the one place where errors arrive."""
        ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """A reply that another process had begun. saved: what that process gave to `Response.saved`."""

    sock: socket.socket
    record: Any
    saved: Mapping[str, Any]
    request: bytes  # that is answered, as it came


class Response:
    """The reply to one request. Exactly one of `send` and `take_socket` is called, once."""

    __slots__ = ("_before", "_connection", "_request", "started")

    resumed: Resumed | None = None  # of a reply that another process had begun

    def __init__(self, connection: HttpConnection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._before = b""  # what had to be sent before the reply when the socket was taken
        self.started = False

    @property
    def record(self) -> Any:
        """Return the connection's statistics record, to say which stream and connector this request counts for."""
        return self._connection.record

    def take_record(self) -> Any:
        """Return the statistics record and leave its closing to the caller, once `take_socket` has given it the socket."""
        self._connection.record_taken = True
        return self._connection.record

    def send(
        self,
        status: int,
        body: bytes | memoryview = b"",
        content_type: str = "text/plain; charset=utf-8",
        headers: Mapping[str, str] = _NO_HEADERS,
        cache: str | None = None,
        *,
        reason: str = "",
        close: bool = False,
        unknown_length: bool = False,
    ) -> None:
        """Send a complete reply with Content-Length, CORS and caching headers; a HEAD gets the head only.

        cache: Cache-Control value, None for "never". reason: phrase instead of the usual one. close: end the connection after it.
        unknown_length: to a HEAD, no length is told because the reply to a GET has none (RFC 9110 section 8.6).
        Does nothing when the peer has gone. Raises LocalProtocolError for a second reply or an illegal header.
        """
        if self.started:
            raise LocalProtocolError("a second reply to one request")
        request = self._request
        connection = self._connection
        keep_alive = request.keep_alive and not close and not connection.closing
        parts = [
            fixed_head(status, content_type if status not in _BODILESS else "", cache, reason),
            _date_line(),
        ]
        if headers:
            parts.append(header_lines(headers).encode("utf-8", "replace"))
        if cache is None and (cookie := request.token_cookie):
            parts.append(f"Set-Cookie: {cookie}\r\n".encode("latin-1"))
        if status not in _BODILESS and not unknown_length:
            parts.append(b"Content-Length: %d\r\n" % len(body))
        if keep_alive:
            parts.append(b"Connection: keep-alive\r\n\r\n" if request.http10 else b"\r\n")
        else:
            parts.append(b"Connection: close\r\n\r\n")
        self.started = True
        if request.method == "HEAD" or status in _BODILESS:
            body = b""
        connection.reply(b"".join(parts), body, keep_alive)

    def take_socket(
        self,
        status: int = 200,
        content_type: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> tuple[int, bytes]:
        """Take the socket off the event loop for endless media; return (fd, bytes to send before the media).

        fd: non-blocking, owned by the caller from here on. The head announces an end by close. Requests that were
        pipelined behind this one are not answered. The connection's statistics record is closed unless `take_record` took it.
        Raises HeadAnswered when the request was a HEAD (its head is sent), PeerClosed when the peer has gone.
        """
        if self.started:
            raise LocalProtocolError("a second reply to one request")
        parts = [
            fixed_head(status, content_type, None),
            _date_line(),
            header_lines(headers).encode("utf-8", "replace"),
        ]
        if cookie := self._request.token_cookie:
            parts.append(f"Set-Cookie: {cookie}\r\n".encode("latin-1"))
        parts.append(b"Connection: close\r\n\r\n")
        self.started = True
        head = b"".join(parts)
        if self._request.method == "HEAD":
            self._connection.reply(head, b"", False)
            raise HeadAnswered("a HEAD wants no media")
        fd, self._before = self._connection.detach()
        return fd, self._before + head

    def give_back(self, fd: int, record: Any) -> None:
        """Return the socket of `take_socket` and the record of `take_record`, of which nothing was used.

        The request is answered as if they had not been taken, and the connection ends with that.
        """
        self.started = False
        self._connection.attach_again(fd, record, self._before)

    def saved(self, **members: Any) -> bytes:
        """Return what `resumed` needs to answer this request from where its reply is, in another process."""
        return self._connection.saved_request(members)

    def saver(self) -> Callable[[Mapping[str, Any]], bytes]:
        """Return a function that does what `saved` does, at any time."""
        return self._connection.request_saver()


def request_saver(answered: int, received: bytes) -> Callable[[Mapping[str, Any]], bytes]:
    """Return what packs members with a request. answered: how many requests come before it in what was received."""

    def save(members: Mapping[str, Any]) -> bytes:
        return json.dumps({**members, "answered": answered}).encode() + b"\n" + received

    return save


class HttpConnection(asyncio.Protocol):
    """One accepted connection; connect it with `loop.connect_accepted_socket` or `loop.create_server`."""

    def __init__(
        self,
        application: Application,
        settings: HttpSettings,
        *,
        loop: asyncio.AbstractEventLoop,
        log: logging.Logger,
        record: Record | None = None,
        peer: str = "",
        salt: str = "",
    ) -> None:
        """Make an unconnected connection.

        peer: address of the TCP peer, asked of the socket when empty. salt: makes generated session tokens differ.
        record: statistics of this connection, closed at its end.
        """
        self.record = record
        self.record_taken = False  # whoever takes the socket closes it
        self.closing = False  # no further request is answered
        # Who else has the socket is not told when it is closed here, so the peer must hear of the end.
        self._ends_aloud = False
        self._application = application
        self._settings = settings
        self._loop = loop
        self._log = log
        self._peer = normalise_address(peer) if peer else ""
        self._salt = salt
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(settings, self._peer, salt)
        self._queue: deque[Request] = deque()
        self._active: Response | None = None
        self._task: asyncio.Future[None] | None = None
        self._pumping = False
        self._cork: list[bytes] | None = None  # replies to what one read brought, sent together
        self._cork_bytes = 0
        self._writing_paused = False
        self._refusal: RequestRefused | None = None  # to be sent when all before it is answered
        self._eof = False
        self._linger_bytes = -1  # what a refused peer still sent, -1 before that
        self._state = "idle"  # what the timer waits for: idle, head, body, busy, stalled, linger
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._stalled_size = 0
        self._up_bytes = 0
        self._unanswered = b""  # what was received from the oldest request on that has no reply
        self._answered = 0  # requests at its beginning that have one

    def serve(self, sock: socket.socket) -> None:
        """Serve an accepted, non-blocking socket in a way that lets another process go on with it."""
        wire = Wire(self._loop, sock, self.record, self)
        self.connection_made(wire)
        wire.start()

    # Another process.

    def saved_state(self) -> bytes:
        """Return the requests that are not answered."""
        if self._active is None and not self._queue and self._refusal is None and self._reader.phase == "idle":
            self._unanswered, self._answered = b"", 0
            if not self.closing:
                return IDLE_STATE
        return self._described({"kind": "http", "closing": self.closing or self._refusal is not None})

    def saved_request(self, members: Mapping[str, Any]) -> bytes:
        """Return the request in hand, with what a handler wants to know of it; for `Response` only."""
        return self._described(members)

    def request_saver(self) -> Callable[[Mapping[str, Any]], bytes]:
        """Return what does that also when this connection has given its socket away; for `Response` only."""
        return request_saver(self._answered, self._unanswered)

    def _described(self, members: Mapping[str, Any]) -> bytes:
        return request_saver(self._answered, self._unanswered)(members)

    def resume(self, sock: socket.socket, saved: Mapping[str, Any], received: bytes) -> None:
        """Go on with a connection of another process, which had saved this. Raises OSError."""
        wire = Wire(self._loop, sock, self.record, self)
        wire.resume()
        self.connection_made(wire)
        wire.release()
        if saved.get("closing"):
            self._close_after_reply()
            return
        self._keep(received)
        skip = self._answered = int(saved.get("answered", 0))
        for start in range(0, len(received), SLICE_BYTES):
            requests = self._reader.feed(received[start : start + SLICE_BYTES])
            self._take(requests[skip:])
            skip = max(0, skip - len(requests))
        self._await_rest()
        wire.start()

    def _keep(self, data: bytes) -> None:
        """Keep what was received until it is answered; one who sends no end of it is not worth the memory."""
        self._unanswered += data
        settings = self._settings
        if len(self._unanswered) > settings.max_body_bytes + settings.max_header_bytes + MAX_KEPT_BYTES:
            self._unanswered = b""
            record = recovery_record(self.record)
            if record is not None:
                record.give_up()

    # Transport events.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = transport.get_extra_info("peername")  # None when the peer has reset the connection already
            if not self._peer and name:
                self._peer = normalise_address(str(name[0]))
                self._reader = RequestReader(self._settings, self._peer, self._salt)
        self._wait("idle", self._settings.idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything: the peer or we closed it, or a handler took the socket."""
        self._transport = None
        self.closing = True
        self._queue.clear()
        self._reader.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None and self._active is not None:
            self._task.cancel()
        self._active = None
        if self.record is not None:
            self.record.close()
            self.record = None

    def eof_received(self) -> bool:
        """Answer what is still open to a peer that only closed its sending side."""
        self._eof = True
        return self._active is not None or bool(self._queue) or self._writing_paused

    def pause_writing(self) -> None:
        """Start nothing new until the peer has taken the reply."""
        self._writing_paused = True
        self._stalled_size = self._transport.get_write_buffer_size() if self._transport else 0
        self._wait("stalled", self._settings.stall_timeout_s)

    def resume_writing(self) -> None:
        """Go on with the next request."""
        self._writing_paused = False
        self._settle()
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Read what came and answer the requests that it completes."""
        self._up_bytes += len(data)
        if self._linger_bytes >= 0:
            self._linger_bytes += len(data)
            if self._linger_bytes > MAX_LINGER_BYTES:
                self._abort()
            return
        if self.closing or self._refusal is not None:
            return
        self._keep(data)
        self._answer_all(data)
        self._await_rest()

    def _answer_all(self, data: bytes) -> None:
        """Read in slices, and send what is answered at once in one write."""
        self._cork = []
        self._cork_bytes = 0
        if len(data) <= SLICE_BYTES:
            self._answer(data)
        else:
            for start in range(0, len(data), SLICE_BYTES):
                self._answer(data[start : start + SLICE_BYTES])
        self._flush()
        self._cork = None

    def _answer(self, data: bytes) -> None:
        """Start or queue the requests that end in this piece."""
        self._take(self._reader.feed(data))

    def _take(self, requests: list[Request]) -> None:
        for request in requests:
            if self.closing or self._refusal is not None:
                return
            if self._active is None and not self._queue and not self._writing_paused:
                self._start(request)
            elif len(self._queue) < self._settings.max_pipelined:
                self._queue.append(request)
            else:
                text = f"more than {self._settings.max_pipelined} requests wait in this connection"
                self._refusal = RequestRefused(429, text)
        if self._refusal is None:
            self._refusal = self._reader.refusal

    def _await_rest(self) -> None:
        """Set the timer for what is awaited now, and tell a peer that asks to go on with its body."""
        if self.closing:
            return
        if self._refusal is not None:
            self._pump()
            return
        phase = self._reader.phase
        if self._active is not None or self._queue or self._writing_paused:
            return  # a slow request behind this one has its time when this one is done
        if phase == "idle":
            if self._state != "idle":
                self._settle()
            return
        if self._reader.wants_continue:
            self._reader.wants_continue = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if phase != self._state:
            self._settle()

    # Answering.

    def _start(self, request: Request) -> None:
        """Run the handler of a request."""
        response = self._active = Response(self, request)
        self._state = "busy"
        try:
            pending = self._application.handle(request, response)
        except Exception as error:  # noqa: BLE001 - the wrapper where every error of a connection arrives
            self._failed(request, response, error)
            return
        if pending is not None:
            task = self._task = asyncio.ensure_future(pending, loop=self._loop)
            task.add_done_callback(lambda task: self._finished(request, response, task))
        elif not response.started:
            self._failed(request, response, LocalProtocolError(f"nothing answered {request.path!r}"))

    def _finished(self, request: Request, response: Response, task: asyncio.Future[None]) -> None:
        """See how an asynchronous handler ended."""
        if task.cancelled():
            return
        error = task.exception()
        if error is None and not response.started and self._transport is not None:
            error = LocalProtocolError(f"nothing answered {request.path!r}")
        if isinstance(error, Exception):
            self._failed(request, response, error)

    def _failed(self, request: Request, response: Response, error: Exception) -> None:
        """End a request whose handler raised: nothing else of the server is touched."""
        if isinstance(error, HeadAnswered):
            return
        if response.started or self._transport is None:
            if isinstance(error, MistError):
                self._log.info("HTTP %s ended: %s", request.path, error)
            else:
                self._log.error("HTTP %s failed after its reply", request.path, exc_info=error)
            return
        if isinstance(error, RequestRefused):
            response.send(error.status, f"{error}\n".encode(), close=True)
            return
        self._application.failed(request, response, error)
        if not response.started:
            response.send(500, b"Internal server error\n", close=True)

    def reply(self, head: bytes, body: bytes | memoryview, keep_alive: bool) -> None:
        """Write a reply and go on with the next request; for `Response` only."""
        transport = self._transport
        if transport is None:
            return
        self._active = None
        self._task = None
        self._answered += 1
        if self.record is not None:
            self.record.add_bytes(len(head) + len(body), self._up_bytes)
            self._up_bytes = 0
        if not keep_alive:
            self._queue.clear()
            self.closing = True
        if len(body) <= JOIN_BYTES:
            self._write(head + body if body else head)
        else:
            self._flush()
            transport.writelines([head, body])
        if not keep_alive:
            self._close_after_reply()
            return
        self._settle()
        if not self._pumping:
            self._pump()

    def _pump(self) -> None:
        """Start queued requests until one takes time or a reply does not fit the socket."""
        self._pumping = True
        try:
            while self._queue and self._active is None and not self._writing_paused and not self.closing:
                self._start(self._queue.popleft())
        finally:
            self._pumping = False
        if self._active is not None or self._queue or self.closing:
            return
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._eof and self._transport is not None and not self._writing_paused:
            self._close_after_reply()

    def _write(self, data: bytes) -> None:
        if self._cork is not None:
            self._cork.append(data)
            self._cork_bytes += len(data)
            if self._cork_bytes > MAX_CORK_BYTES:
                self._flush()
        elif self._transport is not None:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._cork and self._transport is not None:
            self._transport.write(b"".join(self._cork))
            self._cork.clear()
            self._cork_bytes = 0

    # Refusing, closing, detaching.

    def _refuse(self, status: int, text: str) -> None:
        self._refusal = RequestRefused(status, text)
        self._pump()

    def _send_refusal(self, refusal: RequestRefused) -> None:
        """Answer a request that is not worth reading on, then drop what its sender still has to say."""
        if self._transport is None or self._linger_bytes >= 0:
            return
        self._log.info("HTTP request from %s refused: %s", self._peer, refusal)
        body = f"{refusal}\n".encode("utf-8", "replace")
        head = fixed_head(refusal.status, "text/plain; charset=utf-8", None) + _date_line()
        if refusal.status == 405:
            head += b"Allow: " + ", ".join(sorted(self._settings.methods)).encode("ascii") + b"\r\n"
        self._write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        if self.record is not None:
            self.record.add_bytes(len(head) + len(body), self._up_bytes)
        self._flush()
        self.closing = True
        self._linger_bytes = 0
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._wait("linger", LINGER_S)

    def _close_after_reply(self) -> None:
        """Close once the peer has what was written."""
        self._flush()
        self.closing = True
        if self._transport is not None:
            if self._ends_aloud:
                self._transport.write_eof()
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._wait("stalled", self._settings.stall_timeout_s)

    def _abort(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def close(self, reason: str = "") -> None:
        """End the connection: after the reply that is being made if there is one, else now."""
        if self._transport is None or self.closing:
            return
        self._queue.clear()
        if self._active is None:
            self._close_after_reply()
        else:
            self.closing = True
        if reason:
            self._log.debug("HTTP connection of %s closed: %s", self._peer, reason)

    def detach(self) -> tuple[int, bytes]:
        """Give the socket away; for `Response` only. Returns (fd, bytes of earlier replies to send first)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise PeerClosed("the viewer has gone")
        if self._writing_paused:
            raise LocalProtocolError("a reply was started before the one ahead of it was sent")
        if self.record is not None:
            self.record.add_bytes(0, self._up_bytes)
        if isinstance(transport, Wire):
            self._flush()
            fd, before = transport.let_go()
        else:
            fd = os.dup(transport.get_extra_info("socket").fileno())
            os.set_blocking(fd, False)
            before = b"".join(self._cork) if self._cork else b""
            transport.abort()  # closes the transport's descriptor only: no shutdown, the connection lives on in ours
        self._cork = None
        if self.record_taken:
            self.record = None
        self._queue.clear()
        self._active = None
        self._task = None
        self.closing = True
        if isinstance(transport, Wire):
            self.connection_lost(None)
        return fd, before

    def attach_again(self, fd: int, record: Any, before: bytes) -> None:
        """Take back what `detach` gave away, for one more reply; for `Response` only."""
        self.record, self.record_taken = record, False
        wire = Wire(self._loop, socket.socket(fileno=fd), record, self)
        self._transport = cast(asyncio.Transport, wire)
        self._ends_aloud = True
        if before:
            wire.write(before)

    # Time.

    def _settle(self) -> None:
        """Await the next request, or the rest of one."""
        if self._writing_paused:
            return
        phase = self._reader.phase
        if self._active is not None:
            self._state = "busy"
        elif phase == "idle":
            self._wait("idle", self._settings.idle_timeout_s)
        elif phase == "head":
            self._wait("head", self._settings.header_timeout_s)
        else:
            self._wait("body", self._settings.body_timeout_s)

    def _wait(self, state: str, seconds: float) -> None:
        """Set what is awaited and for how long. A timer that fires too early looks again: most are never needed."""
        self._state = state
        self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._time_out)

    def _time_out(self) -> None:
        """Act on the deadline that passed."""
        self._timer = None
        if self._transport is None:
            return
        if self._state == "busy":
            self._wait("busy", self._settings.idle_timeout_s)
        elif self._loop.time() < self._deadline - 0.001:
            self._timer = self._loop.call_at(self._deadline, self._time_out)
        elif self._state == "stalled" and 0 < self._transport.get_write_buffer_size() != self._stalled_size:
            self._stalled_size = self._transport.get_write_buffer_size()
            self._wait("stalled", self._settings.stall_timeout_s)
        elif self._state in ("head", "body"):
            self._refuse(408, "the request took too long to arrive")
        elif self._state == "idle":
            self._close_after_reply()
        else:
            self._abort()
