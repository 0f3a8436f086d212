"""The duty of an input's guardian: a stream's table, its one source, and what becomes of it when the source leaves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mist.core.doorbell import Ringer
from mist.core.track_buffer import Table, open_table
from mist.errors import AccessDenied, Busy, MistError, NotFound, NotReady, StreamEnded
from mist.net.receive_ring import create_ring
from mist.net.tcp_counters import has_hung_up
from mist.runtime.backoff import Backoff
from mist.runtime.build import is_same_edition, running_build
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import Guardian, WorkerHandle, WorkerMain, refuse, reply
from mist.runtime.process import is_alive, own
from mist.runtime.snapshot import Snapshot, input_timeout, input_timeout_part, read_snapshot, stream_settings
from mist.runtime.stream_events import StreamEvents
from mist.runtime.stream_source import HANG_SECONDS, LOOK_SECONDS, SOUND_SECONDS, InputStart, Source
from mist.runtime.vigil import START_SECONDS, Vigil, Watched
from mist.stream.names import stream_prefix
from mist.stream.publisher import Limits, create_stream, remove_stream
from mist.stream.push_note import is_awaited, table_number
from mist.stream.state import StreamStatus

log = logging.getLogger(__name__)

# A publisher that sent nothing for this long gives way to the next one.
SILENT_PUBLISHER_SECONDS = 2.0
# A second publisher waits for this: the first one may have hung up, and its process not have seen it yet.
LEAVING_SECONDS = 1.0
START_WAIT_SECONDS = 20.0
PUBLISHER_WAIT_SECONDS = 5.0
VIEWER_CHECK_SECONDS = 5.0  # at most
RESTART_SOURCE_SECONDS = 1.0
RECORDER_SECONDS = 0.5  # between two looks whether a recorder that was killed has its successor
HEAR_OUT_SECONDS = 1.0
# An input that ends for this reason could not begin: trying again makes no sense before somebody asks again.
START_FAILURE = "READ_START_FAILURE"

YIELD_SECONDS = 1.0

# What the input process runs.
InputMain = Callable[[InputStart], WorkerMain]


def stream_limits(snapshot: Snapshot, stream: str) -> Limits:
    """Return the bounds that the configuration sets for a stream."""
    settings = stream_settings(snapshot, stream) or {}
    memory = snapshot["config"].get("memory") or {}
    return Limits(
        window_us=int(settings.get("DVR", 50_000)) * 1000,
        segment_us=int(settings.get("segmentsize", 1_900)) * 1000,
        stream_bytes=int(memory.get("per_stream_bytes", 1 << 30)),
        packet_bytes=int(memory.get("packet_bytes", 32 << 20)),
    )


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream is made of. pulled: its source is fetched by us, not published to us. adopt: it has had another
    guardian, so its table and perhaps its input are still there."""

    name: str
    source: str
    pulled: bool
    adopt: bool = False


