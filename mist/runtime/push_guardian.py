"""The duty of the guardian of all pushes: their workers, each with one push or with many, started again when they ended uncleanly."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mist.net.remote_schemes import without_password
from mist.runtime.adoption import orders
from mist.runtime.backoff import Backoff
from mist.runtime.build import is_same_edition, running_build
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle
from mist.runtime.leftovers import release_subscriptions
from mist.runtime.program import Server
from mist.runtime.push_ends import PushEnds, first_sent_ms, former_result, leave_result, make_result
from mist.runtime.push_worker import push_main, push_note
from mist.runtime.reactor import Timer
from mist.runtime.vigil import Vigil, Watched, patience_seconds
from mist.stream.push import PushPlan
from mist.stream.push_note import PushNote

log = logging.getLogger(__name__)

MAX_CRASHES = 10  # in a row, of a worker with one push
SPLIT_CRASHES = 2  # in a row, of a worker with several: one of them may be to blame
WELL_SECONDS = 60.0
PING_SECONDS = 1.0
HANG_SECONDS = 5.0
STOP_SECONDS = 30.0  # for what a push that was stopped still has to send
TELL_SECONDS = 2.0  # for a former guardian's worker to say what it has
LINGER_SECONDS = 5.0  # that a worker without pushes waits for the next one
ORDERS = 100  # pushes in a message to a worker
FILL = 16  # pushes that a worker gets before another one is started, as long as there are processors
# Targets of pushes that go on in the next process where they were: files, and connections without TLS.
GO_ON = ("/", "rtmp://", "dtsc://")


@dataclass(eq=False)
class Kept:
    """A push. stopping: why it was told to end. result: how it ended, until the main process has written that down.

    began: unix time. status: its figures, as its process told them last.
    file: of its process, for the next one, or -1: the socket of a push to a server, else what waits for a destination.
    patience: when one that was told to end is not waited for any longer. ended_again: a second process was to end it.
    """

    plan: PushPlan
    note: PushNote
    shared: bool
    version: int = 0
    stopping: str = ""
    began: float = field(default_factory=time.time)
    status: Message = field(default_factory=dict)
    lane: Lane | None = None
    result: Message | None = None
    file: int = -1
    patience: Timer | None = None
    ended_again: bool = False

    @property
    def has_ends(self) -> bool:
        """Whether a process is to end it that was told to end and has none: it has begun files, whose end is to be written and told."""
        return not self.shared and not self.ended_again and self.note.version() != 0

    def let_go(self) -> None:
        """Close the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


@dataclass(eq=False)
class Lane:
    """The pushes of one worker.

    arenas: our duplicates of the memory of its groups. estates: its workers of before, which it has not taken over everything from.
    told: what the worker has is known; one of a former guardian says so.
    """

    shared: bool
    pushes: dict[int, Kept] = field(default_factory=dict)
    worker: WorkerHandle | None = None
    crashes: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    arenas: dict[int, int] = field(default_factory=dict)
    estates: list[int] = field(default_factory=list)
    told: bool = True

    def add(self, kept: Kept) -> None:
        self.pushes[kept.plan.number] = kept
        kept.lane = self

    def takes_more(self) -> bool:
        return self.shared and (self.worker is None or not self.worker.stopping)

    def drop(self, kept: Kept) -> None:
        del self.pushes[kept.plan.number]
        kept.lane = None

    def keep_arena(self, number: int, fd: int) -> None:
        """Take a duplicate of a group's memory in place of the former one."""
        self.drop_arenas([number])
        self.arenas[number] = fd

    def drop_arenas(self, numbers: Iterable[int]) -> None:
        """Let go of the memory of groups."""
        close_all([self.arenas.pop(number) for number in tuple(numbers) if number in self.arenas])


