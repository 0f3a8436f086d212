"""The service's main process: binds ports, forks everything else, reaps it, brings it back, and ends it.

Single-threaded and without media. Everything else is its child or grandchild; orphans become its children.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from setproctitle import setproctitle

from mist.core.checkpoint import open_checkpoints
from mist.core.doorbell import Ringer
from mist.core.shm import unlink_segment
from mist.errors import MistError
from mist.runtime.backoff import Backoff
from mist.runtime.channel import Channel, Message, close_all, pair, peer_credentials
from mist.runtime.guardian import ListenerGuardian, clear_doorbell
from mist.runtime.instance import SHARED_MEMORY, Instance, write_atomically
from mist.runtime.log import become, start_log
from mist.runtime.notify import notify, watchdog_seconds
from mist.runtime.process import (
    adopt_orphans,
    descendants,
    describe_exit,
    fork,
    is_alive,
    raise_descriptor_limit,
    reap,
    send_signal,
)
from mist.runtime.program import Program
from mist.runtime.reactor import Reactor
from mist.runtime.snapshot import canonical, read_snapshot, stream_settings
from mist.runtime.stream_guardian import StreamGuardian
from mist.runtime.worker import run_input, run_listener_worker
from mist.stream.publisher import Limits, create_account, remove_stream

log = logging.getLogger(__name__)

KILL_AFTER_S: Final = 3.0
BACKLOG: Final = 1024
EXIT_CONFIG: Final = 2  # the controller's exit status for "the configuration is unusable, the reason is in the log"
DEFAULT_WINDOW_MS: Final = 50_000
DEFAULT_SEGMENT_MS: Final = 1_900
DEFAULT_PACKET_BYTES: Final = 32 << 20


class Listener:
    """One configured listener."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = entry
        self.socket: socket.socket | None = None
        self.pid = 0
        self.channel: Channel | None = None
        self.state: int | str = 0
        self.backoff = Backoff()
        self.started = 0.0
        self.removed = False


class RunningStream:
    """One stream that has a guardian."""

    def __init__(self, name: str, pid: int, channel: Channel) -> None:
        self.name = name
        self.pid = pid
        self.channel = channel
        self.waiters: list[tuple[Channel, int]] = []
        self.publishers: dict[int, tuple[Channel, int]] = {}
        self.next_number = 0


