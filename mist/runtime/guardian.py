"""The guardian: one small class that keeps worker processes alive and owns what must outlive them.

What a guardian guards is its `Duty`: a listener with many workers, or a stream's input with one. A guardian has no
threads and no asyncio, so it can fork at any moment.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import setproctitle

from mist.runtime import log as runtime_log
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child, Family
from mist.runtime.leftovers import end_records
from mist.runtime.program import Server
from mist.runtime.reactor import Reactor
from mist.runtime.rejoin import REJOIN_SECONDS, Rejoining

log = logging.getLogger(__name__)

KILL_AFTER_SECONDS = 2.0
RETIRE_RETRY_SECONDS = 0.02
REPLACE_DELAY_SECONDS = 0.1
# The exit status of a guardian that leaves its workers and all it guards to the next guardian of its name.
RETIRED = 3

WorkerMain = Callable[[Channel], int]
WorkerHandle = Child  # a guardian's view of one of its workers


class Duty(Protocol):
    """What a guardian guards."""

    def start(self, guardian: Guardian) -> None: ...
    def command(self, message: Message, fds: list[int]) -> None: ...
    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None: ...
    def worker_ended(self, worker: WorkerHandle, status: int) -> None: ...

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """Give a dead worker's connections to another one; True if so, and `Guardian.forget_worker` is called later."""
        ...

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over a worker of a former guardian. note: what it has; more may follow as messages."""

    def replace_workers(self) -> None:
        """Let workers of other code than this process's give their work to new ones."""

    def is_settled(self) -> bool:
        """Tell whether nothing of a former worker is on its way to another one."""

    def show(self) -> tuple[Message, Sequence[int]]:
        """Return what a new main process must know of this duty: a note, and descriptors that stay the duty's."""

    def may_retire(self) -> bool:
        """Tell whether nothing is under way that the next guardian could not learn of."""

    def retire(self) -> None:
        """Begin nothing new: the next guardian does from now on."""

    def stopping(self) -> None: ...
    def finish(self) -> None: ...


