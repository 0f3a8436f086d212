"""The controller's process, and the `ControlServices` that it is given."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from mist.core.checkpoint import CheckpointTable
from mist.errors import MistError, NotFound
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.instance import Instance, write_atomically
from mist.runtime.leftovers import all_records, open_records
from mist.runtime.process import fork, own, send_signal
from mist.runtime.program import Server
from mist.runtime.resident import give_back, own_pages, unshare
from mist.runtime.session_link import SessionLink
from mist.runtime.snapshot import SnapshotWriter, canonical
from mist.runtime.spawner_link import SpawnerLink
from mist.runtime.worker import Worker
from mist.stream.reader import StreamReader, list_streams
from mist.stream.session_counts import ConnectionSnapshot

log = logging.getLogger(__name__)

CONTROLLER = "controller"
ENDED_SHOWN_SECONDS = 15
STOP_SECONDS = 1.5
BESIDE_NICE = 5
STARTED_SECONDS = 5.0  # after that, what only the start needed is given back


class Control(Worker):
    """Runs the controller and gives it what it may ask of the other processes.

    api_socket: listening socket of the control API, owned by the main process so that it survives this one. log_socket:
    where all processes' log lines arrive.
    """

    program = key = CONTROLLER

    def __init__(self, server: Server, channel: Channel, api_socket: socket.socket) -> None:
        super().__init__(server, channel)
        self.capabilities = server.program.capabilities()
        self.on_reload: Callable[[bool], Awaitable[str]] = _not_yet
        self.asked_to_leave = False
        self.api_socket = api_socket
        self.log_socket = self._open_log_socket()
        self._link = SpawnerLink(server.instance, self.loop)
        self._sessions = SessionLink(server.instance, self.loop, lambda: self.snapshot)
        self._task: asyncio.Task[None] | None = None
        self._snapshots = SnapshotWriter(server.instance)
        self._telling: asyncio.Task[None] | None = None
        self._status: Mapping[str, Any] = {}
        self._status_at: tuple[int, int] = (0, 0)
        self._tables: dict[tuple[str, int], CheckpointTable] = {}

    def _open_log_socket(self) -> socket.socket:
        path = self.server.instance.log_socket
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        sock = own(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
        sock.bind(str(path))
        path.chmod(0o660)
        return sock

    # -- life ------------------------------------------------------------------------------------------------------

    def started(self) -> None:
        self._task = self.loop.create_task(self._run())
        self.loop.call_later(STARTED_SECONDS, give_back)
        self.loop.run_in_executor(
            None, _nothing
        )  # who starts a thread waits until it runs: not when somebody asks for something

    async def _run(self) -> None:
        main = self.server.program.controller
        assert main is not None
        try:
            await main(self)
        except asyncio.CancelledError:
            log.debug("The controller was stopped")
        except MistError as error:
            log.error("The controller ended: %s", error)
            self.exit_status = 1
        except Exception:
            log.exception("The controller failed")
            self.exit_status = 1
        finally:
            self.finish(0 if self._stopping or self.asked_to_leave else 1)

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("do") == "reload":
            self.spawn(self._reload(bool(message.get("changed_only"))))
        elif message.get("do") == "leave":
            self.asked_to_leave = True

    async def _reload(self, changed_only: bool) -> None:
        self.channel.send({"event": "reloaded", "error": await self.on_reload(changed_only)})

    def stopping(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel()
        self.loop.call_later(STOP_SECONDS, self.finish)

    def show(self) -> tuple[Message, Sequence[int]]:
        return {}, [self.api_socket.fileno()]

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")

    def ended(self) -> None:
        self._link.close()
        self._sessions.close()
        self.log_socket.close()

    # -- ControlServices -------------------------------------------------------------------------------------------

    def prepare_streams(self, streams: Mapping[str, Mapping[str, Any]]) -> None:
        """Do a part of `publish_config` ahead; see `ControlServices`."""
        self._snapshots.prepare(streams)

    def publish_config(self, snapshot: Mapping[str, Any]) -> None:
        """Write the snapshot that all processes read, and tell them."""
        if self._snapshots.write(snapshot):
            self._snapshot = None
            self._telling = self.spawn(self._tell({"do": "config"}))

    async def config_taken(self, seconds: float) -> None:
        """Wait until the main process has taken the last snapshot; see `ControlServices`."""
        if self._telling is not None and not self._telling.done():
            await asyncio.wait([self._telling], timeout=seconds)

    async def _tell(self, message: Message) -> None:
        """Ask the main process, or the next one while it is being replaced."""
        try:
            await self._link.ask(message)
        except MistError as error:
            log.warning("The main process was not told of a change: %s", error)

    def load_state(self) -> bytes:
        try:
            return self.server.instance.controller_state.read_bytes()
        except FileNotFoundError:
            return b""

    def tell_identity(self, identity: str) -> None:
        """Note it where other processes find it; see `ControlServices`."""
        write_atomically(self.server.instance.identity_file, identity.encode())

    def save_state(self, data: bytes) -> None:
        write_atomically(self.server.instance.controller_state, data)

    def run_beside(self, work: Callable[[], bytes], done: Callable[[bytes | None, float], None]) -> Callable[[], None]:
        """Do something in a forked process; see `ControlServices`. What it returns comes in a memory file."""
        result = os.fdopen(os.memfd_create("mist-beside"), "w+b")

        def role() -> int:
            gc.disable()
            try:
                signal.signal(signal.SIGTERM, _leave)  # so that it takes drafts of files with it
                os.nice(BESIDE_NICE)
                result.write(work())
                result.flush()
            except SystemExit:
                return 1
            return 0

        pages = own_pages()
        try:
            pid = fork(role, keep=(result.fileno(),))
        except OSError:
            result.close()
            raise
        self.loop.run_in_executor(None, unshare, pages)
        handle = os.pidfd_open(pid)

        def reap() -> None:
            self.loop.remove_reader(handle)
            os.close(handle)
            _, status, used = os.wait4(pid, 0)
            with result:
                result.seek(0)
                data = result.read() if status == 0 else None
            done(data, used.ru_utime + used.ru_stime)

        def end() -> None:
            send_signal(pid, signal.SIGTERM)
            self.loop.remove_reader(handle)
            os.close(handle)
            result.close()
            os.waitpid(pid, 0)

        self.loop.add_reader(handle, reap)
        return end

    def _read_status(self) -> Mapping[str, Any]:
        try:
            found = self.server.instance.status_file.stat()
            if (found.st_ino, found.st_mtime_ns) != self._status_at:
                self._status = json.loads(self.server.instance.status_file.read_bytes())
                self._status_at = (found.st_ino, found.st_mtime_ns)
        except FileNotFoundError:
            return self._status
        return self._status

    def listener_states(self) -> Mapping[str, Any]:
        """Return {canonical JSON of the protocol entry: 1 | 0 | error text}."""
        listeners = self._read_status().get("listeners", [])
        return {canonical(listener["entry"]): listener["state"] for listener in listeners}

    def connections(self) -> list[ConnectionSnapshot]:
        """Return all active connections and those that ended lately."""
        since_us = time.time_ns() // 1000 - ENDED_SHOWN_SECONDS * 1_000_000
        found: list[ConnectionSnapshot] = []
        for table in self._open_tables():
            found.extend(table.look(since_us))
        return found

    def _open_tables(self) -> Iterable[CheckpointTable]:
        """Return the tables of connections of all processes."""
        present = set(all_records(self.server.instance).values())
        opened = {key: self._tables.get(key) or open_records(key[0]) for key in present}
        self._tables = {key: table for key, table in opened.items() if table is not None}
        return self._tables.values()

    def streams(self) -> list[str]:
        return list_streams(self.instance)

    def open_reader(self, name: str) -> StreamReader:
        return StreamReader(self.instance, name)

    def stream_pids(self, name: str) -> list[int]:
        try:
            guardian, feeder = StreamReader(self.instance, name).table.pids
        except NotFound:
            return []
        return [pid for pid in (feeder, guardian) if pid]

    def pushes(self) -> list[Mapping[str, Any]]:
        """Return the pushes that run or have ended lately."""
        found: list[Mapping[str, Any]] = self._read_status().get("pushes", [])
        return found

    async def start_push(self, stream: str, requested: str, target: str) -> int:
        """Start a push; see `ControlServices`."""
        answer = await self._link.ask({"do": "push_start", "stream": stream, "requested": requested, "target": target})
        return int(answer["number"])

    async def stop_push(self, number: int, *, gracefully: bool = False) -> None:
        """End a push; see `ControlServices`."""
        await self._link.ask({"do": "push_stop", "number": number, "gracefully": gracefully})

    async def start_stream(self, name: str) -> None:
        await self._link.ask({"do": "start", "stream": name})

    async def stop_stream(self, name: str, reason: str) -> None:
        await self._link.ask({"do": "stop_stream", "stream": name, "reason": reason})

    async def nuke_stream(self, name: str) -> None:
        await self._link.ask({"do": "nuke_stream", "stream": name})

    def end_connections(self, records: Iterable[int]) -> None:
        """Break connections, by the identifiers of their records: listeners end theirs, a publisher's input is told to stop."""
        meant = set(records)
        wanted: dict[str, list[int]] = {}
        for table in self._open_tables():
            for number, _, pid, *_, active, identity in table.snapshot():
                if active and identity in meant:
                    wanted.setdefault(str(pid), []).append(number)
        if wanted:
            self.spawn(self._tell({"do": "end_connections", "records": wanted}))

    def invalidate_sessions(self, streams: Iterable[str]) -> None:
        try:
            self._sessions.invalidate(streams)
        except MistError as error:
            log.error("The sessions are not checked again: %s", error)

    def shutdown(self, reason: str, *, failed: bool = False) -> None:
        """Ask for the server's end. failed: its exit status says that it does not run because it cannot."""
        self.spawn(self._tell({"do": "shutdown", "reason": reason, "failed": failed}))


