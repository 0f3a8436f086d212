"""The duty of a listener's guardian: accept connections and spread them over workers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mist.runtime.adoption import Visited, orders
from mist.runtime.backoff import Backoff
from mist.runtime.build import is_same_edition, running_build
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle, WorkerMain
from mist.runtime.leftovers import open_records, records_name, release_subscriptions
from mist.runtime.process import own
from mist.runtime.vigil import START_SECONDS, Vigil, Watched, patience_seconds

log = logging.getLogger(__name__)

MIN_WORKERS = 2  # so that one which crashes or hangs does not have all viewers
ACCEPTS_PER_WAKE = 64
SPARE_DELAY_SECONDS = 0.05
IDLE_WORKER_SECONDS = 60.0
ACCEPT_PAUSE_SECONDS = 0.1
# Descriptors kept free for channels, logs and forking; and the number of connections of which none of that is left.
RESERVED_DESCRIPTORS = 64
REFUSAL_LINE_SECONDS = 5.0
PING_SECONDS = 1.0
HANG_SECONDS = 2.0
RETIRE_SECONDS = 2.0
STAY_SECONDS = 3600.0  # for a worker of former code whose connections nobody else can go on with
PREPARE_SECONDS = 10.0  # for an heir to get ready; it is given everything then, ready or not
# A connection that so many workers died of in that time is closed.
POISON_DEATHS = 3
POISON_SECONDS = 10.0
# Workers that die one after the other, each this soon after it began, are not replaced at once.
RAPID_SECONDS = 0.5
RAPID_DEATHS = 5
RAPID_DELAY_SECONDS = 1.0


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
    hosts: dict[int, str] = field(default_factory=dict)
    visits: dict[int, Visited] = field(
        default_factory=dict
    )  # by connection, of what the handlers of triggers were told
    arenas: dict[int, int] = field(default_factory=dict)  # {number: our duplicate} of the memory of its groups
    estates: list[int] = field(default_factory=list)  # workers that it has not taken over everything from
    ended_visits: list[Visited] = field(default_factory=list)  # of connections that nobody goes on with
    heir: Served | None = None  # who gets its connections
    bequeathed: bool = False
    reserved: bool = False  # for another one's connections
    retiring: bool = False  # it was told to give its connections up
    told: bool = True  # what it has is known; one of a former guardian says so at the end of its inventory
    idle_since: float = field(default_factory=time.monotonic)
    used: bool = False

    def let_go(self) -> None:
        close_all((*self.connections.values(), *self.arenas.values()))
        self.connections.clear()
        self.arenas.clear()


class ListenerDuty:
    """Owns a port's listening sockets and a duplicate of every accepted socket.

    A connection goes to an idle worker, to a fresh one while there are fewer than the limit, then to the one with the
    fewest connections. One idle worker is kept so that a newcomer does not wait for a fork.
    """

    def __init__(
        self,
        connector: str,
        options: Mapping[str, Any],
        sockets: list[socket.socket],
        worker_main: WorkerMain,
        left: Iterable[int] = (),
    ) -> None:
        self.connector = connector
        self._left = left
        self._options = options
        self._sockets = sockets
        self._worker_main = worker_main
        self._limit = worker_limit(options)
        self._served: dict[int, Served] = {}
        # Others than the former guardian's, whose workers may come with their connections.
        self._last_number = secrets.randbits(31)
        self._backoff = Backoff()
        self._spare_planned = False
        self._retired = False
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS
        self._open = 0
        self._refused = 0
        self._refusal_told = 0.0
        self._idle_check_planned = False
        self._suspects = Suspects()
        self._rapid_deaths = 0
        self._leaving: list[Served] = []  # the first of them is being replaced
        self._guardian: Guardian

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._watch = Vigil(guardian.reactor, PING_SECONDS, self._watched)
        for sock in self._sockets:
            sock.setblocking(False)
        for pid in self._left:
            handle = guardian.expect_worker(pid)
            if handle is not None:
                self._served[pid] = Served(handle, used=True, told=False)
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
        """Take the connections that wait, each when its worker is there: until it is sent, only this process has it."""
        try:
            served: Served | None = self._choose()
        except OSError as error:
            log.error("Starting a worker failed: %s", error.strerror)
            self._pause()
            return
        for _ in range(ACCEPTS_PER_WAKE):
            if served is None:
                return  # called again at once if there are more
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
            self._assign(served, sock.detach(), plain_address(address[0]))
            served = self._choose_ready()

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

    def _assign(self, served: Served, fd: int, host: str) -> None:
        self._last_number = self._last_number % 0x7FFFFFFF + 1
        number = self._last_number
        served.handle.channel.send({"do": "serve", "connection": number, "host": host}, (fd,))
        served.connections[number] = fd
        served.hosts[number] = host
        served.used = True
        self._watch.begin()
        self._open += 1
        self._plan_spare()

    def _choose(self) -> Served:
        """Return the worker for the next connection, a fresh one if none is ready."""
        return self._choose_ready() or self._fork()

    def _choose_ready(self) -> Served | None:
        """Return the worker for the next connection, None if that is one which is to be forked first."""
        usable = self._usable()
        idle = next((served for served in usable if not served.connections), None)
        if idle is not None:
            return idle
        if not self._limit or len(usable) < self._limit:
            return None
        return min(usable, key=lambda served: len(served.connections))

    def _usable(self) -> list[Served]:
        """Return the workers that may get connections."""
        return [
            served
            for served in self._served.values()
            if not served.handle.stopping
            and not served.reserved
            and served.heir is None
            and served.told
            and served.handle.build == running_build()
        ]

    # -- workers ---------------------------------------------------------------------------------------------------

    def _watched(self) -> Watched:
        """Return those with connections; one that takes over what others had gets more time."""
        for served in self._served.values():
            if served.connections:
                patience_s = patience_seconds(served.handle, HANG_SECONDS)
                yield served.handle, START_SECONDS if served.estates else patience_s

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
        served = self._served.get(worker.pid)
        if served is None:
            close_all(fds)
            return
        if "arena" in message and len(fds) == 1:
            close_all([fd for fd in (served.arenas.get(message["arena"]),) if fd is not None])
            served.arenas[message["arena"]] = fds[0]
        elif "arena_gone" in message:
            close_all([fd for fd in (served.arenas.pop(message["arena_gone"], None),) if fd is not None])
        elif "inventory" in message:
            self._take_inventory(served, message["inventory"], fds)
        elif "visit" in message:
            if message["visit"] in served.connections:
                served.visits[message["visit"]] = message["state"]
        elif "adopted" in message:
            self._adopted(served, message["adopted"])
        elif "prepared" in message:
            self._heir_is_ready(served)
        elif "retired" in message:
            self._bequeath(served)
        elif "stays" in message:
            self._stay(served)
        else:
            close_all(fds)
            self._connections_closed(served, message)

    def _connections_closed(self, served: Served, message: Message) -> None:
        worker = served.handle
        for number in message.get("closed", ()):
            fd = served.connections.pop(number, None)
            served.hosts.pop(number, None)
            served.visits.pop(number, None)
            if fd is not None:
                os.close(fd)
                self._open -= 1
        if not served.connections and served.told:
            served.idle_since = time.monotonic()
            if served.handle.build != running_build():
                self._guardian.stop_worker(worker, "CLEAN_CONTROLLER_REQ")
            else:
                self._plan_idle_check()

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over a worker of a former guardian; what it has follows as its inventory."""
        if worker.pid not in self._served:
            self._served[worker.pid] = Served(worker, used=True, told=False)

    def replace_workers(self) -> None:
        """Let fresh workers go on with the connections of those of other code, one after the other."""
        for served in tuple(self._served.values()):
            if served.handle.build != running_build():
                self.replace_worker(served)

    def worker_ended(self, worker: WorkerHandle, status: int) -> None:
        served = self._served.pop(worker.pid)
        self._replaced(served)
        if status and not self._guardian.ending and not served.bequeathed:
            release_subscriptions(self._guardian.instance, worker.pid)
        self._open -= len(served.connections)
        served.let_go()
        if not self._guardian.ending:
            self._plan_spare(self._backoff.next_delay(worker.ran_seconds()) if status else 0.0)

    # -- other workers' connections --------------------------------------------------------------------------------

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """Give a worker's connections to another one, unless it has ended in peace."""
        served = self._served[worker.pid]
        if served.bequeathed:
            return True
        left_alone = status == 0 or worker.stopping
        if (left_alone and served.heir is None) or self._guardian.ending or not served.connections:
            if served.heir is not None:
                served.heir.reserved = False
            return False
        self._bequeath(served)
        return True

    def _bequeath(self, served: Served) -> None:
        """Give a worker's connections away: it has ended, or will do nothing but that."""
        worker = served.handle
        ended = self._drop_poison(served)
        estate = Served(
            served.handle, served.connections, served.hosts, served.visits, served.arenas, [worker.pid, *served.estates]
        )
        estate.heir, estate.ended_visits = served.heir, ended
        served.connections, served.hosts, served.visits, served.arenas = {}, {}, {}, {}
        served.bequeathed = worker.stopping = True
        self._rapid_deaths = self._rapid_deaths + 1 if worker.ran_seconds() < RAPID_SECONDS else 0
        if self._rapid_deaths > RAPID_DEATHS:
            self._guardian.reactor.call_later(RAPID_DELAY_SECONDS, self._give, estate)
        else:
            self._give(estate)

    def _give(self, estate: Served) -> None:
        heir = estate.heir
        if heir is None or heir.handle.pid not in self._served:
            idle = [served for served in self._usable() if not served.connections]
            try:
                heir = idle[0] if idle else self._fork()
            except OSError as error:
                log.error("Connections wait for a worker: %s", error.strerror)
                self._guardian.reactor.call_later(ACCEPT_PAUSE_SECONDS, self._give, estate)
                return
        connections = {number: (estate.hosts[number], fd) for number, fd in estate.connections.items()}
        for message, fds in orders(estate.estates, estate.arenas, connections, estate.visits, estate.ended_visits):
            heir.handle.channel.send(message, fds)
        heir.connections.update(estate.connections)
        heir.hosts.update(estate.hosts)
        heir.visits.update(estate.visits)
        heir.arenas.update(estate.arenas)
        heir.estates.extend(estate.estates)
        heir.used, heir.reserved = True, False
        self._watch.begin()
        self._plan_spare()

    def _adopted(self, served: Served, pids: list[int]) -> None:
        for pid in pids:
            if pid in served.estates:
                served.estates.remove(pid)
                release_subscriptions(self._guardian.instance, pid)
                self._guardian.forget_worker(pid)
        for one in self._leaving[:1]:
            if one.handle.pid in pids:
                self._replaced(one)

    def _drop_poison(self, served: Served) -> list[Visited]:
        """Close the connection that worker after worker died of; returns its visit."""
        records = open_records(records_name(self._guardian.instance, served.handle.pid))
        number = 0 if records is None else records.handling
        fd = served.connections.get(number)
        if fd is None or not self._suspects.blame(number, time.monotonic()):
            return []
        log.error("The connection from %s is closed: %d workers died of it", served.hosts[number], POISON_DEATHS)
        del served.connections[number]
        del served.hosts[number]
        os.close(fd)
        self._open -= 1
        visit = served.visits.pop(number, None)
        return [] if visit is None else [visit]

    # -- planned replacement ---------------------------------------------------------------------------------------

    def replace_worker(self, served: Served) -> None:
        """Let a fresh worker go on with the connections of one that is of use no longer."""
        if served.handle.stopping or served.handle.stays or served in self._leaving or not served.told:
            return
        if not served.connections:
            self._guardian.stop_worker(served.handle, "CLEAN_CONTROLLER_REQ")
            return
        self._leaving.append(served)
        if self._leaving[0] is served:
            self._prepare_heir(served)

    def _prepare_heir(self, served: Served) -> None:
        """Have the next worker do all it can while the former one still serves."""
        served.heir = self._fork()
        served.heir.reserved = True
        served.heir.handle.channel.send({"do": "prepare", "pid": served.handle.pid})
        self._guardian.reactor.call_later(PREPARE_SECONDS, self._ask_to_retire, served)

    def _heir_is_ready(self, heir: Served) -> None:
        for one in self._leaving[:1]:
            if one.heir is heir:
                self._ask_to_retire(one)

    def _ask_to_retire(self, served: Served) -> None:
        if self._leaving[:1] == [served] and not served.retiring:
            served.retiring = True
            served.handle.channel.send({"do": "retire"})
            self._guardian.reactor.call_later(RETIRE_SECONDS, self._kill, served)

    def _stay(self, served: Served) -> None:
        """Let a worker serve its connections to their end: others get none, but from workers of this code."""
        served.handle.stays, served.retiring = True, False
        if served.heir is not None:
            served.heir.reserved, served.heir = False, None
        log.info(
            "Worker %d stays for the %d connections that only it can serve", served.handle.pid, len(served.connections)
        )
        if not is_same_edition(served.handle.build):
            self._guardian.reactor.call_later(
                STAY_SECONDS, self._guardian.stop_worker, served.handle, "CLEAN_CONTROLLER_REQ"
            )
        self._replaced(served)

    def _replaced(self, ended: Served) -> None:
        """Go on with the next one, when somebody has everything of the one before or it had nothing left; an heir may have died."""
        first = self._leaving[0] if self._leaving else None
        if first is None or self._guardian.ending:
            return
        if first.heir is ended:
            self._ask_to_retire(first)
        elif ended in self._leaving and not (ended.bequeathed and self._is_on_its_way(ended)):
            self._leaving.remove(ended)
            if ended is first and self._leaving:
                self._prepare_heir(self._leaving[0])
            self._guardian.settle()

    def _is_on_its_way(self, former: Served) -> bool:
        """Tell whether a worker's connections are given away and not all adopted."""
        return any(former.handle.pid in one.estates for one in self._served.values())

    def is_settled(self) -> bool:
        return not self._leaving

    def _kill(self, served: Served) -> None:
        if self._served.get(served.handle.pid) is served and not served.handle.stays:
            served.handle.signal(signal.SIGKILL)

    def _take_inventory(self, served: Served, inventory: Mapping[str, Any], fds: list[int]) -> None:
        served.arenas.update(zip(inventory.get("arenas", ()), fds, strict=False))
        for (number, host), fd in zip(inventory.get("connections", ()), fds, strict=False):
            served.connections[number], served.hosts[number] = fd, host
            self._open += 1
        for number, visit in inventory.get("visits", {}).items():
            served.visits[int(number)] = visit
        self._watch.begin()
        if inventory.get("last"):
            served.told = True
            if served.handle.build != running_build() and self._guardian.may_replace:
                self.replace_worker(served)

    # -- orders ----------------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        what = message.get("do")
        if what == "config":
            for served in self._served.values():
                if served.used:  # the others have not read the configuration yet, and need not wake up for it
                    served.handle.channel.send({"do": "config"})
        elif what == "end_connections":
            for served in self._served.values():
                numbers = message["records"].get(str(served.handle.pid))
                if numbers:
                    served.handle.channel.send({"do": "end_connections", "records": numbers})
        elif what == "stop":
            self._guardian.end(message.get("reason", "CLEAN_CONTROLLER_REQ"))

    def show(self) -> tuple[Message, Sequence[int]]:
        return {"entry": dict(self._options)}, [sock.fileno() for sock in self._sockets]

    def may_retire(self) -> bool:
        return not self._leaving

    def retire(self) -> None:
        """Accept no more: the next guardian has the same sockets."""
        self._retired = True
        self._close_sockets()
        for served in self._served.values():
            if not served.connections and not served.reserved:
                served.handle.stopping = True  # it ends when this process does

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


class Suspects:
    """Connections that workers were occupied with when they died."""

    def __init__(self) -> None:
        self._deaths: dict[int, list[float]] = {}

    def blame(self, number: int, now: float) -> bool:
        """Count a death; True when it is one too many for this connection."""
        self._deaths = {one: times for one, times in self._deaths.items() if now - times[-1] < POISON_SECONDS}
        times = [time for time in self._deaths.get(number, ()) if now - time < POISON_SECONDS]
        self._deaths[number] = [*times, now]
        return len(times) + 1 >= POISON_DEATHS


def make_listener_duty(
    connector: str,
    options: Mapping[str, Any],
    descriptors: Iterable[int],
    worker_main: WorkerMain,
    left: Iterable[int] = (),
) -> Callable[[], ListenerDuty]:
    """Return what makes the duty inside the forked guardian.

    descriptors: inherited listening sockets. left: numbers of workers that a former guardian has left and that will come.
    """
    fds = tuple(descriptors)

    def make() -> ListenerDuty:
        return ListenerDuty(connector, options, [own(socket.socket(fileno=fd)) for fd in fds], worker_main, left)

    return make