class Guardian:
    """Forks workers, passes messages between them and the spawner, and ends them. `run` returns the exit status.

    key: the name under which workers find the next guardian of the same duty. patient: those that come are of a main process
    that is gone, and stay until the main process says that it is their turn to be replaced.
    """

    def __init__(
        self, server: Server, upstream: Channel, duty: Duty, name: str, key: str, *, patient: bool = False
    ) -> None:
        self.server = server
        self.instance = server.instance
        self.upstream = upstream
        self.key = key
        self.reactor = Reactor()
        self.family = Family(self.reactor, key, running_build())
        self.workers = self.family.children
        self._duty = duty
        self._name = name
        self._ending = False
        self._retiring = False
        self._replacing = False
        self._patient = patient
        self._told_settled = False
        self._orders: dict[str, Callable[[Message, list[int]], None]] = {
            "adopt": self._adopt,
            "retire": self._retire,
            "replace": self._replace_now,
            "ping": self._answer,
        }

    def run(self) -> int:
        """Guard until told to end or nothing is left to guard."""
        setproctitle.setproctitle(f"mist: guardian {self._name}")
        self.reactor.on_signal(signal.SIGCHLD, self.family.reap)
        self.reactor.on_signal(signal.SIGTERM, self.end)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        self.upstream.attach(self.reactor, self._ordered, self._spawner_gone)
        self._duty.start(self)
        self.settle()
        self.reactor.run()
        if self._retiring:
            return RETIRED
        self._duty.finish()
        self.upstream.send({"event": "ends", "status": 0})
        return 0

    def _ordered(self, message: Message, fds: list[int]) -> None:
        self._orders.get(str(message.get("do")), self._duty.command)(message, fds)

    def _answer(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        self.upstream.send({"pong": message["ping"]})

    # -- a spawner that is gone ------------------------------------------------------------------------------------

    def _spawner_gone(self) -> None:
        if not self._ending:
            log.warning("The main process is gone; going on until the next one comes")
            Rejoining(self.instance, self.reactor, "", self.key, self._duty.show, self._rejoined, self._abandoned)

    def _rejoined(self, channel: Channel) -> None:
        self.upstream = channel
        channel.attach(self.reactor, self._ordered, self._spawner_gone)

    def _abandoned(self, why: str) -> None:
        log.warning("Ending: %s", why)
        self.end()

    # -- a guardian that takes over from this one ------------------------------------------------------------------

    def _retire(self, message: Message, fds: list[int]) -> None:
        """Leave workers and duty to the next guardian as soon as nothing is under way."""
        close_all(fds)
        if not self._ending and not self._retiring:
            self._retiring = True
            self._duty.retire()
            self._leave_when_idle(self.reactor.time() + REJOIN_SECONDS)

    def _leave_when_idle(self, until: float) -> None:
        idle = self._duty.may_retire() and all(one.channel.idle for one in self.workers.values()) and self.upstream.idle
        if idle or self.reactor.time() >= until:
            self.upstream.send(
                {
                    "event": "ends",
                    "status": RETIRED,
                    "left": [pid for pid, worker in self.workers.items() if not worker.stopping],
                }
            )
            self.reactor.stop()
        else:
            self.reactor.call_later(RETIRE_RETRY_SECONDS, self._leave_when_idle, until)

    def settle(self) -> None:
        """Tell the main process when all that was left by a former guardian is with workers of this code."""
        build = running_build()
        settled = (
            not self._patient
            and self._duty.is_settled()
            and all(one.stopping or one.stays or one.build == build for one in self.workers.values())
        )
        if settled and not self._told_settled:
            self.upstream.send({"event": "settled"})
        self._told_settled = settled

    # -- workers ---------------------------------------------------------------------------------------------------

    def start_worker(self, main: WorkerMain, fds: Iterable[int] = ()) -> WorkerHandle:
        """Fork a worker. main: runs in the child with its channel to this guardian. fds: other descriptors it needs."""
        return self.family.start(
            "Worker", main, on_message=self._duty.worker_said, on_ended=self._worker_ended, fds=fds
        )

    def expect_worker(self, pid: int) -> WorkerHandle | None:
        """Return a worker of a former guardian that will come back, None when it has ended.

        Until then, nothing that is sent to it arrives; one that does not come is killed.
        """
        worker = self.family.expect("Worker", pid, on_message=self._duty.worker_said, on_ended=self._worker_ended)
        if worker is not None:
            self.reactor.call_later(REJOIN_SECONDS, self._kill_if_away, worker)
        return worker

    def _kill_if_away(self, worker: WorkerHandle) -> None:
        if self.workers.get(worker.pid) is worker and worker.channel.closed:
            log.error("Worker %d did not come back; killing it", worker.pid)
            worker.signal(signal.SIGKILL)

    def _adopt(self, message: Message, fds: list[int]) -> None:
        """Take over a worker whose guardian is gone."""
        if self._ending or self._retiring:
            close_all(fds)  # it tries again, with the next guardian
            return
        worker = self.family.adopt(
            "Worker", message, fds, on_message=self._duty.worker_said, on_ended=self._worker_ended
        )
        if worker is None:
            return
        self._duty.worker_rejoined(worker, message.get("note", {}))
        self.settle()
        if worker.build != running_build() and not self._replacing:
            self._replacing = True
            self.reactor.call_later(REPLACE_DELAY_SECONDS, self._replace)

    def _replace(self) -> None:
        """Have workers of other code replaced, once those that came together are there."""
        self._replacing = False
        if self.may_replace:
            self._duty.replace_workers()
            self.settle()

    def _replace_now(self, message: Message, fds: list[int]) -> None:
        """Have them replaced: it is their turn."""
        close_all(fds)
        self._patient = False
        self._replace()

    @property
    def may_replace(self) -> bool:
        """Whether workers of other code are to be replaced now."""
        return not (self._ending or self._retiring or self._patient)

    def stop_worker(self, worker: WorkerHandle, reason: str) -> None:
        """Ask a worker to end its connections, and kill it if it has not ended soon."""
        if worker.stopping:
            return
        worker.stopping = True
        worker.channel.send({"do": "stop", "reason": reason})
        if worker.channel.closed:
            worker.signal(signal.SIGTERM)
        self.reactor.call_later(KILL_AFTER_SECONDS, self._kill_if_alive, worker)

    def _kill_if_alive(self, worker: WorkerHandle) -> None:
        if self.workers.get(worker.pid) is worker:
            worker.signal(signal.SIGKILL)

    def _worker_ended(self, worker: WorkerHandle, status: int) -> None:
        if not self._duty.bequeath(worker, status):
            self.forget_worker(worker.pid)
        self._duty.worker_ended(worker, status)
        self.settle()
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
        self._ending, self._retiring = True, False
        self._duty.stopping()
        for worker in tuple(self.workers.values()):
            self.stop_worker(worker, reason)
        if not self.workers:
            self.reactor.stop()


def guardian_main(
    server: Server,
    upstream: Channel,
    make_duty: Callable[[], Duty],
    name: str,
    key: str,
    stream: str = "",
    *,
    patient: bool = False,
) -> int:
    """Run a guardian in a process that was forked for it; returns its exit status. See `Guardian` for name, key and patient."""
    runtime_log.become(f"guardian {name}", stream)
    return Guardian(server, upstream, make_duty(), name, key, patient=patient).run()


def reply(channel: Channel, request: Message, **result: Any) -> None:
    """Answer a request that came with an "id"; one without gets no answer."""
    if "id" in request:
        channel.send({"reply": request["id"], **result})


def refuse(channel: Channel, request: Message, error: Exception, fds: Iterable[int] = ()) -> None:
    """Answer a request with an error and let go of its descriptors."""
    close_all(tuple(fds))
    reply(channel, request, error=type(error).__name__, text=str(error))
