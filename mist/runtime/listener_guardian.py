"""The duty of a listener's guardian: accept connections and spread them over workers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mist.runtime.backoff import Backoff
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle, WorkerMain
from mist.runtime.leftovers import release_subscriptions
from mist.runtime.process import own

log = logging.getLogger(__name__)

MIN_WORKERS = 2  # so that one which crashes or hangs does not have all viewers
ACCEPTS_PER_WAKE = 64
SPARE_DELAY_SECONDS = 0.05
IDLE_WORKER_SECONDS = 60.0
ACCEPT_PAUSE_SECONDS = 0.1
# Descriptors kept free for channels, logs and forking; and the number of connections of which none of that is left.
RESERVED_DESCRIPTORS = 64
REFUSAL_LINE_SECONDS = 5.0


def plain_address(address: str) -> str:
    """Return the text of an address, an IPv4 one that arrived on an IPv6 socket in dotted form."""
    if address.startswith("::ffff:"):
        return address.removeprefix("::ffff:")
    return address.partition("%")[0]


def worker_limit(options: Mapping[str, Any]) -> int:
    """Return how many workers a listener may have; 0 is no bound."""
    wanted = options.get("processes")
    return max(MIN_WORKERS, len(os.sched_getaffinity(0))) if wanted is None else int(wanted)


@dataclass(eq=False)
class Served:
    """A worker and the sockets that it was given: {connection number: our duplicate, or -1}.

    former: it was made by a guardian with other options or of other code, so it gets no new connections.
    """

    handle: WorkerHandle
    connections: dict[int, int] = field(default_factory=dict)
    idle_since: float = field(default_factory=time.monotonic)
    used: bool = False
    former: bool = False

    def let_go(self) -> None:
        close_all(tuple(fd for fd in self.connections.values() if fd >= 0))
        self.connections.clear()


class ListenerDuty:
    """Owns a port's listening sockets and a duplicate of every accepted socket.

    A connection goes to an idle worker, to a fresh one while there are fewer than the limit, then to the one with the
    fewest connections. One idle worker is kept so that a newcomer does not wait for a fork.
    """

    def __init__(
        self, connector: str, options: Mapping[str, Any], sockets: list[socket.socket], worker_main: WorkerMain
    ) -> None:
        self.connector = connector
        self._options = options
        self._sockets = sockets
        self._worker_main = worker_main
        self._limit = worker_limit(options)
        self._served: dict[int, Served] = {}
        self._last_number = 0
        self._backoff = Backoff()
        self._spare_planned = False
        self._retired = False
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS
        self._open = 0
        self._refused = 0
        self._refusal_told = 0.0
        self._idle_check_planned = False
        self._guardian: Guardian

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        for sock in self._sockets:
            sock.setblocking(False)
        self._make_spare()
        self._listen(True)

    def _listen(self, wanted: bool) -> None:
        for sock in self._sockets:
            if wanted:
                guard = sock
                self._guardian.reactor.add_reader(sock.fileno(), lambda guard=guard: self._accept(guard))  # type: ignore[misc]
            else:
                self._guardian.reactor.remove_reader(sock.fileno())

    # -- accepting -------------------------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._refuse_one(listening)
                    continue
                log.error("Accepting connections failed: %s", error.strerror)
                self._pause()
                return
            if self._open >= self._most:
                sock.close()
                self._count_refusal()
                continue
            self._assign(sock.detach(), plain_address(address[0]))

    def _pause(self) -> None:
        self._listen(False)
        self._guardian.reactor.call_later(ACCEPT_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not self._guardian.ending and not self._retired:
            self._listen(True)

    def _refuse_one(self, listening: socket.socket) -> None:
        """Use the reserved descriptor to take and close a connection that there is no descriptor for."""
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            listening.accept()[0].close()
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._count_refusal()

    def _count_refusal(self) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._refusal_told < REFUSAL_LINE_SECONDS:
            return
        log.warning(
            "Refused %d connections: %d are open and the limit of descriptors is %d (raise it with ulimit -n or LimitNOFILE)",
            self._refused,
            self._open,
            self._most + RESERVED_DESCRIPTORS,
        )
        self._refused = 0
        self._refusal_told = now

    def _assign(self, fd: int, host: str) -> None:
        served = self._choose()
        self._last_number += 1
        number = self._last_number
        served.connections[number] = fd
        served.used = True
        self._open += 1
        served.handle.channel.send({"do": "serve", "connection": number, "host": host}, (fd,))
        self._plan_spare()

    def _choose(self) -> Served:
        usable = self._usable()
        idle = next((served for served in usable if not served.connections), None)
        if idle is not None:
            return idle
        if not self._limit or len(usable) < self._limit:
            return self._fork()
        return min(usable, key=lambda served: len(served.connections))

    # -- workers ---------------------------------------------------------------------------------------------------

    def _usable(self) -> list[Served]:
        """Return the workers that may get connections."""
        return [served for served in self._served.values() if not served.handle.stopping and not served.former]

    def _fork(self) -> Served:
        served = Served(self._guardian.start_worker(self._worker_main))
        self._served[served.handle.pid] = served
        return served

    def _plan_spare(self, delay: float = SPARE_DELAY_SECONDS) -> None:
        if not self._spare_planned and not self._retired:
            self._spare_planned = True
            self._guardian.reactor.call_later(delay, self._make_spare)

    def _make_spare(self) -> None:
        self._spare_planned = False
        if self._retired or self._guardian.ending:
            return
        usable = self._usable()
        if self._limit and len(usable) >= self._limit:
            return
        if all(served.connections for served in usable):
            self._fork()

    def _plan_idle_check(self) -> None:
        if not self._idle_check_planned:
            self._idle_check_planned = True
            self._guardian.reactor.call_later(IDLE_WORKER_SECONDS, self._end_idle)

    def _end_idle(self) -> None:
        """End workers that have been idle for long, but for one, so that their memory returns."""
        self._idle_check_planned = False
        idle = [served for served in self._usable() if not served.connections]
        idle.sort(key=lambda served: served.idle_since)
        now = time.monotonic()
        for served in idle[:-1]:
            if now - served.idle_since >= IDLE_WORKER_SECONDS:
                self._guardian.stop_worker(served.handle, "CLEAN_INACTIVE")
        if len(idle) > 1:
            self._plan_idle_check()

    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None:
        close_all(fds)
        served = self._served.get(worker.pid)
        if served is None:
            return
        for number in message.get("closed", ()):
            fd = served.connections.pop(number, None)
            if fd is not None:
                self._open -= 1
                if fd >= 0:
                    os.close(fd)
        if not served.connections:
            served.idle_since = time.monotonic()
            if served.former:
                self._guardian.stop_worker(worker, "CLEAN_CONTROLLER_REQ")
            else:
                self._plan_idle_check()

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over a worker of a former guardian; it serves its connections to their end and gets no others."""
        served = self._served.get(worker.pid)
        if served is None:
            served = self._served[worker.pid] = Served(worker, used=True, former=True)
        for number in note.get("connections", ()):
            if number not in served.connections:
                served.connections[number] = -1
                self._open += 1

    def replace_workers(self) -> None:
        """Workers of other code serve their connections to the end."""

    def worker_ended(self, worker: WorkerHandle, status: int) -> None:
        served = self._served.pop(worker.pid)
        if status and not self._guardian.ending:
            release_subscriptions(self._guardian.instance, worker.pid)
        self._open -= len(served.connections)
        served.let_go()
        if not self._guardian.ending:
            self._plan_spare(self._backoff.next_delay(worker.ran_seconds()) if status else 0.0)

    # -- orders ----------------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        what = message.get("do")
        if what == "config":
            for served in self._served.values():
                if served.used:  # the others have not read the configuration yet, and need not wake up for it
                    served.handle.channel.send({"do": "config"})
        elif what == "stop":
            self._guardian.end(message.get("reason", "CLEAN_CONTROLLER_REQ"))

    def show(self) -> tuple[Message, Sequence[int]]:
        return {"entry": dict(self._options)}, [sock.fileno() for sock in self._sockets]

    def may_retire(self) -> bool:
        return True

    def retire(self) -> None:
        """Accept no more: the next guardian has the same sockets."""
        self._retired = True
        self._close_sockets()

    def _close_sockets(self) -> None:
        self._listen(False)
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def stopping(self) -> None:
        self._close_sockets()

    def finish(self) -> None:
        for served in self._served.values():
            served.let_go()


def make_listener_duty(
    connector: str,
    options: Mapping[str, Any],
    descriptors: Iterable[int],
    worker_main: WorkerMain,
) -> Callable[[], ListenerDuty]:
    """Return what makes the duty inside the forked guardian. descriptors: inherited listening sockets."""
    fds = tuple(descriptors)

    def make() -> ListenerDuty:
        return ListenerDuty(connector, options, [own(socket.socket(fileno=fd)) for fd in fds], worker_main)

    return make