def _nothing() -> None:
    """Have the thread that is there for work beside the event loop."""


async def _not_yet(changed_only: bool) -> str:
    return "the controller is just starting; try again"


def _leave(number: int, frame: object) -> None:
    sys.exit(1)


def control_main(server: Server, descriptor: int) -> Callable[[Channel], int]:
    """Return what the controller's process runs. descriptor: the inherited listening socket of the API."""
    return lambda channel: Control(server, channel, own(socket.socket(fileno=descriptor))).run()


def write_status(server: Server, status: Mapping[str, Any]) -> None:
    """Replace the file that says what runs."""
    data = json.dumps({**status, "pid": os.getpid()}, separators=(",", ":")).encode()
    write_atomically(server.instance.status_file, data)


def former_status(instance: Instance) -> Mapping[str, Any]:
    """Return what a main process has written that was killed; nothing when there was none."""
    try:
        found = json.loads(instance.status_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def former_children(instance: Instance) -> list[int]:
    """Return the processes that the main process which wrote the status file had started."""
    status = former_status(instance)
    if not status:
        return []
    found = [status.get(name, {}).get("pid", 0) for name in ("controller", "triggers", "sessions")]
    found += [one["pid"] for one in status["listeners"]] + [one["guardian"] for one in status["streams"]]
    found.append(status.get("push_guardian", 0))
    return [pid for pid in found if pid]
