"""The worker of a listener: serves connections and is the `OutputServices` that they are given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import setproctitle

from mist.core.checkpoint import Record
from mist.core.fanout import Fanout, Subscription
from mist.errors import MistError, NotFound, NotReady, StreamError
from mist.runtime.channel import Channel, Message, close_all, memory_file
from mist.runtime.guardian import WorkerMain
from mist.runtime.program import Connection, ListenerRole, Server
from mist.runtime.snapshot import stream_settings
from mist.runtime.span_link import SpanClient
from mist.runtime.spawner_link import SpawnerLink
from mist.runtime.worker import IGNORED_SIGNALS, Worker
from mist.stream.names import sanitise
from mist.stream.on_demand import OnDemandReader
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices
from mist.stream.state import StreamStatus
from mist.stream.variables import replace_in
from mist.stream.visits import Visit

log = logging.getLogger(__name__)

MAX_FALLBACKS = 5
# A stream stays open, and so counts as watched, this long after its last connection here: playlists come and go.
STREAM_LINGER_SECONDS = 10.0
STOP_SECONDS = 1.5
SWEEP_SECONDS = 5.0
UNUSED_COOKIE = 0
PLAYING = frozenset({StreamStatus.READY, StreamStatus.WAIT})


class AcceptedSocket(socket.socket):
    """A socket that tells when it is closed or given away."""

    on_gone: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        self._tell()

    def detach(self) -> int:
        fd = super().detach()
        self._tell()
        return fd

    def _tell(self) -> None:
        callback, self.on_gone = self.on_gone, None
        if callback is not None:
            callback()


@dataclass(eq=False)
class Served:
    """One accepted connection. inode: identifies the socket; descriptors: numbers under which this process may have it."""

    number: int
    inode: int
    descriptors: set[int]
    host: str = ""
    connection: Connection | None = None
    visit: Visit | None = None

    def is_open(self) -> bool:
        """Tell whether this process still has the socket; forgets numbers that have become something else."""
        for fd in tuple(self.descriptors):
            try:
                if os.fstat(fd).st_ino == self.inode:
                    return True
            except OSError:
                pass
            self.descriptors.discard(fd)
        return False


@dataclass(eq=False)
class HeldStream:
    """A reader shared by this worker's connections, and the slot that shows the input that somebody watches."""

    reader: StreamReader
    slot: int
    users: int = 0
    release: asyncio.TimerHandle | None = field(default=None, repr=False)
    spans: SpanClient | None = None
    on_demand: OnDemandReader | None = None

    def close(self) -> None:
        """Stop showing that somebody watches."""
        self.reader.table.unsubscribe(self.slot)
        if self.spans is not None:
            self.spans.close()


class TrackedFanout:
    """The worker's fan-out, which also tells when a socket that it was given is closed."""

    def __init__(self, fanout: Fanout, joined: Callable[[int], Callable[[str], None]]) -> None:
        self._fanout = fanout
        self._joined = joined

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fanout, name)

    def __len__(self) -> int:
        return len(self._fanout)

    def join(
        self,
        reader: Any,
        indexes: Any,
        key: str,
        make_muxer: Any,
        fd: int,
        head: bytes,
        *,
        on_close: Callable[[str], None],
        **options: Any,
    ) -> Subscription:
        """Join as `Fanout.join` does."""
        gone = self._joined(fd)

        def closed(reason: str) -> None:
            on_close(reason)
            gone(reason)

        return self._fanout.join(reader, indexes, key, make_muxer, fd, head, on_close=closed, **options)


