"""The guardian: one small class that keeps worker processes alive and owns what must outlive them.

What a guardian guards is its `Duty`: a listener with many workers, or a stream's input with one. A guardian has no
threads and no asyncio, so it can fork at any moment.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import setproctitle

from mist.runtime import log as runtime_log
from mist.runtime.channel import Channel, Message, close_all, pair
from mist.runtime.leftovers import end_records
from mist.runtime.process import describe_exit, fork, reap, send_signal
from mist.runtime.program import Server
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

KILL_AFTER_SECONDS = 2.0

WorkerMain = Callable[[Channel], int]


@dataclass(eq=False)
class WorkerHandle:
    """A guardian's view of one of its workers."""

    pid: int
    channel: Channel
    started: float
    stopping: bool = False

    def ran_seconds(self) -> float:
        return time.monotonic() - self.started


class Duty(Protocol):
    """What a guardian guards."""

    def start(self, guardian: Guardian) -> None: ...
    def command(self, message: Message, fds: list[int]) -> None: ...
    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None: ...
    def worker_ended(self, worker: WorkerHandle, status: int) -> None: ...

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """Give a dead worker's connections to another one; True if so, and `Guardian.forget_worker` is called later."""
        ...

    def stopping(self) -> None: ...
    def finish(self) -> None: ...


class Guardian:
    """Forks workers, passes messages between them and the spawner, and ends them. `run` returns the exit status."""

    def __init__(self, server: Server, upstream: Channel, duty: Duty, name: str) -> None:
        self.server = server
        self.instance = server.instance
        self.upstream = upstream
        self.reactor = Reactor()
        self.workers: dict[int, WorkerHandle] = {}
        self._duty = duty
        self._name = name
        self._ending = False

    def run(self) -> int:
        """Guard until told to end or nothing is left to guard."""
        setproctitle.setproctitle(f"mist: guardian {self._name}")
        self.reactor.on_signal(signal.SIGCHLD, self._children_ended)
        self.reactor.on_signal(signal.SIGTERM, self.end)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        self.upstream.attach(self.reactor, self._duty.command, self._spawner_gone)
        self._duty.start(self)
        self.reactor.run()
        self._duty.finish()
        return 0

    def _spawner_gone(self) -> None:
        log.warning("The main process is gone; ending")
        self.end()

    # -- workers ---------------------------------------------------------------------------------------------------

    def start_worker(self, main: WorkerMain, fds: Iterable[int] = ()) -> WorkerHandle:
        """Fork a worker. main: runs in the child with its channel to this guardian. fds: other descriptors it needs."""
        ours, theirs = pair()
        keep = {theirs.fileno(), *fds}
        pid = fork(lambda: main(Channel(theirs)), keep=keep, abandon=self.reactor.abandon)
        theirs.close()
        worker = WorkerHandle(pid, Channel(ours), time.monotonic())
        self.workers[pid] = worker
        worker.channel.attach(
            self.reactor,
            lambda message, fds: self._duty.worker_said(worker, message, fds),
            lambda: None,  # the process has ended or is about to: SIGCHLD tells how
        )
        return worker

    def stop_worker(self, worker: WorkerHandle, reason: str) -> None:
        """Ask a worker to end its connections, and kill it if it has not ended soon."""
        if worker.stopping:
            return
        worker.stopping = True
        worker.channel.send({"do": "stop", "reason": reason})
        self.reactor.call_later(KILL_AFTER_SECONDS, self._kill_if_alive, worker)

    def _kill_if_alive(self, worker: WorkerHandle) -> None:
        if self.workers.get(worker.pid) is worker:
            send_signal(worker.pid, signal.SIGKILL)

    def _children_ended(self) -> None:
        for pid, status in reap():
            worker = self.workers.pop(pid, None)
            if worker is None:
                continue
            worker.channel.drain()
            worker.channel.close()
            if status != 0 and not worker.stopping:
                log.error("Worker %d %s after %.0f s", pid, describe_exit(status), worker.ran_seconds())
            if not self._duty.bequeath(worker, status):
                self.forget_worker(pid)
            self._duty.worker_ended(worker, status)
        if self._ending and not self.workers:
            self.reactor.stop()

    def forget_worker(self, pid: int) -> None:
        """Let the statistics know that a worker's connections have ended, but for those that another one has."""
        end_records(self.instance, pid)
        self.upstream.send({"event": "worker_ended", "pid": pid})

    def tell_workers(self, message: Message) -> None:
        """Send a message to every worker."""
        for worker in self.workers.values():
            worker.channel.send(message)

    # -- end -------------------------------------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        return self._ending

    def end(self, reason: str = "CLEAN_SIGNAL") -> None:
        """End all workers, then this process."""
        if self._ending:
            return
        self._ending = True
        self._duty.stopping()
        for worker in tuple(self.workers.values()):
            self.stop_worker(worker, reason)
        if not self.workers:
            self.reactor.stop()


def guardian_main(server: Server, upstream: Channel, make_duty: Callable[[], Duty], name: str, stream: str = "") -> int:
    """Run a guardian in a process that was forked for it; returns its exit status."""
    runtime_log.become(f"guardian {name}", stream)
    return Guardian(server, upstream, make_duty(), name).run()


def reply(channel: Channel, request: Message, **result: Any) -> None:
    """Answer a request that came with an "id"; one without gets no answer."""
    if "id" in request:
        channel.send({"reply": request["id"], **result})


def refuse(channel: Channel, request: Message, error: Exception, fds: Iterable[int] = ()) -> None:
    """Answer a request with an error and let go of its descriptors."""
    close_all(tuple(fds))
    reply(channel, request, error=type(error).__name__, text=str(error))
