"""The duty of a push's guardian: one worker that sends a stream somewhere, started again when it ended uncleanly."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mist.runtime.backoff import Backoff
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle, WorkerMain
from mist.stream.push import PushPlan
from mist.stream.push_note import PushNote

log = logging.getLogger(__name__)

MAX_CRASHES = 10  # in a row
WELL_SECONDS = 60.0
PING_SECONDS = 1.0
HANG_SECONDS = 5.0
STOP_SECONDS = 30.0  # for what a push that was stopped still has to send


class PushDuty:
    """Keeps a push going until it ends by itself or is told to. What the worker says of it goes on to the main process.

    note: what one worker leaves for the next. worker: process number of a former guardian's worker, which will come back, or 0.
    """

    def __init__(self, plan: PushPlan, worker_main: WorkerMain, note: PushNote, worker: int) -> None:
        self._plan = plan
        self._worker_main = worker_main
        self._note = note
        self._version = note.version()
        self._former = worker
        self._asked = 0.0  # since when the worker owes an answer to a ping
        self._last_beat = 0.0
        self._backoff = Backoff()
        self._crashes = 0
        self._stopped = False
        self._result: Message | None = None
        self._guardian: Guardian

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        if not self._former or guardian.expect_worker(self._former) is None:
            self._start_worker()
        self._last_beat = time.monotonic()
        guardian.reactor.call_later(PING_SECONDS, self._beat)

    def _start_worker(self) -> None:
        if self._guardian.ending or self._guardian.workers:
            return
        self._version = self._note.version()
        self._asked = 0.0
        worker = self._guardian.start_worker(self._worker_main)
        self._guardian.upstream.send({"event": "worker", "pid": worker.pid})

    def _beat(self) -> None:
        """Kill a worker that hangs. One that waits for a disk does not: another one would wait for the same."""
        now = time.monotonic()
        late = now - self._last_beat > 1.5 * PING_SECONDS  # this process itself was held up, and has answers to read
        self._last_beat = now
        for worker in tuple(self._guardian.workers.values()):
            if worker.channel.closed:
                continue  # it will come back
            if not self._asked:
                self._asked = now
                worker.channel.send({"do": "ping", "ping": 1})
            elif late or waits_for_disk(worker.pid):
                self._asked = now
            elif now - self._asked >= HANG_SECONDS:
                log.error("The push (%d) has not answered for %.0f s; killing it", worker.pid, now - self._asked)
                self._asked = now
                worker.signal(signal.SIGKILL)
        if not self._guardian.ending:
            self._guardian.reactor.call_later(PING_SECONDS, self._beat)

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
        self._asked = 0.0
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
        self._guardian.upstream.send({"event": "worker", "pid": 0})
        if self._note.version() != self._version:  # it had got further: that is where the next one goes on
            self._crashes = 0
            self._start_worker()
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
        """Return False: what the next worker needs is in the note."""
        return False

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over the worker of a former guardian; of two, the one that came later is one too many."""
        if len(self._guardian.workers) > 1:
            worker.signal(signal.SIGKILL)
            return
        self._asked = 0.0
        self._guardian.upstream.send({"event": "worker", "pid": worker.pid})

    def replace_workers(self) -> None:
        """Let another process go on: what the note says holds at every moment, so the old one need not be asked."""
        for worker in tuple(self._guardian.workers.values()):
            worker.stopping = True  # which is no failure
            worker.signal(signal.SIGKILL)

    def show(self) -> tuple[Message, Sequence[int]]:
        return {"plan": self._plan.document(), "worker": next(iter(self._guardian.workers), 0)}, ()

    def is_settled(self) -> bool:
        return True

    def may_retire(self) -> bool:
        return True

    def retire(self) -> None:
        """Nothing is begun here anyway."""

    def stopping(self) -> None:
        """The worker is told by the guardian."""

    def finish(self) -> None:
        """Nobody goes on with the push."""
        self._note.remove()


def waits_for_disk(pid: int) -> bool:
    """Tell whether a process is in the kernel and cannot be interrupted."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"D"
    except (OSError, IndexError):
        return False


def make_push_duty(plan: PushPlan, worker_main: WorkerMain, note: PushNote, worker: int) -> Callable[[], PushDuty]:
    """Return what makes the duty inside the forked guardian; see `PushDuty`."""
    return lambda: PushDuty(plan, worker_main, note, worker)
