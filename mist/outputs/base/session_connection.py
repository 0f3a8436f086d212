"""A listener's connection in a protocol that talks before media flows: until its peer plays, publishes or is refused."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from mist.errors import AccessDenied, MistError, PeerClosed, WriteStalled, is_out_of_memory
from mist.net.http_messages import generated_token
from mist.net.wire import Wire, recovery_record
from mist.outputs.base.resumed import pack_saved
from mist.stream.names import sanitise
from mist.stream.parameters import PlaybackParameters
from mist.stream.push_access import KEY_SOURCE, PushTarget, admit
from mist.stream.reader import StreamReader
from mist.stream.services import ConnectionRecord, OutputServices
from mist.stream.session_identity import record_token
from mist.stream.token_keys import subject_of
from mist.stream.visits import Visit

READ_BYTES: Final = 64 * 1024
SEED_BYTES: Final = 16
REFUSED_SECONDS: Final = 2.0  # a refused peer may read why
HAND_OVER_SECONDS: Final = 60.0
CHECK_SECONDS: Final = 1.0
MAX_HEARD_BYTES: Final = 1 << 20  # before a peer plays or publishes; usual are 5 kB


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
    _replaying = False

    def __init__(
        self,
        services: OutputServices,
        sock: socket.socket,
        peer: str,
        session: S,
        seed: str,
        record: ConnectionRecord | None = None,
    ) -> None:
        """Serve a socket. seed: what the session was made from. record: of a connection of another process; `resume` it then."""
        self._services = services
        self._socket = sock
        self._peer = peer
        self._session = session
        self._seed = seed
        self._heard = b""  # everything that the peer said: a session made from the same seed says the same to it
        self._said_bytes = 0  # of what the session says, given to the wire
        self._token = ""
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._close_at: float | None = None
        self._handing_over = False
        self._record: ConnectionRecord = record or services.open_record(self.connector, peer)
        self._timer = services.loop.call_later(CHECK_SECONDS, self._check_time)
        self._wire = Wire(services.loop, sock, self._record, self)
        self._visit = services.visit(self._record)
        if record is None:
            self._admit()

    def _admit(self) -> None:
        """Read what the peer says once the handlers of triggers allow that; one who was heard already had been allowed."""
        if self._visit is None or self._visit.is_open or self._task is not None:
            self._wire.start()
        else:
            self._start(self._ask(self._visit))

    async def _ask(self, visit: Visit) -> None:
        await visit.open()
        self._wire.start()

    # -- another process

    def saved_state(self) -> bytes:
        """Return what was said so far."""
        members = {
            "kind": "session",
            "seed": self._seed,
            "closing": self._close_at is not None,
            "said": self._said_bytes,
        }
        if self._handing_over:
            members["kind"] = "handed over"
        return pack_saved(members, self._heard)

    def resume(self, saved: Mapping[str, Any], heard: bytes) -> None:
        """Go on with a connection of another process, which had heard this. Raises MistError, OSError."""
        if saved["kind"] == "handed over":
            if self._visit is not None:
                self._visit.leave()
            raise MistError("its stream's input has it, or was about to get it")
        self._wire.resume()
        if saved.get("closing"):
            self._close_at = time.monotonic() + REFUSED_SECONDS
        else:
            self._heard = heard
            self._replaying = True
            self._handle(heard)
            self._replaying = False
            said = int(
                saved["said"]
            )  # the other process had written that down, and what was not sent of it is the wire's
            self._say(self._session.take_output()[said:], said)
        self._wire.release()
        if self._wire.wanted:
            self._admit()

    # -- reading

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        if self._closed or self._close_at is not None:
            return
        self._record.add_bytes(0, len(data))
        self._heard += data
        if len(self._heard) > MAX_HEARD_BYTES:
            self._heard = b""
            record = recovery_record(self._record)
            if record is not None:
                record.give_up()
        try:
            self._handle(data)
        except (MistError, OSError) as error:
            self._fail(error)

    def eof_received(self) -> bool:
        """End with the peer."""
        self._fail(PeerClosed("the peer closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket failed."""
        if not self._closed:
            self._fail(exc or PeerClosed("the connection is closed"))

    def pause_writing(self) -> None:
        """Go on: how much may wait is bounded."""

    def resume_writing(self) -> None:
        """Go on."""

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
        except Exception as error:  # noqa: BLE001 (a defect of the task's code: it ends this connection, and the loop reports it)
            if not is_out_of_memory(error):  # else another process goes on
                self._fail(error)
            self._services.loop.call_exception_handler({"message": f"{self.connector} connection", "exception": error})

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
        if self._replaying:
            return
        output = self._session.take_output()
        if not output:
            return
        self._say(output, self._said_bytes)
        if self._wire.get_write_buffer_size() > self.max_unsent_bytes:
            raise WriteStalled("the peer does not read what is sent to it")

    def _say(self, output: bytes, said: int) -> None:
        """Send what the session says after so many bytes."""
        self._said_bytes = said + len(output)
        self._record.add_bytes(len(output), 0)
        if output:
            self._wire.write(output)

    def _refused(self) -> None:
        """Send what is queued, and end the connection soon."""
        self._close_at = time.monotonic() + REFUSED_SECONDS
        self._flush()
        self._wire.start()

    # -- giving the socket away

    async def _open_stream(self, name: str, parameters: PlaybackParameters, url: str) -> StreamReader:
        """Return a reader of the stream that a player gets and may watch. name, url: as it asked.

        Raises as `OutputServices.open_stream`, and AccessDenied.
        """
        wanted = subject_of(name) or name

        async def admit(reader: StreamReader) -> None:
            await self._admit_viewer(reader, name, parameters, url)

        if self._visit is not None:
            self._visit.url = url
            return await self._visit.open_stream(self._services, wanted, admit)
        reader = await self._services.open_stream(wanted)
        try:
            await admit(reader)
        except BaseException:
            self._services.close_stream(reader)
            raise
        return reader

    async def _hand_over(self, name: str, password: str, url: str, **more: str) -> None:
        """Give a publisher to the input of its stream. Raises MistError, TimeoutError; the socket is still ours then.

        url: where it publishes. more: what else the input is told of it.
        """
        services = self._services
        if self._visit is not None and not self._shows_token(name):
            rewritten = await self._visit.rewrite("PUSH_REWRITE", [url, self._peer, name], name)
            if not rewritten.strip():
                raise AccessDenied("Publishing was refused")
            if rewritten != name:
                name, mark, query = rewritten.strip().partition("?")
                more = {**more, "query": query} if mark else more
        target = await self._target(name, password)
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
        if self._shows_token(name):
            described["shown"] = name
        self._flush()
        if self._wire.get_write_buffer_size():
            raise WriteStalled("the peer does not read what is sent to it")
        self._handing_over = True
        self._wire.write(b"")
        async with asyncio.timeout(HAND_OVER_SECONDS):
            try:
                await services.hand_over_publisher(self._socket.fileno(), described, self._session.export_state())
            except MistError:
                self._handing_over = False
                raise

    async def _target(self, name: str, password: str) -> PushTarget:
        """Return the stream that the peer may publish to: by a key, a token, or the stream's own rule."""
        services = self._services
        if self._shows_token(name):
            return PushTarget(sanitise(await services.publishing_stream(name, self._peer)), keyed=True)
        return await admit(services.config, name, password, self._peer, self._resolve)

    def _shows_token(self, name: str) -> bool:
        """Return whether a publisher shows a token in place of a stream's name or key."""
        config = self._services.config
        return bool(subject_of(name) and config.get("jwks")) and name not in (config.get("streamkeys") or {})

    async def _admit_viewer(self, reader: StreamReader, name: str, parameters: PlaybackParameters, url: str) -> None:
        """Raise AccessDenied when the peer may not watch. name: as the peer wrote it."""
        self._token = name if subject_of(name) else parameters.token or generated_token("", self._seed)
        await self._services.admit(reader.name, self._peer, self._token, self.connector, url)

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
        self._record.set_token(record_token(self._token or parameters.token))
        fd, unsent = self._wire.lend()
        return fd, unsent + self._session.take_output()

    def _given_away(self) -> None:
        """Take note that somebody else has the socket now."""
        self._wire.leave()
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
        self._wire.leave()
        loop = self._services.loop
        if self._task is not None and self._task is not asyncio.current_task(loop):
            self._task.cancel()
        self._socket.close()
        self._record.close()
