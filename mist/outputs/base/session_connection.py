"""A listener's connection in a protocol that talks before media flows: until its peer plays, publishes or is refused."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from mist.errors import AccessDenied, MistError, PeerClosed, WriteStalled
from mist.stream.parameters import PlaybackParameters
from mist.stream.push_access import KEY_SOURCE, admit
from mist.stream.reader import StreamReader
from mist.stream.services import ConnectionRecord, OutputServices
from mist.stream.visits import Visit

READ_BYTES: Final = 64 * 1024
REFUSED_SECONDS: Final = 2.0  # a refused peer may read why
HAND_OVER_SECONDS: Final = 60.0
CHECK_SECONDS: Final = 1.0


class Session(Protocol):
    """What of a protocol's session is used here."""

    def take_output(self) -> bytes: ...

    def handle_timeout(self, now: float) -> None: ...

    def export_state(self) -> bytes: ...


S = TypeVar("S", bound=Session)


class SessionConnection(Generic[S]):
    """One accepted connection, until a publisher is handed over or somebody else has the socket of a player.

    A protocol implements `_handle`, which feeds its session and starts what the peer asks for, and `close`.
    """

    connector: ClassVar[str]
    max_unsent_bytes: ClassVar[int]

    def __init__(self, services: OutputServices, sock: socket.socket, peer: str, session: S) -> None:
        self._services = services
        self._socket = sock
        self._peer = peer
        self._session = session
        self._unsent = b""
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._close_at: float | None = None
        self._record: ConnectionRecord = services.open_record(self.connector, peer)
        self._timer = services.loop.call_later(CHECK_SECONDS, self._check_time)
        self._visit = services.visit(self._record)
        if self._visit is None:
            services.loop.add_reader(sock.fileno(), self._readable)
        else:
            self._start(self._admit(self._visit))

    async def _admit(self, visit: Visit) -> None:
        """Read what the peer says once the handlers of triggers allow. Raises AccessDenied."""
        await visit.open()
        self._services.loop.add_reader(self._socket.fileno(), self._readable)

    # -- reading

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise PeerClosed("the peer closed the connection")
            self._record.add_bytes(0, len(data))
            self._handle(data)
        except (BlockingIOError, InterruptedError):
            return
        except (MistError, OSError) as error:
            self._fail(error)

    def _handle(self, data: bytes) -> None:
        """Take bytes from the peer. Raises MistError, which ends the connection."""
        raise NotImplementedError

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._services.loop.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of the connection; an error ends the connection."""
        try:
            await work
        except (MistError, OSError) as error:
            self._fail(error)

    def _check_time(self) -> None:
        """End a connection whose peer takes too long for anything."""
        now = time.monotonic()
        try:
            if self._close_at is not None and now >= self._close_at:
                raise PeerClosed("refused")
            self._session.handle_timeout(now)
        except MistError as error:
            self._fail(error)
            return
        self._timer = self._services.loop.call_later(CHECK_SECONDS, self._check_time)

    # -- sending

    def _flush(self) -> None:
        output = self._session.take_output()
        if not output:
            return
        waiting = bool(self._unsent)
        self._unsent += output
        if len(self._unsent) > self.max_unsent_bytes:
            raise WriteStalled("the peer does not read what is sent to it")
        if not waiting:
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        self._record.add_bytes(sent, 0)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._services.loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._services.loop.remove_writer(self._socket.fileno())

    def _writable(self) -> None:
        try:
            self._send()
        except OSError as error:
            self._fail(error)

    def _refused(self) -> None:
        """Send what is queued, and end the connection soon."""
        self._close_at = time.monotonic() + REFUSED_SECONDS
        self._flush()
        self._services.loop.add_reader(self._socket.fileno(), self._readable)

    # -- giving the socket away

    async def _open_stream(self, name: str, url: str) -> StreamReader:
        """Return a reader of the stream that a player gets. url: as it asked. Raises as `OutputServices.open_stream`."""
        if self._visit is None:
            return await self._services.open_stream(name)
        self._visit.url = url
        return await self._visit.open_stream(self._services, name)

    async def _hand_over(self, name: str, password: str, url: str, **more: str) -> None:
        """Give a publisher to the input of its stream. Raises MistError, TimeoutError; the socket is still ours then.

        url: where it publishes. more: what else the input is told of it.
        """
        services = self._services
        if self._visit is not None:
            rewritten = await services.triggers.replace("PUSH_REWRITE", "", [url, self._peer, name], name)
            if not rewritten.strip():
                raise AccessDenied("Publishing was refused")
            if rewritten != name:
                name, mark, query = rewritten.strip().partition("?")
                more = {**more, "query": query} if mark else more
        target = await admit(services.config, name, password, self._peer, self._resolve)
        described: dict[str, Any] = {
            "stream": target.stream,
            "input": self.connector,
            "connector": self.connector,
            "host": self._peer,
            "name": name,
            **more,
        }
        if self._visit is not None:
            described["visit"] = [target.stream, self._peer, self.connector, url]
        if target.keyed:
            described["source"] = KEY_SOURCE
        self._flush()
        if self._unsent:
            raise WriteStalled("the peer does not read what is sent to it")
        async with asyncio.timeout(HAND_OVER_SECONDS):
            await services.hand_over_publisher(self._socket.fileno(), described, self._session.export_state())

    async def _resolve(self, host: str) -> list[str]:
        try:
            found = await self._services.loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            self._services.log.warning("the host %s of a push source has no address: %s", host, error)
            return []
        return [str(entry[4][0]) for entry in found]

    def _let_go(self, reader: StreamReader, parameters: PlaybackParameters) -> tuple[int, bytes]:
        """Stop reading and writing; return the socket's descriptor and what must still be sent first."""
        self._record.set_stream(reader.name)
        self._record.set_token(parameters.token)
        fd = self._socket.fileno()
        self._services.loop.remove_reader(fd)
        self._services.loop.remove_writer(fd)
        return fd, self._unsent + self._session.take_output()

    def _given_away(self) -> None:
        """Take note that somebody else has the socket now."""
        self._socket.detach()
        self._closed = True
        self._timer.cancel()

    # -- the end

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "reason", "WRITE_FAILURE")
        self._services.log.info("%s connection of %s: %s (%s)", self.connector, self._peer, error, reason)
        self._close(reason)

    def _close(self, reason: str) -> None:
        """Let go of the socket. A copy that was handed over lives on: there is no shutdown."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        loop = self._services.loop
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        if self._task is not None and self._task is not asyncio.current_task(loop):
            self._task.cancel()
        self._socket.close()
        self._record.close()