class StreamDuty:
    """Owns a stream's names in shared memory and its publisher's socket, and keeps its input running."""

    def __init__(self, plan: StreamPlan, make_main: InputMain) -> None:
        self._plan = plan
        self._make_main = make_main
        self._source: Source | None = None
        self._standby: WorkerHandle | None = None
        self._next: tuple[Message, list[int]] | None = None
        self._second: tuple[Message, list[int]] | None = None  # one that waits for the publisher to leave by itself
        self._waiting: list[Message] = []
        self._backoff = Backoff()
        self._had_media = False
        self._given = ""  # the source that handlers of triggers gave instead of the configured one
        self._end_reason = "CLEAN_CONTROLLER_REQ"
        self._viewed_at = time.monotonic()
        self._leave_count = 0
        self._table: Table
        self._guardian: Guardian
        self._events: StreamEvents

    # -- start and end ---------------------------------------------------------------------------------------------

    def start(self, guardian: Guardian) -> None:
        self._guardian = guardian
        self._vigil = Vigil(
            guardian.reactor,
            LOOK_SECONDS,
            self._watched,
            lambda child: self._source is not None and self._source.is_mute,
        )
        self._ringer = Ringer(str(guardian.instance.bells))
        self._read_settings()
        plan = self._plan
        self._events = StreamEvents(guardian, plan.name, lambda: self._snapshot, pulled=plan.pulled, begun=plan.adopt)
        try:
            orphan = self._make_table()
        except MistError as error:
            log.error("Cannot start: %s", error)
            guardian.upstream.send({"event": "failed", "text": str(error)})
            guardian.end()
            return
        if orphan is not None:
            self._source = Source(orphan, orphan.started)
        elif self._plan.pulled:
            self._start_source()
        else:
            self._plan_leave()
        if self._plan.pulled:
            guardian.reactor.call_later(self._check_s(), self._check_viewers)

    def _read_settings(self) -> None:
        self._snapshot = read_snapshot(self._guardian.instance)
        settings = stream_settings(self._snapshot, self._plan.name) or {}
        self._timeout = input_timeout(self._snapshot, self._plan.name)
        self._always_on = bool(settings.get("always_on"))
        self._takeover = settings.get("publisher") == "takeover"

    def _make_table(self) -> WorkerHandle | None:
        """Make the stream's table, or find the one of a former guardian; returns the input that still feeds that."""
        instance = self._guardian.instance.name
        if self._plan.adopt:
            with contextlib.suppress(NotFound):
                self._table = open_table(stream_prefix(instance, self._plan.name))
                feeder = self._table.pids[1]
                self._table.set_pids(guardian=os.getpid())
                self._had_media = True
                return self._guardian.expect_worker(feeder) if feeder and is_alive(feeder) else None
        limits = stream_limits(self._snapshot, self._plan.name)
        self._table = create_stream(instance, self._plan.name, limits, self._plan.source)
        self._table.set_pids(guardian=os.getpid())
        return None

    def stopping(self) -> None:
        if not hasattr(self, "_table"):
            return
        self._set_status(StreamStatus.SHUTDOWN)
        self._refuse_all(StreamEnded("Stream is shutting down"))

    def finish(self) -> None:
        if self._source is not None:
            self._source.let_go()
        if hasattr(self, "_table"):
            self._events.unloaded(self._end_reason, had_media=self._had_media and not self._table.on_demand)
        remove_stream(self._guardian.instance.name, self._plan.name, self._ringer)

    def _refuse_all(self, error: Exception) -> None:
        for message in self._waiting:
            refuse(self._guardian.upstream, message, error)
        self._waiting.clear()
        for message, fds in filter(None, (self._next, self._second)):
            refuse(self._guardian.upstream, message, error, fds)
        self._next = self._second = None

    def _end(self, reason: str) -> None:
        self._set_status(StreamStatus.SHUTDOWN)  # nobody begins to play what workers still have of it
        self._end_reason = reason
        log.info("Stream ended: %s", reason, extra={"kind": "STRM"})
        self._guardian.end(reason)

    # -- state -----------------------------------------------------------------------------------------------------

    def _set_status(self, status: StreamStatus) -> None:
        if self._table.status != status:
            self._table.set_status(status)
            self._table.ring(self._ringer)
            self._tell_state()

    def _tell_state(self) -> None:
        feeder = self._source.pid if self._source is not None else 0
        self._guardian.upstream.send({"event": "state", "state": int(self._table.status), "input": feeder})

    def _became_ready(self) -> None:
        """Take note that the source has sent its first packet; the input process has set the state."""
        self._had_media = True
        self._tell_state()
        log.info("Stream is live", extra={"kind": "STRM"})
        for message in self._waiting:
            reply(self._guardian.upstream, message, ok=True)
        self._waiting.clear()

    # -- orders ----------------------------------------------------------------------------------------------------

    def command(self, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "publish":
            self._publish(message, fds)
            return
        close_all(fds)
        if what == "start":
            self._wait_ready(message)
        elif what == "config":
            self._configure()
        elif what == "end_connections":
            self._guardian.tell_workers(message)
        elif what == "stop":
            self._end(str(message.get("reason", "CLEAN_CONTROLLER_REQ")))

    def _configure(self) -> None:
        self._read_settings()
        limits = stream_limits(self._snapshot, self._plan.name)
        self._table.set_window(limits.window_us, limits.segment_us, limits.stream_bytes)
        self._guardian.tell_workers({"do": "config"})

    def _wait_ready(self, message: Message) -> None:
        self._viewed_at = time.monotonic()
        if self._guardian.ending:
            return  # it is asked again of the stream's next guardian
        if self._table.status == StreamStatus.READY:
            reply(self._guardian.upstream, message, ok=True)
        elif not self._plan.pulled and self._source is None:
            refuse(self._guardian.upstream, message, NotReady("Stream is waiting for data"))
        else:
            self._waiting.append(message)
            seconds = START_WAIT_SECONDS if self._plan.pulled else PUBLISHER_WAIT_SECONDS
            self._guardian.reactor.call_later(seconds, self._give_up, message)

    def _give_up(self, message: Message) -> None:
        if message in self._waiting:
            self._waiting.remove(message)
            refuse(self._guardian.upstream, message, NotReady("Stream is waiting for data"))

    # -- publishers ------------------------------------------------------------------------------------------------

    def _publish(self, message: Message, fds: list[int]) -> None:
        try:
            if len(fds) != 2 or self._plan.pulled:
                raise NotFound(f"The stream {self._plan.name} does not take publishers")
            if self._guardian.ending:
                raise Busy(f"The stream {self._plan.name} is shutting down; try again")
            if self._source is not None:
                self._replace_publisher(message, fds)
            else:
                self._start_source(message, fds)
        except MistError as error:
            refuse(self._guardian.upstream, message, error, fds)

    def _replace_publisher(self, message: Message, fds: list[int]) -> None:
        """Keep a publisher's request until the one before it has left. Raises Busy when another one waits already."""
        assert self._source is not None
        self._forget_gone()
        if self._next is not None or self._second is not None:
            raise self._busy()
        silent = time.monotonic() - max(self._table.clocks[4] / 1e6, self._source.started)
        if not (self._takeover or silent > SILENT_PUBLISHER_SECONDS):
            self._second = (message, fds)
            self._guardian.reactor.call_later(LEAVING_SECONDS, self._refuse_second, message)
            return
        log.info(
            "Publisher %s takes over from %s",
            message["request"].get("host", ""),
            self._source.host,
            extra={"kind": "STRM"},
        )
        self._next = (message, fds)
        self._guardian.stop_worker(self._source.worker, "CLEAN_LIVE_BUFFER_REQ")

    def _forget_gone(self) -> None:
        """Let go of a publisher that waited and has hung up meanwhile."""
        if self._second is not None and has_hung_up(self._second[1][0]):
            self._refuse_second(self._second[0])
        if self._next is not None and has_hung_up(self._next[1][0]):
            (message, fds), self._next = self._next, None
            refuse(self._guardian.upstream, message, self._busy(), fds)

    def _refuse_second(self, message: Message) -> None:
        """Refuse a publisher for which the one before it did not leave."""
        if self._second is not None and self._second[0] is message:
            (message, fds), self._second = self._second, None
            refuse(self._guardian.upstream, message, self._busy(), fds)

    def _busy(self) -> Busy:
        host = self._source.host if self._source is not None else ""
        return Busy(f"The stream {self._plan.name} already has a publisher, {host or 'another one'}")

    # -- the source's process --------------------------------------------------------------------------------------

    def _start_source(self, message: Message | None = None, fds: list[int] | None = None) -> None:
        if self._guardian.ending or self._source is not None:
            return
        self._leave_count += 1  # a source is back: whoever planned to end the stream finds another number
        start = InputStart(resumed=self._had_media, begins=not self._events.begun, source=self._given)
        if message is not None and fds is not None:
            start = replace(
                start, resumed=False, fd=fds[0], state_fd=fds[1], ring=create_ring(), request=message["request"]
            )
        self._events.begun = True
        started = time.monotonic()
        try:
            worker = self._fork(start)
        except OSError as error:
            self._not_started(error, start, message)
            return
        self._source = Source(worker, started, start, message)
        self._watch(self._source)
        self._tell_state()

    def _not_started(self, error: OSError, start: InputStart, message: Message | None) -> None:
        """Try again for a source that is pulled; a publisher is refused, and may come again."""
        log.error("The input cannot be started: %s", error.strerror)
        if message is None:
            self._guardian.reactor.call_later(RESTART_SOURCE_SECONDS, self._start_source)
        else:
            refusal = NotReady("The input of the stream cannot be started; try again")
            refuse(self._guardian.upstream, message, refusal, start.fds)
            self._plan_leave()

    def _fork(self, start: InputStart) -> WorkerHandle:
        return self._guardian.start_worker(self._make_main(start), start.fds)

    def _watch(self, source: Source) -> None:
        """Kill an input that hangs. One that takes what a publisher sends, or brings media, is not woken for that."""
        if self._plan.pulled:
            self._vigil.begin()
        else:
            self._guardian.reactor.call_later(LOOK_SECONDS, self._look, source)

    def _watched(self) -> Watched:
        source = self._source
        if source is not None:
            brought_us = self._table.clocks[4]
            source.look(brought_us, bool(self._table.subscribers()))
            yield source.worker, HANG_SECONDS if brought_us / 1e6 >= source.started else START_SECONDS

    def _look(self, source: Source) -> None:
        if self._source is not source or self._guardian.ending:
            return
        if source.fd >= 0 and source.start.admitted and source.hangs():
            log.error("The input (%d) does nothing with what its publisher sends; killing it", source.pid)
            source.worker.signal(signal.SIGKILL)
        self._guardian.reactor.call_later(LOOK_SECONDS, self._look, source)

    def _revive(self, source: Source) -> bool:
        """Go on with the source in another process than the one that was killed or gave way; False when that makes no sense."""
        if source.start.ring >= 0:
            if source.fd < 0 or not (source.yielded or source.may_live_on()):
                log.error("Publisher %s is disconnected: its input was killed again and again", source.host)
                return False
        elif not self._plan.pulled or not (source.yielded or self._worked(source)):
            return False
        else:
            self._backoff = Backoff()  # what failed before it worked says nothing any more
        worker = self._standby
        if worker is None:
            try:
                worker = self._fork(replace(source.start, resumed=True))
            except OSError as error:
                log.error("The input cannot be replaced: %s", error.strerror)
                return False
        else:
            worker.channel.send({"do": "go"})
        self._standby = None
        source.replaced_by(worker)
        self._source = source
        if self._waiting and self._table.status == StreamStatus.READY:
            self._became_ready()
        self._tell_state()
        return True

    def _worked(self, source: Source) -> bool:
        """Tell whether the process of a pulled source had brought media."""
        on_demand = self._table.on_demand and self._table.status == StreamStatus.READY
        return self._table.clocks[4] / 1e6 >= source.started or (on_demand and source.ran_seconds() >= SOUND_SECONDS)

    # -- planned replacement ---------------------------------------------------------------------------------------

    def replace_workers(self) -> None:
        """Let another process go on with the source: it is started first, and the old one stops at a clean point.

        One that runs the same code stays if another one would have to connect to the source again.
        """
        source = self._source
        if source is None or self._standby is not None or self._guardian.ending:
            return
        if source.worker.build == running_build():
            return
        connects = self._plan.pulled and not (self._given or self._plan.source).startswith("/")
        source.worker.stays = connects and is_same_edition(source.worker.build)
        if source.worker.stays:
            return
        if self._plan.pulled or source.fd >= 0:
            self._standby = self._fork(replace(source.start, resumed=True, standby=True))

    def _ask_to_yield(self) -> None:
        """The process that will go on is ready."""
        source = self._source
        if source is not None:
            source.worker.channel.send({"do": "yield"})
            self._guardian.reactor.call_later(YIELD_SECONDS, self._kill_unless_replaced, source.worker)

    def _go_on(self, source: Source) -> None:
        """Let the process that stands by go on: the former one has let go of everything, and only has to end."""
        if self._standby is not None and self._next is None and not self._guardian.ending:
            self._table.release_process(source.pid)
            self._revive(source)

    def _kill_unless_replaced(self, worker: WorkerHandle) -> None:
        if self._source is not None and self._source.worker is worker and self._standby is not None:
            worker.signal(signal.SIGKILL)

    def _dismiss_standby(self) -> None:
        if self._standby is not None:
            self._guardian.stop_worker(self._standby, "CLEAN_LIVE_BUFFER_REQ")
            self._standby = None

    # -- what processes say ----------------------------------------------------------------------------------------

    def worker_rejoined(self, worker: WorkerHandle, note: Message) -> None:
        """Take over the input of a former guardian."""
        if self._source is None:
            self._source = Source(worker, worker.started)
        elif self._source.worker is not worker:
            self._guardian.stop_worker(worker, "CLEAN_LIVE_BUFFER_REQ")  # another one feeds the stream by now
            return
        if self._table.status == StreamStatus.READY:
            self._became_ready()
        self._tell_state()

    def show(self) -> tuple[Message, Sequence[int]]:
        plan = self._plan
        state = int(self._table.status) if hasattr(self, "_table") else int(StreamStatus.INIT)
        feeder = self._source.pid if self._source is not None else 0
        return {"name": plan.name, "source": plan.source, "pulled": plan.pulled, "state": state, "input": feeder}, ()

    def is_settled(self) -> bool:
        return self._standby is None

    def may_retire(self) -> bool:
        source = self._source
        waits = self._next is not None or self._second is not None
        return not waits and self._standby is None and (source is None or source.publish is None)

    def retire(self) -> None:
        """What waits is asked for again, of the next guardian."""

    def worker_said(self, worker: WorkerHandle, message: Message, fds: list[int]) -> None:
        event = message.get("event")
        source = self._source
        if event == "standing by" and worker is self._standby:
            self._ask_to_yield()
        if source is None or source.worker is not worker:
            close_all(fds)
        elif event == "inventory":
            self._take_inventory(source, message, fds)
        else:
            close_all(fds)
            self._source_said(source, message)

    def _source_said(self, source: Source, message: Message) -> None:
        event = message.get("event")
        if event == "taken":
            self._source_taken(source, message)
        elif event == "ready":
            source.drop_state()
            self._became_ready()
        elif event == "yielded":
            source.yielded = True
        elif event == "left":
            self._go_on(source)
        elif event == "end":
            self._end(str(message.get("reason", "")))
        elif event == "refused":
            self._source_refused(source, message)
        elif event == "failed":
            source.failure = str(message.get("text", ""))
            source.reason = str(message.get("reason", ""))

    def _source_taken(self, source: Source, message: Message) -> None:
        """The handlers of triggers allow the source, and its process runs it."""
        if self._plan.pulled:
            self._events.input_name = str(message.get("input", ""))
        self._given = str(message.get("source", ""))
        source.taken(self._given)
        if source.publish is not None:
            reply(self._guardian.upstream, source.publish, ok=True)
            source.publish = None

    def _source_refused(self, source: Source, message: Message) -> None:
        """Tell who asked for the source that a handler of a trigger does not want it."""
        self._events.begun = False
        source.refused = True
        source.reason = str(message.get("reason", ""))
        error = AccessDenied(str(message.get("text", "")))
        if source.publish is not None:
            refuse(self._guardian.upstream, source.publish, error)
            source.publish = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            refuse(self._guardian.upstream, one, error)

    def _take_inventory(self, source: Source, message: Message, fds: list[int]) -> None:
        """Hold again what an input of a former guardian has: the publisher's socket and its ring."""
        start = InputStart(request=message["request"])
        if len(fds) == 2:
            start = replace(start, fd=fds[0], ring=fds[1])
        else:
            close_all(fds)
        source.has(start)
        self._watch(source)
        if message.get("admitted", True):
            self._source_taken(source, message)
        if source.worker.build != running_build() and self._guardian.may_replace:
            self.replace_workers()

    def bequeath(self, worker: WorkerHandle, status: int) -> bool:
        """Return False: an input has no viewers."""
        return False

    def worker_ended(self, worker: WorkerHandle, status: int) -> None:
        self._table.release_process(worker.pid)
        if status != 0:
            self._table.ring_everybody(self._ringer)
        if worker is self._standby:
            self._standby = None
            self._guardian.settle()
        if self._source is not None and self._source.worker is worker:
            self._source_ended(status)

    def _source_ended(self, status: int) -> None:
        source, self._source = self._source, None
        assert source is not None
        unclean = source.yielded or (status != 0 and not source.reason)
        if unclean and not source.yielded:
            self._events.killed(source, self._plan.source, status)
        if unclean and self._next is None and not self._guardian.ending and self._revive(source):
            return
        if unclean:
            self._events.publisher_lost(source)
        self._dismiss_standby()
        if status == 0 and source.fd >= 0 and not source.refused:
            self._hear_out(source)
        source.let_go()
        self._table.set_pids(input=0)
        if source.publish is not None:
            why = source.failure or "The input of the stream failed; try again"
            refuse(self._guardian.upstream, source.publish, NotReady(why))
        if self._guardian.ending:
            return
        self._set_status(StreamStatus.WAIT)
        following = self._next or self._second
        self._next = self._second = None
        if following is not None:
            self._start_source(*following)
        elif not self._plan.pulled:
            self._plan_leave()
        else:
            self._pull_again(source, status)

    def _hear_out(self, source: Source) -> None:
        """Read a publisher that said goodbye until it hangs up: closing at once would reset what it still sends."""
        sock = own(socket.socket(fileno=source.take(source.fd)))
        sock.setblocking(False)
        reactor = self._guardian.reactor

        def close() -> None:
            if sock.fileno() >= 0:
                reactor.remove_reader(sock.fileno())
                sock.close()

        def read() -> None:
            try:
                if not sock.recv(1 << 16):
                    close()
            except BlockingIOError:
                return
            except OSError:
                close()

        reactor.add_reader(sock.fileno(), read)
        reactor.call_later(HEAR_OUT_SECONDS, close)

    def _pull_again(self, source: Source, status: int) -> None:
        for message in self._waiting:
            refuse(self._guardian.upstream, message, NotReady(source.failure or "The source of the stream failed"))
        self._waiting.clear()
        if not self._always_on and (status == 0 or source.reason == START_FAILURE):
            self._end_recorded("CLEAN_EOF" if status == 0 else START_FAILURE)
            return
        delay = self._backoff.next_delay(source.ran_seconds())
        if status == 0:
            delay = max(delay, RESTART_SOURCE_SECONDS)
        self._guardian.reactor.call_later(delay, self._start_source)

    def _end_recorded(self, reason: str) -> None:
        """End the stream when every recording has it all."""
        if self._guardian.ending:
            return
        if self._is_awaited():
            self._guardian.reactor.call_later(RECORDER_SECONDS, self._end_recorded, reason)
        else:
            self._end(reason)

    def _is_awaited(self) -> bool:
        """Tell whether the recorder of a recording was killed and the next one is not there yet: it needs what is in memory."""
        return is_awaited(self._guardian.instance.push_notes, table_number(self._table), is_alive)

    # -- time-outs -------------------------------------------------------------------------------------------------

    def _plan_leave(self) -> None:
        """End the stream unless another publisher comes in time; viewers stay until then."""
        self._leave_count += 1
        count = self._leave_count
        delay = self._timeout if self._had_media else min(self._timeout, PUBLISHER_WAIT_SECONDS)
        self._guardian.reactor.call_later(delay, self._leave, count)

    def _leave(self, count: int) -> None:
        def idle() -> bool:
            return count == self._leave_count and self._source is None

        if idle() and self._is_awaited():
            self._guardian.reactor.call_later(RECORDER_SECONDS, self._leave, count)
        elif idle():
            self._events.ask_unload("CLEAN_INACTIVE", idle, self._end, self._plan_leave)

    def _check_s(self) -> float:
        return min(VIEWER_CHECK_SECONDS, input_timeout_part(self._snapshot, self._plan.name))

    def _check_viewers(self) -> None:
        """End a pulled stream that nobody has watched for long."""
        if self._guardian.ending:
            return
        now = time.monotonic()
        self._table.release_gone(self._ringer)
        if self._wanted():
            self._viewed_at = now
        elif now - self._viewed_at >= self._timeout:
            self._events.ask_unload("CLEAN_INACTIVE", lambda: not self._wanted(), self._end, self._stay)
            return
        self._guardian.reactor.call_later(self._check_s(), self._check_viewers)

    def _wanted(self) -> bool:
        return bool(self._always_on or self._waiting or self._table.subscribers())

    def _stay(self) -> None:
        self._viewed_at = time.monotonic()
        self._guardian.reactor.call_later(self._check_s(), self._check_viewers)
