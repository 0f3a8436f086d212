"""The worker of a listener: serves connections and is the `OutputServices` that they are given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import setproctitle

from mist.core.checkpoint import Record
from mist.core.fanout import Fanout
from mist.core.file_pump import FilePump
from mist.errors import MistError, NotFound, NotReady, StreamError
from mist.runtime.adoption import PER_MESSAGE, UNCLAIMED_SECONDS, Adopter
from mist.runtime.channel import Channel, Message, close_all, memory_file
from mist.runtime.guardian import WorkerMain
from mist.runtime.leftovers import open_records, records_name
from mist.runtime.program import Connection, ListenerRole, Server
from mist.runtime.served import AcceptedSocket, HeldStream, Served, TrackedFanout
from mist.runtime.session_link import SessionLink
from mist.runtime.session_tags import AgentTags, Names
from mist.runtime.snapshot import input_timeout_part, stream_settings
from mist.runtime.span_link import SpanClient
from mist.runtime.spawner_link import SpawnerLink, ask_again
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
STREAM_LINGER_SECONDS = 10.0  # at most; a stream whose source stops soon without viewers is held for less
STOP_SECONDS = 1.5
SWEEP_SECONDS = 5.0
UNUSED_COOKIE = 0
RETIRED_STATUS = 75  # of a worker whose connections are to be given to another one
NO_ROOM_STATUS = 1
PLAYING = frozenset({StreamStatus.READY, StreamStatus.WAIT})


class OutputWorker(Worker):
    """Serves the connections that its guardian accepted."""

    forwards_media = True

    def __init__(
        self, server: Server, channel: Channel, connector: str, role: ListenerRole, options: Mapping[str, Any]
    ) -> None:
        self.program = f"output {connector}"
        super().__init__(server, channel)
        self._role = role
        self._options = options
        self._link = SpawnerLink(server.instance, self.loop)
        self._sessions = SessionLink(server.instance, self.loop, lambda: self.snapshot)
        self._fanout: TrackedFanout | None = None
        self._file_pump: FilePump | None = None
        self._served: dict[int, Served] = {}
        self._by_inode: dict[int, Served] = {}
        self._by_record: WeakValueDictionary[int, Served] = WeakValueDictionary()
        self._closed: list[int] = []
        self._by_name: dict[str, HeldStream] = {}
        self._by_reader: dict[int, HeldStream] = {}
        self._sweeping = False
        self._kept: dict[int, Callable[[str], None]] = {}
        self._adopter = Adopter(server.instance, self, self.loop.call_later)
        self._serving = (0, -1)
        self._arenas: dict[int, int] = {}
        self._agents = AgentTags(str(server.instance.log_socket), self.loop)

    def title(self) -> str:
        count = len(self._served)
        if not count:
            return f"{self.program} (idle)"
        return f"{self.program} ({count} connection{'s' if count > 1 else ''})"

    # -- connections -----------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "serve" and len(fds) == 1:
            self.serve(int(message["connection"]), str(message["host"]), fds[0])
        elif what == "adopt":
            self._make_room()
            if self._adopter.take(message, fds):
                self.channel.send({"adopted": message["pids"]})
                self._set_title()
                self.loop.call_later(UNCLAIMED_SECONDS, self._drop_unused)
        elif what == "retire":
            if self._is_needed():
                self.channel.send({"stays": True})
            else:
                self._retire()
        elif what == "prepare":
            self._prepare(int(message["pid"]))
        elif what == "end_connections":
            for number in message["records"]:
                self._break(int(number))
        else:
            close_all(fds)

    def _break(self, number: int) -> None:
        """End the connection that has a record, whoever serves it: to all of them it looks as if the peer had left."""
        served = self._by_record.get(number)
        if served is None or not served.is_open():
            return
        for fd in served.descriptors:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)

    def _retire(self) -> None:
        """End as if killed, at a moment when nothing is half done: another worker goes on with the connections."""
        self.channel.send({"retired": True})
        logging.shutdown()
        os._exit(RETIRED_STATUS)

    def _is_needed(self) -> bool:
        """Tell whether there are connections and no other process could go on with any, as with TLS, whose keys are in this one."""
        table = open_records(records_name(self.server.instance, os.getpid()))
        records = {} if table is None else table.recoverable()
        return bool(self._served) and not any(n in records and records[n].recoverable for n in self._served)

    def _prepare(self, pid: int) -> None:
        """Do what going on with another worker's connections will need, while that one still serves them."""
        self._make_room()
        table = open_records(records_name(self.server.instance, pid))
        active = table.snapshot(2**62) if table is not None else ()
        for stream in sorted({row[4] for row in active if row[4]}):
            reader = self.reopen_stream(stream)
            if reader is not None:
                self.close_stream(reader)  # it is kept for a while
                self.make_fanout()
        self.channel.send({"prepared": True})

    def _make_room(self) -> None:
        """Make the table without which nothing of another worker can go on; if shared memory is full, the next one tries again."""
        try:
            self.make_records()
        except (MistError, OSError) as error:
            log.error("The connections of another worker wait: %s", error)
            logging.shutdown()
            os._exit(NO_ROOM_STATUS)

    def _drop_unused(self) -> None:
        if self._fanout is not None:
            self._fanout.drop_unused()

    def inventory(self) -> Iterator[tuple[Message, tuple[int, ...]]]:
        """Return messages that tell a new guardian what this worker has, with descriptors to duplicate it from."""
        arenas = tuple(self._arenas.items())
        for start in range(0, len(arenas), PER_MESSAGE):
            some = arenas[start : start + PER_MESSAGE]
            yield {"inventory": {"arenas": [number for number, _ in some]}}, tuple(fd for _, fd in some)
        served = [(one, fd) for one in self._served.values() if (fd := one.descriptor()) is not None]
        for start in range(0, len(served), PER_MESSAGE):
            few = served[start : start + PER_MESSAGE]
            listed = [[one.number, one.host] for one, _ in few]
            visits = {one.number: one.visit.state() for one, _ in few if one.visit is not None}
            yield {"inventory": {"connections": listed, "visits": visits}}, tuple(fd for _, fd in few)
        yield {"inventory": {"last": True}}, ()

    def _arena_made(self, number: int, fd: int) -> None:
        self._arenas[number] = fd
        copy = os.dup(fd)
        self.channel.send({"arena": number}, (copy,), close=(copy,))

    def _arena_gone(self, number: int) -> None:
        del self._arenas[number]
        self.channel.send({"arena_gone": number})

    def open_record(self, connector: str, host: str) -> Record:
        """Return a record of the connection that is being served; another process can go on with what it says."""
        record = super().open_record(connector, host)
        number, fd = self._serving
        if number:
            record.follow_socket(fd)
            record.set_connection(number)  # the record counts from here on
            self._by_record[record.number] = self._served[number]
        return record

    def resume(self, number: int, host: str, fd: int, former: Record, visit: Sequence[Any] | None) -> None:
        """Go on with a connection of another worker."""
        record = super().open_record("", host)
        record.adopt(former)
        record.blame(True)

        def connect(served: Served, sock: socket.socket) -> Connection:
            self._by_record[record.number] = served
            self._take_visit(served, record, visit)
            try:
                return self._role.resume(cast(OutputServices, self), self._options, sock, host, record)
            except BaseException:
                record.close()
                raise

        self._accept(number, host, fd, connect)
        record.blame(False)

    def serve(self, number: int, host: str, fd: int, visit: Sequence[Any] | None = None) -> None:
        """Serve a connection that nobody has taken anything from. visit: what another worker knew of it."""

        def connect(served: Served, sock: socket.socket) -> Connection:
            self._serving = (number, fd)
            self._take_visit(served, None, visit)
            try:
                return self._role.connection(cast(OutputServices, self), self._options, sock, host)
            finally:
                self._serving = (0, -1)

        self._accept(number, host, fd, connect)

    def _take_visit(self, served: Served, record: Record | None, state: Sequence[Any] | None) -> None:
        """Tell the handlers of triggers of what another worker's connection does from here on, but not again of what it did."""
        if state is not None:
            served.visit = self._make_visit(served)
            served.visit.go_on(state)
            served.visit.record = record

    def visit_ended(self, state: Sequence[Any]) -> None:
        """Tell the handlers of triggers that another worker's connection has ended."""
        visit = Visit(self.triggers, "", "")
        visit.go_on(state)
        visit.close()

    def gone(self, number: int) -> None:
        """Take note of a connection that ended without having been served here."""
        if not self._closed:
            self.loop.call_soon(self._report_closed)
        self._closed.append(number)

    def _accept(self, number: int, host: str, fd: int, connect: Callable[[Served, socket.socket], Connection]) -> None:
        served = Served(number, host, os.fstat(fd).st_ino, {fd})
        self._served[number] = self._by_inode[served.inode] = served
        try:
            sock = AcceptedSocket(fileno=fd)
        except OSError:  # the peer reset the connection: the kernel no longer says what kind of socket it is
            os.close(fd)
            self._check_soon(served)
            return
        sock.setblocking(False)
        sock.on_gone = lambda: self._check_soon(served)
        try:
            served.connection = connect(served, sock)
        except Exception as error:
            log.error(
                "A connection from %s could not be served: %s", host, error, exc_info=not isinstance(error, MistError)
            )
            sock.close()
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
        self.gone(served.number)

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

    def rejoined(self) -> None:
        for message, fds in self.inventory():
            copies = [os.dup(fd) for fd in fds]
            self.channel.send(message, copies, close=copies)

    def deserted(self, why: str) -> None:
        super().deserted(why)
        if not self._served:
            self.finish()

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        super()._loop_error(loop, context)
        if isinstance(context.get("exception"), MemoryError):
            self._retire()  # all that a process without memory can do is to give its work to another one

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
        self._sessions.close()
        self._agents.close()

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
        return self.make_fanout()

    def make_fanout(self) -> TrackedFanout:
        """Return the fan-out, which is made at the first call."""
        if self._fanout is None:
            merge_ms = self._options.get("merge_ms")
            fanout = Fanout(str(self.server.instance.bells), "auto" if merge_ms is None else merge_ms)
            self.loop.add_reader(fanout.fileno(), fanout.run)
            fanout.arena_made, fanout.arena_gone = self._arena_made, self._arena_gone
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
            served.visit = self._make_visit(served)
        served.visit.record = record
        return served.visit

    def _make_visit(self, served: Served) -> Visit:
        """Return a visit, of which the guardian always knows what another process would need to go on with it."""

        def changed() -> None:
            self.channel.send({"visit": served.number, "state": visit.state()})

        visit = Visit(self.triggers, served.host, self._role.capability.name, changed=changed)
        return visit

    @property
    def file_pump(self) -> FilePump:
        """What sends from files over this worker's sockets, made when it is first needed."""
        if self._file_pump is None:
            self._file_pump = FilePump(self.loop._get_backend_id())  # type: ignore[attr-defined]
            self.loop.add_reader(self._file_pump.fileno(), self._file_pump.run)
        return self._file_pump

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

    @property
    def guarded(self) -> bool:
        """Whether viewers must be admitted; see `OutputServices`."""
        return self._sessions.guarded

    async def admit(self, stream: str, host: str, token: str, connector: str, url: str) -> None:
        """Raise AccessDenied when a viewer's session may not watch; see `OutputServices`."""
        await self._sessions.admit(stream, host, token, connector, url)

    def tell_agent(self, names: Names, agent: str, seconds: float) -> None:
        """Have a viewer's session say what it is watched with; see `OutputServices`."""
        self._agents.tell(names, agent, seconds)

    async def publishing_stream(self, token: str, host: str) -> str:
        """Return the stream that a token allows to publish to; see `OutputServices`."""
        return await self._sessions.publishing_stream(token, host)

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

    def reopen_stream(self, name: str) -> StreamReader | None:
        """Return a reader of a stream as it is, for a viewer of another process; see `OutputServices`."""
        held = self._by_name.get(name)
        if held is None or held.reader.table.stale:
            try:
                reader = StreamReader(self.instance, name)
            except NotFound:
                return None
            held = HeldStream(reader, reader.table.subscribe(UNUSED_COOKIE))
            self._by_name[name] = self._by_reader[id(reader)] = held
        return self._hold(held)

    def take_arena(self, number: int) -> int | None:
        """Return a group's memory that came from another process; see `OutputServices`."""
        return self._adopter.take_arena(number)

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
            held.release = self.loop.call_later(self._linger_s(held.reader.name), self._release, held)

    def _linger_s(self, stream: str) -> float:
        """Return how long a stream is held for who comes next, during which its input takes it for watched."""
        return min(STREAM_LINGER_SECONDS, input_timeout_part(self.snapshot, stream))

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
            held.on_demand = OnDemandReader(reader, held.spans.fetch, partial(self._wait, reader), held.spans.listens)
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
            await ask_again(lambda: self._link.ask(message, (fd, state_fd)))
            served = self._by_inode.get(os.fstat(fd).st_ino)
            if served is not None and served.visit is not None:
                served.visit.leave()
        finally:
            os.close(state_fd)


def plays(reader: StreamReader) -> bool:
    """Tell whether a stream has media, even if its publisher is away for a moment."""
    return reader.status() in PLAYING and bool(reader.table.valid_tracks())


def output_main(server: Server, connector: str, role: ListenerRole, options: Mapping[str, Any]) -> WorkerMain:
    """Return what a worker of a listener runs."""

    def main(channel: Channel) -> int:
        if not wait_for_work(channel, connector):
            return 0
        return OutputWorker(server, channel, connector, role, options).run()

    return main


def wait_for_work(channel: Channel, connector: str) -> bool:
    """Sleep until the guardian has something to say; False when it has ended.

    A spare without an event loop costs a third of one with it.
    """
    setproctitle.setproctitle(f"mist: output {connector} (idle)")
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    waiting = select.poll()
    waiting.register(channel.fileno(), select.POLLIN)
    waiting.poll()
    try:
        return bool(channel.socket.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
