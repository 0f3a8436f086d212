"""Guardians: small processes that keep what must outlive a worker, and bring the worker back when it dies."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from setproctitle import setproctitle

from mist.core.checkpoint import create_checkpoints, open_checkpoints
from mist.core.shm import unlink_segment
from mist.errors import NotFound
from mist.runtime.backoff import Backoff
from mist.runtime.channel import Channel, Message, close_all, pair
from mist.runtime.instance import Instance
from mist.runtime.log import become
from mist.runtime.process import describe_exit, fork, reap, send_signal
from mist.runtime.program import Program
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

ACCEPTS_PER_WAKE: Final = 64
WORKERS_PER_CORE: Final = 4
DESCRIPTOR_RESERVE: Final = 64
USER_TIMEOUT_MS: Final = 300_000  # of silence in the middle of a transfer, then the kernel gives the peer up
KEEPALIVE_S: Final = 60
TCP_USER_TIMEOUT: Final = 18


class Guardian:
    """What listeners' and streams' guardians share: an event loop, a channel to the spawner, children."""

    def __init__(self, instance: Instance, program: Program, channel_socket: socket.socket, title: str) -> None:
        self.instance = instance
        self.program = program
        self.reactor = Reactor()
        self.channel = Channel(channel_socket)
        self.stopping = False
        become(title)
        setproctitle(f"mist: {title}")
        for number in (signal.SIGTERM, signal.SIGINT):
            self.reactor.on_signal(number, self.stop)
        self.reactor.on_signal(signal.SIGCHLD, self._reap)
        self.channel.attach(self.reactor, self.on_message, self.stop)

    def run(self) -> int:
        """Work until stopped; returns the exit status."""
        self.reactor.run()
        return 0

    def _reap(self) -> None:
        for pid, status in reap():
            self.on_child_end(pid, status)

    def on_message(self, message: Message, fds: list[int]) -> None:
        """Take a message of the spawner."""
        raise NotImplementedError

    def on_child_end(self, pid: int, status: int) -> None:
        """Deal with a worker that ended."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the workers and then this process."""
        raise NotImplementedError


class Worker:
    """A listener's worker as its guardian sees it."""

    def __init__(self, pid: int, channel: Channel, table: str) -> None:
        self.pid = pid
        self.channel = channel
        self.table = table
        self.connections = 0
        self.started = time.monotonic()


class ListenerGuardian(Guardian):
    """Owns a listening socket and spreads its connections over workers."""

    def __init__(
        self,
        instance: Instance,
        program: Program,
        channel_socket: socket.socket,
        listening: socket.socket,
        entry: Mapping[str, Any],
        run_worker: Callable[..., int],
    ) -> None:
        super().__init__(instance, program, channel_socket, f"guardian {entry['connector']}")
        self.entry = entry
        self.listening = listening
        self.listening.setblocking(False)
        self.run_worker = run_worker
        wanted = entry.get("processes")
        self.processes = WORKERS_PER_CORE * (os.cpu_count() or 1) if wanted is None else int(wanted)
        self.workers: dict[int, Worker] = {}
        self.spare: Worker | None = None
        self.number = 0
        self.backoff = Backoff()
        self.refused_at = 0.0
        self.reactor.add_reader(listening.fileno(), self._accept)
        self._make_spare()

    # -- workers ---------------------------------------------------------------------------------------------------

    def _make_spare(self) -> None:
        """Have a worker ready, so that a viewer does not wait for a fork."""
        if self.spare is None and not self.stopping and (not self.processes or len(self.workers) < self.processes):
            self.spare = self._fork_worker()

    def _fork_worker(self) -> Worker:
        ours, theirs = pair()
        self.number += 1
        table = f"mist.{self.instance.name}.#{os.getpid()}-{self.number}"
        create_checkpoints(table)
        pid = fork(
            lambda: self.run_worker(self.instance, self.program, self.entry, theirs, table),
            keep=[theirs.fileno()],
            abandon=self.reactor.abandon,
        )
        theirs.close()
        worker = Worker(pid, Channel(ours), table)
        worker.channel.attach(self.reactor, lambda message, fds: self._from_worker(worker, message, fds), lambda: None)
        return worker

    def _from_worker(self, worker: Worker, message: Message, fds: list[int]) -> None:
        close_all(fds)
        worker.connections -= int(message.get("closed", 0))
        if message.get("idle") and worker.connections <= 0 and worker.pid in self.workers:
            worker.channel.send({"do": "end"})

    def _choose(self) -> Worker:
        """Return a fresh worker while there may be more, else the one with the fewest connections."""
        if self.spare is not None:
            worker, self.spare = self.spare, None
            self.workers[worker.pid] = worker
            self.reactor.call_later(0, self._make_spare)
            return worker
        if not self.processes or len(self.workers) < self.processes:
            worker = self._fork_worker()
            self.workers[worker.pid] = worker
            return worker
        return min(self.workers.values(), key=lambda one: one.connections)

    def on_child_end(self, pid: int, status: int) -> None:
        worker = self.workers.pop(pid, None)
        if worker is None and self.spare is not None and self.spare.pid == pid:
            worker, self.spare = self.spare, None
        if worker is None:
            return
        worker.channel.close()
        unlink_segment(worker.table)
        clear_doorbell(self.instance, pid)
        if status and not self.stopping:
            log.warning(
                "worker %d of %s %s; %d connections ended with it",
                pid,
                self.entry["connector"],
                describe_exit(status),
                max(worker.connections, 0),
            )
            delay = self.backoff.next_delay(time.monotonic() - worker.started)
            self.reactor.call_later(delay, self._make_spare)
        if self.stopping and not self.workers and self.spare is None:
            self.reactor.stop()

    # -- connections -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                sock, address = self.listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            with sock:
                prepare(sock)
                worker = self._choose()
                worker.connections += 1
                worker.channel.send(
                    {"do": "serve", "peer": plain_address(address[0]), "port": address[1]},
                    [sock.fileno()],
                    close=[sock.detach()],
                )

    def _cannot_accept(self, error: OSError) -> None:
        """Pause accepting for a moment when descriptors or memory ran out; say so once a burst."""
        now = time.monotonic()
        if now - self.refused_at > 10:
            log.error("cannot accept connections on %s: %s", self.entry["connector"], error.strerror)
        self.refused_at = now
        self.reactor.remove_reader(self.listening.fileno())
        self.reactor.call_later(0.1, lambda: self.reactor.add_reader(self.listening.fileno(), self._accept))

    # -- spawner ---------------------------------------------------------------------------------------------------

    def on_message(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("do") == "config":
            for worker in self._all():
                worker.channel.send({"do": "config"})

    def _all(self) -> list[Worker]:
        return [*self.workers.values(), *([self.spare] if self.spare is not None else [])]

    def stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        self.reactor.remove_reader(self.listening.fileno())
        self.listening.close()
        for worker in self._all():
            send_signal(worker.pid, signal.SIGTERM)
        if not self._all():
            self.reactor.stop()


def prepare(sock: socket.socket) -> None:
    """Set the options of an accepted connection."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def plain_address(address: str) -> str:
    """Return an address as text, IPv4 without the IPv6 mapping."""
    return address.removeprefix("::ffff:") if "." in address else address


def clear_doorbell(instance: Instance, pid: int) -> None:
    """Remove what a killed process left in the directory of doorbells."""
    (instance.bells / str(pid)).unlink(missing_ok=True)


def end_connections(table: str, pid: int) -> None:
    """Mark the connections of a dead process as ended."""
    try:
        open_checkpoints(table).end_process(pid)
    except NotFound:
        return
