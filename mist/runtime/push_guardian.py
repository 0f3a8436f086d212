"""The duty of a push's guardian: one worker that sends a stream somewhere, started again when it ended uncleanly."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence

from mist.runtime.backoff import Backoff
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle, WorkerMain
from mist.stream.push import PushPlan

log = logging.getLogger(__name__)

MAX_CRASHES = 10  # in a row
WELL_SECONDS = 60.0
STOP_SECONDS = 30.0  # for what a push that was stopped still has to send


class PushDuty:
    """Keeps a push going until it ends by itself or is told to. What the worker says of it goes on to the main process."""

    def __init__(self, plan: PushPlan, worker_main: WorkerMain) -> None:
        self._plan = plan
        self._worker_main = worker_main
        self._backoff = Backoff()
        self._crashes = 0
        self._stopped = False
        self._result: Message | None = None
        self._guardian: Guardian

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._start_worker()

    def _start_worker(self) -> None:
        if not self._guardian.ending:
            self._guardian.start_worker(self._worker_main)

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("do") == "stop":
            self._stop(str(message.get("reason", "CLEAN_CONTROLLER_REQ")))
        elif message.get("do") == "config":
            self._guardian.tell_workers({"do": "config"})

    def _stop(self, reason: str) -> None:
        """Have the worker end by itself, with what it still has to send."""
        if not self._guardian.workers:
            self._guardian.end(reason)
            return
        self._stopped = True
        self._guardian.tell_workers({"do": "end_push", "reason": reason})
        self._guardian.reactor.call_later(STOP_SECONDS, self._guardian.end, reason)

    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("event") == "result":
            self._result = message
        if "event" in message:
            self._guardian.upstream.send(message)

    def worker_ended(self, worker: WorkerHandle, status: int) -> None:
        if self._guardian.ending:
            return
        if self._result is not None or self._stopped:
            self._guardian.end()
            return
        self._crashes = 1 if worker.ran_seconds() > WELL_SECONDS else self._crashes + 1
        if self._crashes > MAX_CRASHES:
            self._guardian.upstream.send(
                {"event": "result", "reason": "INTERNAL_ERROR", "text": "it crashed too often"}
            )
            self._guardian.end()
            return
        self._guardian.reactor.call_later(self._backoff.next_delay(worker.ran_seconds()), self._start_worker)

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """A push begins anew: its target is asked again."""
        return False

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Nothing is to be taken over: the worker goes on."""

    def replace_workers(self) -> None:
        """Let a worker of other code end at a good place, for a new one to go on there."""
        for worker in tuple(self._guardian.workers.values()):
            worker.signal(signal.SIGKILL)

    def show(self) -> tuple[Message, Sequence[int]]:
        return {"plan": self._plan.document()}, ()

    def may_retire(self) -> bool:
        return True

    def retire(self) -> None:
        """Nothing is begun here anyway."""

    def stopping(self) -> None:
        """The worker is told by the guardian."""

    def finish(self) -> None:
        """Nothing is owned here."""


def make_push_duty(plan: PushPlan, worker_main: WorkerMain) -> Callable[[], PushDuty]:
    """Return what makes the duty inside the forked guardian."""
    return lambda: PushDuty(plan, worker_main)