class OutputWorker(Worker):
    """Serves the connections that its guardian accepted."""

    def __init__(
        self, server: Server, channel: Channel, connector: str, role: ListenerRole, options: Mapping[str, Any]
    ) -> None:
        self.program = f"output {connector}"
        super().__init__(server, channel)
        self._role = role
        self._options = options
        self._link = SpawnerLink(server.instance, self.loop)
        self._fanout: TrackedFanout | None = None
        self._served: dict[int, Served] = {}
        self._by_inode: dict[int, Served] = {}
        self._by_record: WeakValueDictionary[int, Served] = WeakValueDictionary()
        self._making: Served | None = None
        self._closed: list[int] = []
        self._by_name: dict[str, HeldStream] = {}
        self._by_reader: dict[int, HeldStream] = {}
        self._sweeping = False
        self._kept: dict[int, Callable[[str], None]] = {}

    def title(self) -> str:
        count = len(self._served)
        if not count:
            return f"{self.program} (idle)"
        return f"{self.program} ({count} connection{'s' if count > 1 else ''})"

    # -- connections -----------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        if message.get("do") == "serve" and len(fds) == 1:
            self._serve(int(message["connection"]), str(message["host"]), fds[0])
            return
        close_all(fds)
        if message.get("do") == "end_connections":
            for number in message["records"]:
                self._break(int(number))

    def open_record(self, connector: str, host: str) -> Record:
        """Return a record for the connection that is being made; see `OutputServices`."""
        record = super().open_record(connector, host)
        if self._making is not None:
            self._by_record[record.number] = self._making
        return record

    def _break(self, number: int) -> None:
        """End the connection that has a record, whoever serves it: to all of them it looks as if the peer had left."""
        served = self._by_record.get(number)
        if served is None or not served.is_open():
            return
        for fd in served.descriptors:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, number: int, host: str, fd: int) -> None:
        served = Served(number, os.fstat(fd).st_ino, {fd}, host)
        self._served[number] = self._by_inode[served.inode] = served
        try:
            sock = AcceptedSocket(fileno=fd)
        except OSError:  # the peer reset the connection: the kernel no longer says what kind of socket it is
            os.close(fd)
            self._check_soon(served)
            return
        sock.setblocking(False)
        sock.on_gone = lambda: self._check_soon(served)
        self._making = served
        try:
            served.connection = self._role.connection(cast(OutputServices, self), self._options, sock, host)
        except Exception as error:
            log.error(
                "A connection from %s could not be served: %s", host, error, exc_info=not isinstance(error, MistError)
            )
            sock.close()
        finally:
            self._making = None
        self.show_title()
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _check_soon(self, served: Served) -> None:
        """See, once whoever closes a socket has done so, whether the connection is over."""
        self.loop.call_soon(self._check, served)

    def _check(self, served: Served) -> None:
        if self._served.get(served.number) is not served or served.is_open():
            return
        del self._served[served.number]
        if self._by_inode.get(served.inode) is served:
            del self._by_inode[served.inode]
        if served.visit is not None:
            served.visit.close()
        if not self._closed:
            self.loop.call_soon(self._report_closed)
        self._closed.append(served.number)

    def _report_closed(self) -> None:
        self.channel.send({"closed": self._closed})
        self._closed = []
        self.show_title()
        if not self._served and self.homeless:
            self.finish()

    def _sweep(self) -> None:
        """Find connections whose end nobody told of."""
        for served in tuple(self._served.values()):
            self._check(served)
        if self._served:
            self.loop.call_later(SWEEP_SECONDS, self._sweep)
        else:
            self._sweeping = False

    def _joined(self, fd: int) -> Callable[[str], None]:
        """Note under which number the fan-out has a connection's socket; returns what to call, and why, when it is closed."""
        served = self._by_inode.get(os.fstat(fd).st_ino)
        if served is None:
            return lambda reason: None
        served.descriptors.add(fd)

        def gone(reason: str) -> None:
            if served.visit is not None and reason == "CLEAN_EOF":
                served.visit.stopped()
            self._check_soon(served)

        return gone

    # -- end -------------------------------------------------------------------------------------------------------

    def guardian_gone(self) -> None:
        if self._served:
            super().guardian_gone()
        elif not self._stopping:
            self.finish()

    def show(self) -> tuple[Message, Sequence[int]]:
        return {"connections": list(self._served)}, ()

    def deserted(self, why: str) -> None:
        super().deserted(why)
        if not self._served:
            self.finish()

    def stopping(self, reason: str) -> None:
        for served in tuple(self._served.values()):
            if served.connection is not None:
                served.connection.close(reason)
        for close in tuple(self._kept.values()):
            close(reason)
        self._close_fanout()
        self.spawn(self._wait_closed())

    def _close_fanout(self) -> None:
        """End the viewers that the fan-out serves."""
        if self._fanout is not None:
            self.loop.remove_reader(self._fanout.fileno())
            self._fanout.close()
            self._fanout = None

    async def _wait_closed(self) -> None:
        deadline = self.loop.time() + STOP_SECONDS
        while self._served and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
            for served in tuple(self._served.values()):
                self._check(served)
        self.finish()

    def ended(self) -> None:
        self._close_fanout()
        for held in self._by_reader.values():
            held.close()
        self._link.close()

    # -- services --------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Mapping[str, Any]:
        return self.snapshot

    @property
    def outputs(self) -> Mapping[str, Any]:
        """All outputs by connector name, for dispatch by URL."""
        return self.server.program.outputs

    @property
    def version(self) -> str:
        return self.server.program.version

    @property
    def fanout(self) -> Any:
        """This worker's fan-out, made when it is first needed."""
        if self._fanout is None:
            merge_ms = self._options.get("merge_ms")
            fanout = Fanout(str(self.server.instance.bells), "auto" if merge_ms is None else merge_ms)
            self.loop.add_reader(fanout.fileno(), fanout.run)
            fanout.attach(self.loop._get_backend_id())  # type: ignore[attr-defined]
            self._fanout = TrackedFanout(fanout, self._joined)
        return self._fanout

    def visit(self, record: Any) -> Visit | None:
        """Return what fires a connection's triggers; see `OutputServices`."""
        if not self.snapshot["config"].get("triggers") or record is None:
            return None
        served = self._by_record.get(record.number)
        if served is None:
            return None
        if served.visit is None:
            served.visit = Visit(self.triggers, served.host, self._role.capability.name, record)
        return served.visit

    async def open_stream(self, name: str, visit: Visit | None = None) -> StreamReader:
        """Return a reader of a stream that plays, or of its fallback; see `OutputServices`."""
        stream = sanitise(name)
        first: StreamError | None = None
        for _ in range(MAX_FALLBACKS):
            try:
                return await self._open(stream)
            except (NotFound, NotReady) as error:
                first = first or error
            fallback = await self._fallback(stream, visit)
            if not fallback or fallback == stream:
                break
            stream = fallback
        assert first is not None
        raise first

    async def _open(self, stream: str) -> StreamReader:
        held = self._by_name.get(stream)
        if held is not None and plays(held.reader):
            return self._hold(held)
        try:
            reader = StreamReader(self.instance, stream)
        except NotFound:
            reader = None
        if reader is None or not plays(reader):
            await self._link.ask({"do": "start", "stream": stream})
            reader = StreamReader(self.instance, stream)
        held = self._by_name.get(stream)
        if held is None or held.reader.table.stale:
            held = HeldStream(reader, reader.table.subscribe(UNUSED_COOKIE))
            self._by_name[stream] = self._by_reader[id(reader)] = held
        return self._hold(held)

    def _hold(self, held: HeldStream) -> StreamReader:
        if held.release is not None:
            held.release.cancel()
            held.release = None
        held.users += 1
        return held.reader

    def close_stream(self, reader: StreamReader) -> None:
        """Give back a reader of `open_stream`."""
        held = self._by_reader[id(reader)]
        held.users -= 1
        if held.users == 0:
            held.release = self.loop.call_later(STREAM_LINGER_SECONDS, self._release, held)

    def _release(self, held: HeldStream) -> None:
        del self._by_reader[id(held.reader)]
        if self._by_name.get(held.reader.name) is held:
            del self._by_name[held.reader.name]
        held.close()

    def on_demand(self, reader: StreamReader) -> OnDemandReader:
        """Return what plays the media of an on-demand stream; see `OutputServices`."""
        held = self._by_reader[id(reader)]
        if held.on_demand is None:
            held.spans = SpanClient(self.server.instance, self.loop, lambda: int(reader.table.pids[1]))
            held.on_demand = OnDemandReader(reader, held.spans.fetch, partial(self._wait, reader))
        return held.on_demand

    async def _wait(self, reader: StreamReader, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition is true that may change when the stream has something new; False when time is up."""
        changed = asyncio.Event()
        fanout = self.fanout
        watch = fanout.watch(reader, changed.set)
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return condition()
        finally:
            fanout.unwatch(watch, changed.set)
        return True

    def keep_socket(self, fd: int, close: Callable[[str], None]) -> Callable[[str], None]:
        """Note that a connection goes on in a descriptor of its own; see `OutputServices`."""
        self._kept[fd] = close
        gone = self._joined(fd)

        def closed(reason: str) -> None:
            self._kept.pop(fd, None)
            gone(reason)

        return closed

    async def _fallback(self, stream: str, visit: Visit | None) -> str:
        """Return the stream that is played instead of one that does not play, or ""."""
        settings = stream_settings(self.snapshot, stream) or {}
        text = str(settings.get("fallback_stream") or "")
        if not text:
            text = str(self.snapshot["config"].get("defaultStream") or "")
            if visit is not None:
                text = (await visit.fallback(text, stream)).strip()
        return sanitise(replace_in(text, stream, self.snapshot)) if text else ""

    async def hand_over_publisher(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        """Give a publisher's socket to the input of its stream; see `OutputServices`."""
        state_fd = memory_file(state)
        try:
            message = {"do": "publish", "stream": request["stream"], "request": dict(request)}
            await self._link.ask(message, (fd, state_fd))
            served = self._by_inode.get(os.fstat(fd).st_ino)
            if served is not None:
                served.visit = None  # its end is the input's to tell
        finally:
            os.close(state_fd)


def plays(reader: StreamReader) -> bool:
    """Tell whether a stream has media, even if its publisher is away for a moment."""
    return reader.status() in PLAYING and bool(reader.table.valid_tracks())


def output_main(server: Server, connector: str, role: ListenerRole, options: Mapping[str, Any]) -> WorkerMain:
    """Return what a worker of a listener runs."""

    def main(channel: Channel) -> int:
        wait_for_work(channel, connector)
        return OutputWorker(server, channel, connector, role, options).run()

    return main


def wait_for_work(channel: Channel, connector: str) -> None:
    """Sleep until the guardian has something to say. A spare without an event loop costs a third of one with it."""
    setproctitle.setproctitle(f"mist: output {connector} (idle)")
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    waiting = select.poll()
    waiting.register(channel.fileno(), select.POLLIN)
    waiting.poll()
