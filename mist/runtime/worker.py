"""What runs inside a listener's worker and inside an input: the event loop and the services they were promised."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any, Final

import uvloop
from setproctitle import setproctitle

from mist import errors
from mist.core.checkpoint import CheckpointTable, open_checkpoints
from mist.core.fanout import Fanout
from mist.errors import AccessDenied, Busy, MistError, NotFound, NotReady
from mist.runtime.channel import Channel, Message, close_all, memory_file
from mist.runtime.instance import Instance
from mist.runtime.log import become
from mist.runtime.program import Program
from mist.runtime.snapshot import Snapshot, read_snapshot, stream_settings
from mist.stream.names import sanitise
from mist.stream.publisher import Limits, StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
TITLE_INTERVAL_S: Final = 1.0
IDLE_EXIT_S: Final = 60.0
STREAM_LINGER_S: Final = 15.0  # longer than players of segments take between two requests
RUNNING: Final = frozenset({StreamStatus.READY, StreamStatus.WAIT})


class SpawnerClient:
    """Asks the spawner over its socket, from an asyncio process."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> None:
        self.instance = instance
        self.loop = loop
        self._channel: Channel | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._number = 0

    def _connect(self) -> Channel:
        if self._channel is None or self._channel.closed:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                sock.connect(str(self.instance.spawner_socket))
            except OSError as error:
                sock.close()
                raise NotReady(f"The server is stopping ({error.strerror})") from None
            self._channel = Channel(sock)
            self._channel.attach(self.loop, self._received, self._lost)
        return self._channel

    def _received(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        future = self._waiting.pop(int(message.get("number", 0)), None)
        if future is not None and not future.done():
            future.set_result(message)

    def _lost(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(NotReady("The server is stopping"))

    async def ask(self, message: Message, fds: tuple[int, ...] = (), timeout_s: float = START_TIMEOUT_S) -> Message:
        """Send a request and return the reply. Raises what the reply says: NotFound, NotReady, Busy, AccessDenied."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Message] = self.loop.create_future()
        self._waiting[number] = future
        self._connect().send({**message, "number": number}, fds)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await future
        except TimeoutError:
            raise NotReady("The stream did not start in time") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in reply:
            kind = getattr(errors, str(reply.get("reason", "")), NotReady)
            raise kind(reply["error"]) if issubclass(kind, MistError) else NotReady(reply["error"])
        return reply

    def tell(self, message: Message) -> None:
        """Send a request whose reply nobody needs."""
        self._number += 1
        self._connect().send({**message, "number": self._number})

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()


class CountedRecord:
    """A connection's record that tells the worker when the connection ends."""

    __slots__ = ("_record", "_worker", "open")

    def __init__(self, worker: ListenerWorker, record: Any) -> None:
        self._worker = worker
        self._record = record
        self.open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)

    @property
    def shared(self) -> Any:
        """The record itself, for the fan-out."""
        return self._record

    def close(self) -> None:
        if self.open:
            self.open = False
            self._record.close()
            self._worker.connection_ended()


class HeldStream:
    """A stream that connections of this worker use, or have used a moment ago.

    Holding it is being a viewer: segmented outputs come and go with each request, and the stream must not stop between.
    """

    def __init__(self, reader: StreamReader) -> None:
        self.reader = reader
        self._slot = reader.table.subscribe(0)
        self._users = 0
        self._uses = 0

    @property
    def users(self) -> int:
        return self._users

    @users.setter
    def users(self, count: int) -> None:
        self._uses += count > self._users
        self._users = count

    def uses(self) -> int:
        """Return how often it was asked for."""
        return self._uses

    def close(self) -> None:
        self.reader.table.unsubscribe(self._slot)
        self.reader.close()


class ListenerWorker:
    """Serves connections of one listener; implements `mist.stream.services.OutputServices`."""

    def __init__(
        self, instance: Instance, program: Program, entry: Mapping[str, Any], channel: Channel, table: CheckpointTable
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.place = instance
        self.instance = instance.name
        self.program = program
        self.entry = entry
        self.connector = str(entry["connector"])
        self.config: Snapshot = read_snapshot(instance)
        self.log = logging.getLogger("mist")
        merge = entry.get("merge_ms", "auto")
        self.fanout = Fanout(str(instance.bells), merge if merge == "auto" else int(merge))
        self.loop.add_reader(self.fanout.fileno(), self.fanout.run)
        backend = getattr(self.loop, "_get_backend_id", None)
        if backend is not None:
            self.fanout.attach(backend())
        self.spawner = SpawnerClient(instance, self.loop)
        self.table = table
        self.output = program.outputs[self.connector]
        self.connections = 0
        self.draining = False
        self.finished = asyncio.Event()
        self._held: dict[str, HeldStream] = {}
        self._opening: dict[str, asyncio.Future[StreamReader]] = {}
        self._title_due = False
        self.channel = channel
        channel.attach(self.loop, self._from_guardian, self._guardian_gone)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.finished.set)
        self._show_title()

    @property
    def outputs(self) -> Mapping[str, Any]:
        """All outputs by connector name, for dispatch by URL."""
        return self.program.outputs

    @property
    def version(self) -> str:
        return self.program.version

    # -- connections -----------------------------------------------------------------------------------------------

    def _from_guardian(self, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "serve" and len(fds) == 1:
            self.connections += 1
            self._show_title()
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            try:
                self.output.connection(self, self.entry, sock, message["peer"])
            except (MistError, OSError) as error:
                self.log.info("connection of %s: %s", message["peer"], error)
                sock.close()
                self.connection_ended()
            return
        close_all(fds)
        if what == "config":
            self.config = read_snapshot(self.place)
        elif what == "end" and not self.connections:
            self.finished.set()

    def _guardian_gone(self) -> None:
        """Serve the connections that are there to their end."""
        self.draining = True
        if not self.connections:
            self.finished.set()

    def open_record(self, connector: str, host: str) -> CountedRecord:
        return CountedRecord(self, self.table.claim(connector, host))

    def connection_ended(self) -> None:
        """Count a connection out and tell the guardian."""
        self.connections -= 1
        self._show_title()
        if not self.channel.closed:
            self.channel.send({"closed": 1})
        if self.connections <= 0:
            if self.draining:
                self.finished.set()
            else:
                self.loop.call_later(IDLE_EXIT_S, self._report_idle)

    def _report_idle(self) -> None:
        if self.connections <= 0 and not self.channel.closed:
            self.channel.send({"idle": True})

    def _show_title(self) -> None:
        """Show the number of connections in the process title, at most once a second."""
        if not self._title_due:
            self._title_due = True
            self.loop.call_later(TITLE_INTERVAL_S if self.connections else 0, self._set_title)

    def _set_title(self) -> None:
        self._title_due = False
        plural = "" if self.connections == 1 else "s"
        setproctitle(f"mist: output {self.connector} ({max(self.connections, 0)} connection{plural})")

    # -- streams ---------------------------------------------------------------------------------------------------

    async def open_stream(self, name: str) -> StreamReader:
        name = sanitise(name)
        held = self._held.get(name)
        if held is None or held.reader.status() not in RUNNING:
            reader = await self._open_once(name)
            held = self._held.get(name)
            if held is None or held.reader is not reader:
                held = self._held[name] = HeldStream(reader)
        held.users += 1
        return held.reader

    async def _open_once(self, name: str) -> StreamReader:
        """Open a stream, once for all who ask at the same time."""
        future = self._opening.get(name)
        if future is None:
            future = self._opening[name] = asyncio.ensure_future(self._start_and_open(name))
            future.add_done_callback(lambda _: self._opening.pop(name, None))
        return await asyncio.shield(future)

    async def _start_and_open(self, name: str) -> StreamReader:
        try:
            reader = StreamReader(self.instance, name)
            if reader.status() in RUNNING and reader.table.valid_tracks():
                return reader
        except NotFound:
            if stream_settings(self.config, name) is None:
                raise NotFound("Stream is offline: no such stream is configured") from None
        await self.spawner.ask({"do": "start", "stream": name})
        return StreamReader(self.instance, name)

    def close_stream(self, reader: StreamReader) -> None:
        held = self._held.get(reader.name)
        if held is None or held.reader is not reader:
            return  # the stream ended meanwhile and another of the name was opened
        held.users -= 1
        if not held.users:
            self.loop.call_later(STREAM_LINGER_S, self._let_go, held, held.uses())

    def _let_go(self, held: HeldStream, uses: int) -> None:
        """Forget a stream that nobody asked for since `close_stream`."""
        if not held.users and held.uses() == uses:
            held.close()
            if self._held.get(held.reader.name) is held:
                del self._held[held.reader.name]

    async def hand_over_publisher(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        state_file = memory_file(state)
        try:
            await self.spawner.ask({"do": "publish", "request": dict(request)}, (fd, state_file))
        finally:
            os.close(state_file)

    def close(self) -> None:
        self.fanout.close()
        for held in self._held.values():
            held.close()
        self.spawner.close()
        self.channel.close()


def run_listener_worker(
    instance: Instance, program: Program, entry: Mapping[str, Any], channel_socket: socket.socket, table: str
) -> int:
    """Be a listener's worker; returns the exit status."""
    become(f"output {entry['connector']}")

    async def main() -> None:
        worker = ListenerWorker(instance, program, entry, Channel(channel_socket), open_checkpoints(table, True))
        await worker.finished.wait()
        worker.close()

    uvloop.run(main())
    return 0


class InputWorker:
    """Runs one input; implements `mist.stream.services.InputServices`."""

    def __init__(
        self, instance: Instance, stream: str, source: str, settings: Mapping[str, Any], publisher: StreamPublisher,
        record: Any, request: Mapping[str, Any], fd: int, state: bytes,
    ) -> None:  # fmt: skip
        self.instance = instance.name
        self.stream = stream
        self.source = source
        self.config = settings
        self.loop = asyncio.get_running_loop()
        self.log = logging.getLogger("mist")
        self.publisher = publisher
        self.record = record
        self.request = request
        self.fd = fd
        self.state = state


def run_input(
    instance: Instance, program: Program, name: str, stream: str, source: str, settings: Mapping[str, Any],
    limits: Limits, channel_socket: socket.socket, table: str, request: Mapping[str, Any], fd: int, state: bytes,
) -> int:  # fmt: skip
    """Be the input of a stream; returns the exit status: 0 for a clean end."""
    become(f"input {name}", stream)
    setproctitle(f"mist: input {stream}")

    async def main() -> int:
        channel = Channel(channel_socket)
        publisher = StreamPublisher(instance.name, stream, str(instance.bells), limits)
        publisher.on_ready = lambda: channel.send({"ready": True})
        record = open_checkpoints(table, True).claim(
            f"INPUT:{request.get('connector', name)}", str(request.get("host", ""))
        )
        record.set_stream(stream)
        task = asyncio.ensure_future(
            program.inputs[name].run(
                InputWorker(instance, stream, source, settings, publisher, record, request, fd, state)
            )
        )
        channel.attach(asyncio.get_running_loop(), lambda _message, fds: close_all(fds), task.cancel)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await finish(task)
        finally:
            record.close()
            publisher.close()
            channel.close()

    return uvloop.run(main())


async def finish(task: asyncio.Future[None]) -> int:
    """Wait for an input and put its end into the log; returns the exit status."""
    try:
        await task
    except asyncio.CancelledError:
        log.info("the input was stopped")
    except MistError as error:
        level = logging.INFO if error.reason.startswith("CLEAN") else logging.WARNING
        log.log(level, "the input ended: %s (%s)", error, error.reason)
        return 0 if error.reason.startswith("CLEAN") else 1
    except Exception:
        log.exception("the input failed")
        return 2
    else:
        log.info("the input ended: end of the source")
    return 0


__all__ = ["AccessDenied", "Busy", "ListenerWorker", "SpawnerClient", "run_input", "run_listener_worker"]