class Spawner:
    """See the module's text."""

    def __init__(self, instance: Instance, program: Program) -> None:
        self.instance = instance
        self.program = program
        self.reactor = Reactor()
        self.listeners: dict[str, Listener] = {}
        self.streams: dict[str, RunningStream] = {}
        self.clients: set[Channel] = set()
        self.controller_pid = 0
        self.controller_started = 0.0
        self.controller_backoff = Backoff()
        self.applied = False
        self.stopping = False
        self.status = 0
        self.started = time.time()
        self.ringer: Ringer | None = None
        self.server: socket.socket | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit status."""
        raise_descriptor_limit()
        adopt_orphans()
        self.instance.acquire()
        try:
            start_log(self.program.debug, str(self.instance.log_socket))
            become("mist")
            setproctitle("mist: server")
            self._prepare()
            self.reactor.run()
        finally:
            self._end_everything()
            self.instance.release()
        return self.status

    def _prepare(self) -> None:
        self.ringer = Ringer(str(self.instance.bells))
        create_account(self.instance.name, 0)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.bind(str(self.instance.spawner_socket))
        self.server.listen(BACKLOG)
        self.server.setblocking(False)
        self.reactor.add_reader(self.server.fileno(), self._accept)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.reactor.on_signal(number, self.stop)
        self.reactor.on_signal(signal.SIGCHLD, self._reap)
        self.reactor.on_signal(signal.SIGHUP, self._reload)
        self.program.preload()
        gc.collect()
        gc.freeze()
        self._start_controller()
        self._keep_watchdog()

    def _keep_watchdog(self) -> None:
        seconds = watchdog_seconds()
        if seconds is not None:
            notify("WATCHDOG=1")
            self.reactor.call_later(seconds, self._keep_watchdog)

    def stop(self) -> None:
        """End all processes, then this one."""
        if self.stopping:
            return
        self.stopping = True
        notify("STOPPING=1")
        for pid in descendants(os.getpid()):
            send_signal(pid, signal.SIGTERM)
        self.reactor.call_later(KILL_AFTER_S, self._kill_all)
        self._stop_if_alone()

    def _kill_all(self) -> None:
        left = descendants(os.getpid())
        for pid in left:
            log.warning("process %d did not end in %g s and is killed", pid, KILL_AFTER_S)
            send_signal(pid, signal.SIGKILL)
        self.reactor.call_later(0.1, self.reactor.stop)

    def _stop_if_alone(self) -> None:
        if self.stopping and not descendants(os.getpid()):
            self.reactor.stop()

    def _end_everything(self) -> None:
        """Leave no process behind, however we came here."""
        for pid in descendants(os.getpid()):
            send_signal(pid, signal.SIGKILL)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        if self.server is not None:
            self.server.close()

    def _reload(self) -> None:
        if self.controller_pid:
            send_signal(self.controller_pid, signal.SIGHUP)

    # -- children --------------------------------------------------------------------------------------------------

    def _fork(self, role: Any, keep: list[int]) -> int:
        return fork(role, keep=keep, abandon=self.reactor.abandon)

    def _start_controller(self) -> None:
        self.controller_started = time.monotonic()
        self.controller_pid = self._fork(lambda: self.program.run_controller(self.program, self.instance), [])

    def _reap(self) -> None:
        for pid, status in reap():
            self._child_ended(pid, status)
        self._stop_if_alone()

    def _child_ended(self, pid: int, status: int) -> None:
        if pid == self.controller_pid:
            self._controller_ended(status)
            return
        for listener in self.listeners.values():
            if listener.pid == pid:
                self._listener_ended(listener, status)
                return
        for stream in list(self.streams.values()):
            if stream.pid == pid:
                self._stream_ended(stream, status)
                return
        self._orphan_ended(pid)

    def _orphan_ended(self, pid: int) -> None:
        """Clear what a worker left whose guardian was gone before it."""
        clear_doorbell(self.instance, pid)
        for path in SHARED_MEMORY.glob(f"mist.{self.instance.name}.#*"):
            guardian = path.name.rpartition("#")[2].partition("-")[0]
            if is_alive(int(guardian)):
                continue
            table = open_checkpoints(path.name)
            table.end_process(pid)
            if not any(is_alive(row[2]) for row in table.snapshot() if row[15]):
                unlink_segment(path.name)

    def _controller_ended(self, status: int) -> None:
        self.controller_pid = 0
        if self.stopping:
            return
        if not self.applied:  # it never got as far as to publish a configuration: there is nothing to serve
            self.status = status if status > 0 else 1
            self.stop()
            return
        delay = self.controller_backoff.next_delay(time.monotonic() - self.controller_started)
        log.warning("the controller %s; it is started again in %g s", describe_exit(status), delay)
        self.reactor.call_later(delay, self._start_controller)

    # -- listeners -------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Follow the published configuration: start, stop and restart listeners, tell everybody."""
        snapshot = read_snapshot(self.instance)
        first = not self.applied
        self.applied = True
        self._apply_memory(snapshot)
        wanted = {canonical(entry): entry for entry in snapshot["config"]["protocols"] if isinstance(entry, Mapping)}
        for key in [key for key in self.listeners if key not in wanted]:
            self._stop_listener(self.listeners.pop(key))
        for key, entry in wanted.items():
            if key not in self.listeners and self.program.listener(str(entry.get("connector"))) is not None:
                listener = self.listeners[key] = Listener(entry)
                if not self._start_listener(listener) and first:
                    self.status = 1
                    self.stop()
                    return
        for listener in self.listeners.values():
            if listener.channel is not None:
                listener.channel.send({"do": "config"})
        for name, stream in self.streams.items():
            stream.channel.send({"do": "settings", "settings": stream_settings(snapshot, name) or {}})
        self._start_always_on(snapshot)
        if first:
            self._write_status()
            notify(f"READY=1\nSTATUS=Serving {len(self.listeners)} protocols")

    def _apply_memory(self, snapshot: Mapping[str, Any]) -> None:
        from mist.core.track_writer import set_account_limit
        from mist.stream.publisher import open_account

        account = open_account(self.instance.name)
        if account is not None:
            set_account_limit(account, int(memory_bound(snapshot, "total_bytes")))

    def _start_always_on(self, snapshot: Mapping[str, Any]) -> None:
        for name, settings in snapshot["streams"].items():
            if isinstance(settings, Mapping) and settings.get("always_on") and name not in self.streams:
                source = str(settings.get("source", ""))
                if not source.startswith("push://"):
                    self._start_stream(name, settings)

    def _start_listener(self, listener: Listener) -> bool:
        """Bind and fork; False when the port cannot be had (it is tried again later)."""
        if listener.removed or self.stopping:
            return False
        entry = listener.entry
        if listener.socket is None:
            try:
                listener.socket = bind(entry, self.program.listener(str(entry["connector"])).capability.default_port)  # type: ignore[union-attr]
            except OSError as error:
                port = entry.get("port") or self.program.listener(str(entry["connector"])).capability.default_port  # type: ignore[union-attr]
                listener.state = f"Cannot listen on port {port}: {error.strerror}"
                log.error(
                    "%s cannot listen on port %s: %s; stop what uses it or change config.protocols",
                    entry["connector"],
                    port,
                    error.strerror,
                )
                self._again(listener)
                return False
        ours, theirs = pair()
        bound = listener.socket
        listener.started = time.monotonic()
        listener.pid = self._fork(
            lambda: ListenerGuardian(self.instance, self.program, theirs, bound, entry, run_listener_worker).run(),
            [theirs.fileno(), bound.fileno()],
        )
        theirs.close()
        listener.channel = Channel(ours)
        listener.channel.attach(self.reactor, lambda message, fds: close_all(fds), lambda: None)
        listener.state = 1
        return True

    def _again(self, listener: Listener) -> None:
        delay = listener.backoff.next_delay(time.monotonic() - listener.started if listener.started else 0)
        self.reactor.call_later(max(delay, 1.0), self._start_listener, listener)

    def _stop_listener(self, listener: Listener) -> None:
        listener.removed = True
        if listener.socket is not None:
            listener.socket.close()
        if listener.pid:
            send_signal(listener.pid, signal.SIGTERM)
        if listener.channel is not None:
            listener.channel.close()

    def _listener_ended(self, listener: Listener, status: int) -> None:
        listener.pid = 0
        if listener.channel is not None:
            listener.channel.close()
        if self.stopping or listener.removed:
            return
        delay = listener.backoff.next_delay(time.monotonic() - listener.started)
        log.warning("the guardian of %s %s; it is started again", listener.entry["connector"], describe_exit(status))
        self.reactor.call_later(delay, self._start_listener, listener)

    # -- streams ---------------------------------------------------------------------------------------------------

    def _start_stream(self, name: str, settings: Mapping[str, Any]) -> RunningStream:
        """Fork the guardian of a stream. Raises MistError."""
        source = str(settings.get("source", ""))
        input_name = ""
        if not source.startswith("push://"):
            found = self.program.input_for(source)
            if found is None:
                raise MistError(f"No input can read the source {source or '(none)'} of the stream {name}")
            input_name = found
        limits = stream_limits(read_snapshot(self.instance), settings)
        ours, theirs = pair()
        pid = self._fork(
            lambda: StreamGuardian(
                self.instance, self.program, theirs, name, source, input_name, settings, limits, run_input
            ).run(),
            [theirs.fileno()],
        )
        theirs.close()
        channel = Channel(ours)
        stream = self.streams[name] = RunningStream(name, pid, channel)
        channel.attach(self.reactor, lambda message, fds: self._from_stream(stream, message, fds), lambda: None)
        return stream

    def _from_stream(self, stream: RunningStream, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("state") == "ready":
            waiters, stream.waiters = stream.waiters, []
            for client, number in waiters:
                client.send({"number": number, "ok": 1})
        elif "done" in message:
            asked = stream.publishers.pop(int(message["done"]), None)
            if asked is not None:
                outcome: Message = {key: message[key] for key in ("error", "reason") if key in message}
                asked[0].send({"number": asked[1], **outcome})

    def _stream_ended(self, stream: RunningStream, status: int) -> None:
        if self.streams.get(stream.name) is stream:
            del self.streams[stream.name]
        stream.channel.close()
        for client, number in [*stream.waiters, *stream.publishers.values()]:
            client.send({"number": number, "error": "The stream ended before it played", "reason": "NotReady"})
        for path in SHARED_MEMORY.glob(f"mist.{self.instance.name}.#{stream.pid}-*"):
            unlink_segment(path.name)
        if status:
            log.warning("the guardian of %s %s", stream.name, describe_exit(status))
            remove_stream(self.instance.name, stream.name, self.ringer)
            if not self.stopping:
                self._start_always_on(read_snapshot(self.instance))

    # -- requests --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self.server is not None
        while True:
            try:
                sock, _ = self.server.accept()
            except BlockingIOError:
                return
            _pid, uid, _gid = peer_credentials(sock)
            if uid not in (0, os.getuid()):
                sock.close()
                continue
            client = Channel(sock)
            self.clients.add(client)
            client.attach(
                self.reactor,
                lambda message, fds, client=client: self._request(client, message, fds),  # type: ignore[misc]
                lambda client=client: self.clients.discard(client),  # type: ignore[misc]
            )

    def _request(self, client: Channel, message: Message, fds: list[int]) -> None:
        handler = _REQUESTS.get(str(message.get("do")))
        number = int(message.get("number", 0))
        try:
            if handler is None:
                raise MistError(f"unknown request {message.get('do')}")
            reply = handler(self, client, message, fds)
        except MistError as error:
            close_all(fds)
            client.send({"number": number, "error": str(error), "reason": type(error).__name__})
            return
        if reply is not None:
            close_all(fds)
            client.send({"number": number, **reply})

    def _do_start(self, client: Channel, message: Message, fds: list[int]) -> Message | None:
        from mist.errors import NotFound, NotReady

        name = str(message["stream"])
        settings = stream_settings(read_snapshot(self.instance), name)
        stream = self.streams.get(name)
        if stream is None:
            if settings is None:
                raise NotFound("Stream is offline: no such stream is configured")
            if str(settings.get("source", "")).startswith("push://"):
                raise NotReady("Stream is offline")
            stream = self._start_stream(name, settings)
        elif settings is not None and str(settings.get("source", "")).startswith("push://"):
            raise NotReady("Stream is waiting for data")
        stream.waiters.append((client, int(message.get("number", 0))))
        close_all(fds)
        return None

    def _do_publish(self, client: Channel, message: Message, fds: list[int]) -> Message | None:
        from mist.errors import NotFound

        request = message["request"]
        name = str(request["stream"])
        stream = self.streams.get(name)
        if stream is None:
            settings = stream_settings(read_snapshot(self.instance), name)
            if settings is None:
                raise NotFound(f"no stream {name} is configured")
            stream = self._start_stream(name, settings)
        stream.next_number += 1
        stream.publishers[stream.next_number] = (client, int(message.get("number", 0)))
        stream.channel.send({"do": "publish", "number": stream.next_number, "request": request}, fds, close=fds)
        return None

    def _do_apply(self, client: Channel, message: Message, fds: list[int]) -> Message:
        self.apply()
        return {"ok": 1}

    def _do_stop_stream(self, client: Channel, message: Message, fds: list[int]) -> Message:
        stream = self.streams.get(str(message["stream"]))
        if stream is not None:
            send_signal(stream.pid, signal.SIGTERM)
        return {"ok": 1, "running": stream is not None}

    def _do_nuke(self, client: Channel, message: Message, fds: list[int]) -> Message:
        """Kill a stream's processes and remove its memory, whatever state they are in."""
        name = str(message["stream"])
        stream = self.streams.pop(name, None)
        if stream is not None:
            for pid in [*descendants(stream.pid), stream.pid]:
                send_signal(pid, signal.SIGKILL)
        remove_stream(self.instance.name, name, self.ringer)
        return {"ok": 1}

    def _do_status(self, client: Channel, message: Message, fds: list[int]) -> Message:
        return self._status()

    def _do_shutdown(self, client: Channel, message: Message, fds: list[int]) -> Message:
        log.info("shutting down: %s", message.get("reason", "asked to"))
        self.reactor.call_later(0.05, self.stop)
        return {"ok": 1}

    def _status(self) -> Message:
        return {
            "pid": os.getpid(),
            "version": self.program.version,
            "started": self.started,
            "controller": self.controller_pid,
            "listeners": [
                {"entry": dict(one.entry), "state": one.state, "pid": one.pid} for one in self.listeners.values()
            ],
            "streams": {name: stream.pid for name, stream in self.streams.items()},
        }

    def _write_status(self) -> None:
        write_atomically(self.instance.status_file, json.dumps(self._status()).encode())


_REQUESTS: Final = {
    "start": Spawner._do_start,
    "publish": Spawner._do_publish,
    "apply": Spawner._do_apply,
    "stop_stream": Spawner._do_stop_stream,
    "nuke": Spawner._do_nuke,
    "status": Spawner._do_status,
    "shutdown": Spawner._do_shutdown,
}


def bind(entry: Mapping[str, Any], default_port: int) -> socket.socket:
    """Return a listening socket for a protocol entry. Raises OSError."""
    host = str(entry.get("interface") or "0.0.0.0")
    port = int(entry.get("port") or default_port)
    if host in ("0.0.0.0", "::") and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (97, 99):  # no IPv6 on this machine
                raise
        host = "0.0.0.0"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def memory_bound(snapshot: Mapping[str, Any], name: str, default: int = 0) -> int:
    """Return one of config.memory's bounds, bytes."""
    memory = snapshot["config"].get("memory") or {}
    return int(memory.get(name) or default)


def stream_limits(snapshot: Mapping[str, Any], settings: Mapping[str, Any]) -> Limits:
    """Return a stream's bounds from the configuration."""
    return Limits(
        window_us=max(int(settings.get("DVR") or DEFAULT_WINDOW_MS), 1000) * 1000,
        segment_us=int(settings.get("segmentsize") or DEFAULT_SEGMENT_MS) * 1000,
        stream_bytes=memory_bound(snapshot, "per_stream_bytes"),
        packet_bytes=memory_bound(snapshot, "packet_bytes", DEFAULT_PACKET_BYTES),
    )