class PushesDuty:
    """Keeps pushes going until they end by themselves or are told to. What their workers say goes on to the main process.

    Pushes of one kind share workers, as many as there are processors at most: one that brings its worker down takes others along. When
    that happens again and again, the worker's pushes are divided among two, until the one that is to blame is alone.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._main = push_main(server)
        self._pushes: dict[int, Kept] = {}
        self._lanes: list[Lane] = []
        self._width = len(os.sched_getaffinity(0))
        self._knows = False  # of what pushes there are
        self._guardian: Guardian

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._ends = PushEnds(self._server, guardian.reactor)
        self._watch = Vigil(guardian.reactor, PING_SECONDS, self._watched)

    # -- orders ----------------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        orders: dict[str, Callable[[Message], object]] = {
            "push": self._take,
            "stop": lambda order: self._stop(order),
            "forget": lambda order: self._pushes.pop(int(order["number"]), None),
            "end": lambda order: self._guardian.end(),
            "config": self._guardian.tell_workers,
        }
        order = orders.get(str(message.get("do")))
        if order is not None:
            order(message)

    def _take(self, message: Message) -> None:
        """Take over pushes that have begun elsewhere, and begin others."""
        for given in message["pushes"]:
            plan = PushPlan(**given["plan"])
            if (known := self._pushes.get(plan.number)) is not None:
                if known.result is not None:  # nobody was there to hear it
                    self._guardian.upstream.send(known.result)
                continue
            shared = self._server.program.pushes[plan.connector].shares(plan.target)
            kept = self._pushes[plan.number] = Kept(plan, push_note(self._server.instance, plan), shared)
            kept.version, kept.stopping = kept.note.version(), str(given.get("stopping", ""))
            kept.began = float(given.get("began", kept.began))
            lane = self._former(int(given.get("worker", 0)), shared=shared)
            if lane is not None:
                lane.add(kept)
            elif kept.stopping and not kept.has_ends:
                self._finish_for(kept, kept.stopping, "stopped")
            else:
                self._place(kept)
        self._knows = True
        self._guardian.settle()

    def _former(self, pid: int, *, shared: bool) -> Lane | None:
        """Return the lane of a former guardian's worker, which will come back; None when it has ended."""
        lane = self._lane_of(pid)
        if lane is None and pid and (worker := self._guardian.expect_worker(pid)) is not None:
            lane = Lane(shared, worker=worker, told=False)
            self._lanes.append(lane)
            self._watch.begin()
        return lane

    def _place(self, kept: Kept) -> None:
        """Give a push to a worker."""
        lanes = [one for one in self._lanes if one.takes_more()] if kept.shared else []
        lane = min(lanes, key=lambda one: (one.crashes, len(one.pushes)), default=None)
        if lane is None or (len(lane.pushes) >= FILL and len(lanes) < self._width):
            lane = Lane(kept.shared)
            self._lanes.append(lane)
        lane.add(kept)
        if lane.worker is not None:
            self._order(lane, [kept])
        elif len(lane.pushes) == 1:
            self._start_worker(lane)

    def _stop(self, order: Message) -> None:
        """Have a push end by itself, with what it still has to send."""
        kept = self._pushes.get(int(order["number"]))
        if kept is None or kept.result is not None:
            return
        kept.stopping = str(order.get("reason", "CLEAN_CONTROLLER_REQ"))
        lane = kept.lane
        if lane is not None and lane.worker is None and kept.has_ends:
            self._start_worker(lane)  # and come back
            return
        if lane is None or lane.worker is None:
            self._finish_for(kept, kept.stopping, "stopped")
            return
        lane.worker.channel.send(
            {"do": "end_push", "number": kept.plan.number, "gracefully": bool(order.get("gracefully"))}
        )
        self._forget_patience(kept)
        kept.patience = self._guardian.reactor.call_later(STOP_SECONDS, self._insist, kept)

    def _forget_patience(self, kept: Kept) -> None:
        """Let the timer of a push go, which would keep the push and its result in memory."""
        if kept.patience is not None:
            kept.patience.cancel()
            kept.patience = None

    def _insist(self, kept: Kept) -> None:
        """Do not wait any longer for a push that was told to end."""
        lane = kept.lane
        if lane is None or lane.worker is None:
            return
        if lane.shared:
            lane.worker.channel.send({"do": "end_push", "number": kept.plan.number})
        else:
            kept.ended_again = True
            self._guardian.stop_worker(lane.worker, kept.stopping)

    # -- workers ---------------------------------------------------------------------------------------------------

    def _lane_of(self, pid: int) -> Lane | None:
        return next((one for one in self._lanes if one.worker is not None and one.worker.pid == pid), None)

    def _start_worker(self, lane: Lane) -> None:
        if self._guardian.ending or lane.worker is not None or lane not in self._lanes:
            return
        if not lane.pushes:
            self._drop_lane(lane)
            return
        try:
            lane.worker = self._guardian.start_worker(self._main)
        except OSError as error:
            log.error("A process of pushes cannot be started: %s; trying again", error.strerror)
            self._guardian.reactor.call_later(lane.backoff.next_delay(0.0) or 1.0, self._start_worker, lane)
            return
        lane.told = True
        self._watch.begin()
        if lane.estates:
            sockets = {number: kept for number, kept in lane.pushes.items() if kept.file >= 0}
            connections = {number: (without_password(kept.plan.target), kept.file) for number, kept in sockets.items()}
            for message, fds in orders(lane.estates, lane.arenas, connections, {}, ()):
                lane.worker.channel.send(message, fds)
        self._order(lane, list(lane.pushes.values()))
        for kept in [one for one in lane.pushes.values() if one.stopping]:
            kept.ended_again = True
            self._stop({"number": kept.plan.number, "reason": kept.stopping})

    def _drop_lane(self, lane: Lane) -> None:
        """Let go of what the last worker of a lane had."""
        self._lanes.remove(lane)
        lane.drop_arenas(lane.arenas)
        self._forget_estates(lane, lane.estates)

    def _forget_estates(self, lane: Lane, pids: Sequence[int]) -> None:
        """Take note that everything of former workers is taken over, or never will be."""
        for pid in tuple(pids):
            if pid in lane.estates:
                lane.estates.remove(pid)
                if not any(pid in one.estates for one in self._lanes):
                    release_subscriptions(self._guardian.instance, pid)
                    self._guardian.forget_worker(pid)

    def _order(self, lane: Lane, some: Sequence[Kept]) -> None:
        assert lane.worker is not None
        for kept in some:
            kept.version = kept.note.version()
        for at in range(0, len(some), ORDERS):
            few = some[at : at + ORDERS]
            files = {kept.plan.number: os.dup(kept.file) for kept in few if kept.file >= 0 and not lane.shared}
            plans, copies = [kept.plan.document() for kept in few], list(files.values())
            lane.worker.channel.send({"do": "push", "plans": plans, "files": list(files)}, copies, close=copies)
        self._tell_place(lane.worker.pid, some)

    def _tell_place(self, pid: int, some: Sequence[Kept]) -> None:
        self._guardian.upstream.send({"event": "worker", "pid": pid, "numbers": [kept.plan.number for kept in some]})

    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None:
        lane = self._lane_of(worker.pid)
        if lane is not None and fds:
            self._keep(lane, message, fds)
        close_all(fds)
        if lane is None:
            return
        if "arena_gone" in message:
            lane.drop_arenas([message["arena_gone"]])
        elif "held" in message:
            lane.drop_arenas(lane.arenas.keys() - set(message["held"]))
        elif "adopted" in message:
            self._forget_estates(lane, message["adopted"])
        elif message.get("inventory", {}).get("last"):
            self._told(lane)
        elif message.get("event") == "result":
            kept = lane.pushes.get(int(message["number"]))
            if kept is not None:
                self._finish(kept, message)
        elif message.get("event") == "status":
            for number, status in message["pushes"].items():
                if (reported := lane.pushes.get(int(number))) is not None:
                    reported.status = status
            self._guardian.upstream.send(message)

    def _keep(self, lane: Lane, message: Message, fds: list[int]) -> None:
        """Take what a worker wants kept for the next one; those of the descriptors that are left over are nobody's."""
        if message.get("event") == "file" and (kept := lane.pushes.get(message["number"])):
            kept.let_go()
            kept.file = fds.pop()
        elif "arena" in message:
            lane.keep_arena(message["arena"], fds.pop())
        elif "inventory" in message:
            for number in message["inventory"].get("arenas", ())[: len(fds)]:
                lane.keep_arena(number, fds.pop(0))

    def _finish_for(self, kept: Kept, reason: str, text: str) -> None:
        """Say how a push ended whose process is dead, unless that said so before."""
        result = former_result(kept.note)
        if result is None:
            result = make_result(
                kept.plan.number,
                reason,
                text,
                status=kept.status,
                began=kept.began,
                first_ms=first_sent_ms(kept.status),
            )
            leave_result(kept.note, result)
        self._finish(kept, result)

    def _finish(self, kept: Kept, result: Message) -> None:
        """Pass on how a push ended; it is remembered until the main process says that it knows."""
        kept.result = result
        self._ends.tell(kept.plan, result, shared=kept.shared)
        kept.let_go()
        self._forget_patience(kept)
        lane = kept.lane
        if lane is not None:
            lane.drop(kept)
            if not lane.pushes:
                self._guardian.reactor.call_later(LINGER_SECONDS if lane.shared else 0.0, self._end_idle, lane)
        self._guardian.upstream.send(kept.result)

    def _end_idle(self, lane: Lane) -> None:
        if not lane.pushes and lane.worker is not None:
            self._guardian.stop_worker(lane.worker, "CLEAN_CONTROLLER_REQ")

    def worker_ended(self, worker: WorkerHandle, status: int) -> None:
        lane = self._lane_of(worker.pid)
        if lane is None:
            return
        lane.worker = None
        if self._guardian.ending:
            self._end_all(lane)
            return
        for kept in [one for one in lane.pushes.values() if one.stopping]:
            self._forget_patience(kept)
            if not kept.has_ends:
                self._finish_for(kept, kept.stopping, "stopped")
        if not lane.pushes:
            self._drop_lane(lane)
            return
        self._tell_place(0, list(lane.pushes.values()))
        if worker.stopping or any(one.stopping or one.note.version() != one.version for one in lane.pushes.values()):
            # It had got further: that is where the next one goes on, or ends what is to end, which it does once.
            lane.crashes = 0
            self._start_worker(lane)
            return
        lane.crashes = 1 if worker.ran_seconds() > WELL_SECONDS else lane.crashes + 1
        delay = lane.backoff.next_delay(worker.ran_seconds())
        if len(lane.pushes) > 1 and lane.crashes >= SPLIT_CRASHES:
            self._guardian.reactor.call_later(delay, self._start_worker, self._split(lane))
        elif len(lane.pushes) == 1 and lane.crashes > MAX_CRASHES:
            for kept in list(lane.pushes.values()):
                self._finish_for(kept, "INTERNAL_ERROR", "it crashed too often")
            self._drop_lane(lane)
            return
        self._guardian.reactor.call_later(delay, self._start_worker, lane)

    def _end_all(self, lane: Lane) -> None:
        """Say how the pushes of a lane without a worker ended: nobody goes on with them."""
        for kept in list(lane.pushes.values()):
            self._finish_for(kept, kept.stopping or "CLEAN_SIGNAL", "stopped")

    def _split(self, lane: Lane) -> Lane:
        """Move half of a lane's pushes to another one."""
        arenas = {number: os.dup(fd) for number, fd in lane.arenas.items()}
        other = Lane(lane.shared, crashes=SPLIT_CRASHES - 1, arenas=arenas, estates=[*lane.estates])
        lane.crashes = SPLIT_CRASHES - 1
        for kept in list(lane.pushes.values())[::2]:
            lane.drop(kept)
            other.add(kept)
        self._lanes.append(other)
        log.warning(
            "A worker of pushes ended again and again: its pushes are divided, %d go on in another", len(other.pushes)
        )
        return other

    def _watched(self) -> Watched:
        for lane in self._lanes:
            if lane.worker is not None and lane.pushes:
                yield lane.worker, patience_seconds(lane.worker, HANG_SECONDS)

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """Leave connections to other servers to the next worker; what it needs of other pushes is in their notes."""
        lane = self._lane_of(worker.pid)
        if lane is None or self._guardian.ending or not lane.shared:
            return False
        if not any(kept.file >= 0 for kept in lane.pushes.values()):
            return False
        lane.estates.insert(0, worker.pid)
        return True

    # -- other guardians and main processes ------------------------------------------------------------------------

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over the worker of a former guardian; one whose pushes another one has by now is one too many."""
        lane = self._lane_of(worker.pid)
        if lane is None:
            worker.signal(signal.SIGKILL)
            return
        if not lane.told:
            self._guardian.reactor.call_later(TELL_SECONDS, self._told, lane)
        running = {int(number) for number in note.get("pushes", ())}
        missing = [kept for number, kept in lane.pushes.items() if number not in running]
        for number in running - lane.pushes.keys():
            worker.channel.send({"do": "end_push", "number": number})
        if missing:  # what became of them is in their notes, or they never began
            self._order(lane, missing)
        for kept in [one for one in lane.pushes.values() if one.stopping]:
            self._stop({"number": kept.plan.number, "reason": kept.stopping})
        if not lane.pushes:
            self._end_idle(lane)

    def replace_workers(self) -> None:
        """Let other processes go on: what notes and records say holds at every moment, so the old ones need not be asked.

        Those that would have to connect to others again stay if they run the same code.
        """
        for lane in self._lanes:
            worker = lane.worker
            if not lane.told or worker is None or worker.build == running_build():
                continue
            worker.stays = is_same_edition(worker.build) and _would_reconnect(lane)
            if not worker.stays:
                worker.stopping = True  # which is no failure
                worker.signal(signal.SIGKILL)

    def _told(self, lane: Lane) -> None:
        """Take note that what a lane's worker has is known."""
        if not lane.told:
            lane.told = True
            self.replace_workers()

    def show(self) -> tuple[Message, Sequence[int]]:
        shown: list[dict[str, Any]] = []
        for kept in self._pushes.values():
            worker = kept.lane.worker if kept.lane is not None else None
            place = {"worker": 0 if worker is None else worker.pid}
            shown.append({"plan": kept.plan.document(), **place, "stopping": kept.stopping, "result": kept.result})
        return {"pushes": shown}, ()

    def is_settled(self) -> bool:
        return self._knows

    def may_retire(self) -> bool:
        return True

    def retire(self) -> None:
        """Nothing is begun here anyway."""

    def stopping(self) -> None:
        """End those that no worker has; the workers are told by the guardian."""
        for lane in self._lanes:
            if lane.worker is None:
                self._end_all(lane)

    def finish(self) -> None:
        """Nobody goes on with the pushes."""
        for kept in self._pushes.values():
            kept.note.remove()


def _would_reconnect(lane: Lane) -> bool:
    """Tell whether a lane has pushes whose connections no other process can go on with."""
    return not all(kept.plan.target.startswith(GO_ON) for kept in lane.pushes.values())
