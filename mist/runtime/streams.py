"""The main process's book of streams: which have a guardian, and which are to be kept running."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mist.core.doorbell import Ringer
from mist.core.track_buffer import open_table
from mist.errors import Busy, MistError, NotFound, NotReady, StreamEnded
from mist.runtime.backoff import Backoff
from mist.runtime.book import MAX_JOINING, Around, Book, pass_on_all
from mist.runtime.build import is_after_crash, running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child
from mist.runtime.guardian import RETIRED, guardian_main
from mist.runtime.input_worker import input_main
from mist.runtime.process import descendants, send_signal
from mist.runtime.rejoin import refuse
from mist.runtime.snapshot import EMPTY, Snapshot, always_on, stream_settings
from mist.runtime.stream_guardian import StreamDuty, StreamPlan
from mist.runtime.stream_source import InputStart
from mist.stream.names import stream_prefix
from mist.stream.publisher import remove_stream
from mist.stream.state import StreamStatus
from mist.stream.triggers import handlers
from mist.stream.variables import replace_in

log = logging.getLogger(__name__)

KIND = "stream"  # the first word of the names of guardians of streams
PUSH = "push://"
ALWAYS_ON_RETRY_SECONDS = 3.0
MAX_PENDING = 1024

Answer = Callable[[Message], None]


@dataclass(eq=False)
class Held:
    """A request that waits for the stream's next guardian. again: the stream has ended with it before."""

    message: Message
    answer: Answer
    fds: tuple[int, ...] = ()
    again: bool = False


@dataclass(eq=False)
class Stream:
    """One stream that has a guardian, or soon has one again."""

    plan: StreamPlan
    input: str
    child: Child | None = None
    state: int = int(StreamStatus.INIT)
    input_pid: int = 0
    ending: bool = False
    keyed: bool = False  # not configured: a stream key made it
    backoff: Backoff = field(default_factory=Backoff)
    joining: list[tuple[Message, list[int]]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{KIND} {self.plan.name}"


@dataclass(eq=False)
class Pending:
    """A request that a guardian has not answered yet; its descriptors have gone there."""

    child: Child
    held: Held


class Streams(Book):
    """Starts guardians of streams and passes requests to them."""

    def __init__(self, *around: *Around) -> None:
        super().__init__(*around)
        self._snapshot: Snapshot = EMPTY
        self._streams: dict[str, Stream] = {}
        self._pending: dict[int, Pending] = {}
        self._last_id = 0
        self._retry_planned = False

    # -- following the configuration -------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """End streams that are gone or have another source, tell the others, start those that are always on."""
        self._snapshot = snapshot
        for name, stream in tuple(self._streams.items()):
            settings = stream_settings(snapshot, name)
            gone = not stream.keyed if settings is None else settings.get("source") != stream.plan.source
            if gone:
                self._tell(stream, {"do": "stop", "reason": "CLEAN_CONTROLLER_REQ"})
            else:
                self._tell(stream, {"do": "config"})
        self._keep_always_on()

    def _keep_always_on(self) -> None:
        self._retry_planned = False
        if self._closed:
            return
        for name in always_on(self._snapshot):
            if name not in self._streams:
                try:
                    self._find_or_start(name)
                except NotReady:
                    continue  # a publisher starts it
                except MistError as error:
                    log.error("Cannot start: %s", error, extra={"stream": name})

    def _plan_always_on(self) -> None:
        if not self._retry_planned:
            self._retry_planned = True
            self._reactor.call_later(ALWAYS_ON_RETRY_SECONDS, self._keep_always_on)

    def tell(self, message: Message) -> None:
        """Send a message to the guardians of all streams."""
        for stream in self._streams.values():
            self._tell(stream, message)

    def _tell(self, stream: Stream, message: Message) -> None:
        if stream.child is not None:
            stream.child.channel.send(message)

    # -- requests --------------------------------------------------------------------------------------------------

    def start(self, name: str, answer: Answer) -> None:
        """Start a stream's input if it does not run; answer when it plays. Raises NotFound, NotReady."""
        self._ask(self._find_or_start(name), Held({"do": "start"}, answer))

    def publish(self, name: str, request: Message, fds: list[int], answer: Answer) -> None:
        """Give a publisher's socket and state to a stream; the descriptors are this method's. Raises NotFound, Busy."""
        try:
            connector = self._server.program.find_input(str(request.get("input", "")))
            if connector is None:
                raise NotFound(f'No input is called "{request.get("input", "")}"')
            request["input"] = connector
            stream = self._find_or_start(name, publishing=True, key_source=str(request.get("source", "")))
        except MistError:
            close_all(fds)
            raise
        self._ask(stream, Held({"do": "publish", "request": request}, answer, tuple(fds)))

    def stop(self, name: str, reason: str) -> None:
        """End a stream. Raises NotFound."""
        self._tell(self._find(name), {"do": "stop", "reason": reason})

    def nuke(self, name: str) -> bool:
        """End a stream by force, whatever state it is in, and remove all that is left of it. Returns whether there was any."""
        stream = self._streams.pop(name, None)
        if stream is not None:
            stream.ending = True
        if stream is not None and stream.child is not None:
            stream.child.stopping = True
            self._succession.done(stream)
            for pid in {*descendants(stream.child.pid), stream.input_pid, stream.child.pid} - {0}:
                send_signal(pid, signal.SIGKILL)
        left = remove_stream(self._server.instance.name, name, Ringer(str(self._server.instance.bells)))  # viewers wait
        if stream is not None and stream.child is None:  # it waited for its next guardian
            self._let_go(stream)
        self._changed()
        return left or stream is not None

    def _find(self, name: str) -> Stream:
        if name not in self._streams:
            raise NotFound(f"The stream {name} does not run")
        return self._streams[name]

    def _find_or_start(self, name: str, *, publishing: bool = False, key_source: str = "") -> Stream:
        """Return a stream that has a guardian. key_source: the source of a stream that a stream key alone makes."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._plan(name, publishing, key_source)
            self._streams[name] = stream
            self._start(stream)
        return stream

    def _plan(self, name: str, publishing: bool, key_source: str) -> Stream:
        if self._closed:
            raise NotReady("The server is shutting down")
        settings = stream_settings(self._snapshot, name)
        if settings is None and not key_source:
            raise NotFound(f"The stream {name} is not configured")
        source = str((settings or {}).get("source", "")) or key_source
        if source.startswith(PUSH):
            if not publishing:
                raise NotReady(f"The stream {name} is offline: nobody publishes it")
            return Stream(StreamPlan(name, source, pulled=False), "", keyed=settings is None)
        chosen = self._server.program.input_for(replace_in(source, name, self._snapshot)) or ""
        if not chosen and not handlers(self._snapshot["config"], "STREAM_SOURCE", name):
            raise NotFound(f'The stream {name} has the source "{source}", which no input takes')
        return Stream(StreamPlan(name, source, pulled=True), chosen)

    def _ask(self, stream: Stream, request: Held) -> None:
        if len(self._pending) + len(stream.held) >= MAX_PENDING:
            close_all(request.fds)
            raise Busy("Too many requests wait for streams; try again")
        stream.held.append(request)
        self._pass_on(stream)

    def _pass_on(self, stream: Stream) -> None:
        """Give a stream's guardian what waits for it, if there is one and it stays."""
        child = stream.child
        if child is None or child.stopping:
            return
        held, stream.held = stream.held, []
        for one in held:
            self._last_id += 1
            self._pending[self._last_id] = Pending(child, one)
            child.channel.send({**one.message, "id": self._last_id}, one.fds, close=one.fds)
        pass_on_all(child, stream.joining)

    # -- processes of former guardians and main processes ----------------------------------------------------------

    def take(self, message: Message, fds: list[int]) -> None:
        """Take over a guardian whose main process is gone."""
        note = message["note"]
        plan = StreamPlan(str(note["name"]), str(note["source"]), bool(note["pulled"]), adopt=True)
        stream = self._streams.get(plan.name)
        if stream is not None and stream.child is not None:
            self._retire_late(message, fds)
            return
        if stream is None:
            stream = self._streams[plan.name] = self._former(plan)
        stream.state, stream.input_pid = int(note["state"]), int(note["input"])
        stream.child = self._family.adopt(
            f"The guardian of {plan.name}",
            message,
            fds[:2],
            on_message=lambda child, message, fds: self._said(stream, message, fds),
            on_ended=lambda child, status: self._ended(stream, status),
        )
        if stream.child is None:
            del self._streams[plan.name]
            return
        if stream.child.build != running_build():
            self._give_way(stream, stream.child)
        self._pass_on(stream)
        self._changed()

    def _former(self, plan: StreamPlan) -> Stream:
        """Return the book's entry of a stream that a former main process had started."""
        keyed = stream_settings(self._snapshot, plan.name) is None
        return Stream(plan, (self._server.program.input_for(plan.source) or "") if plan.pulled else "", keyed=keyed)

    def pass_on(self, message: Message, fds: list[int]) -> None:
        """Give an input whose guardian is gone to the next one, which is started for it if need be."""
        name = str(message["to"]).removeprefix(f"{KIND} ")
        stream = self._streams.get(name)
        if stream is None:
            stream = self._revive(name, message.get("note", {}))
        if stream is None or stream.ending or len(stream.joining) >= MAX_JOINING:
            refuse(fds, "its stream has ended")
            return
        stream.joining.append((message, fds))
        self._pass_on(stream)

    def _revive(self, name: str, note: Message) -> Stream | None:
        """Start a guardian for an input that lost its own together with the main process; None when it ended."""
        try:
            source = open_table(stream_prefix(self._server.instance.name, name)).source
        except MistError:
            return None
        plan = StreamPlan(name, source, not source.startswith(PUSH), adopt=True)
        stream = self._streams[name] = self._former(plan)
        self._start(stream, is_after_crash())
        return stream

    def is_busy(self) -> bool:
        """Tell whether a publisher's socket is on its way to an input."""
        return any(one.held.fds for one in self._pending.values())

    # -- guardians -------------------------------------------------------------------------------------------------

    def _start(self, stream: Stream, patient: bool = False) -> None:
        """Start a stream's guardian. patient: its input is not to be replaced before it is its turn."""
        if self._closed or stream.ending:
            return
        plan = stream.plan
        inputs = self._server.program.inputs

        def guard(channel: Channel) -> int:
            def make_main(start: InputStart) -> Any:
                connector = stream.input or str(start.request.get("input", ""))
                return input_main(self._server, plan.name, plan.source, connector, inputs.get(connector))(start)

            title = f"input {plan.name}"
            return guardian_main(
                self._server,
                channel,
                lambda: StreamDuty(plan, make_main),
                title,
                stream.name,
                plan.name,
                patient=patient,
            )

        try:
            stream.child = self._family.start(
                f"The guardian of {plan.name}",
                guard,
                on_message=lambda child, message, fds: self._said(stream, message, fds),
                on_ended=lambda child, status: self._ended(stream, status),
            )
        except OSError as error:
            log.error("Cannot start a guardian: %s", error.strerror, extra={"stream": plan.name})
            self._reactor.call_later(stream.backoff.next_delay(0.0), self._start_again, stream, patient)
            return
        if patient:
            self._await_turn(stream)
        self._pass_on(stream)
        self._changed()

    def _start_again(self, stream: Stream, patient: bool) -> None:
        """Start a guardian after a delay, if the stream is still in the book."""
        if self._streams.get(stream.plan.name) is stream:
            self._start(stream, patient)

    def _said(self, stream: Stream, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if "reply" in message:
            pending = self._pending.pop(message.pop("reply"), None)
            if pending is not None:
                pending.held.answer(message)
            return
        if message.get("event") == "state":
            stream.state = int(message["state"])
            stream.input_pid = int(message["input"])
        elif message.get("event") == "settled" and stream.child is not None and stream.child.build == running_build():
            self._succession.done(stream)
        self._changed()

    def _ended(self, stream: Stream, status: int) -> None:
        child, stream.child = stream.child, None
        assert child is not None
        goes_on = status != 0 and not stream.ending and not self._closed
        self._requeue(stream, child, NotReady if goes_on else StreamEnded)
        if goes_on:
            plan = stream.plan
            stream.plan = StreamPlan(plan.name, plan.source, plan.pulled, adopt=True)
            delay = 0.0 if status == RETIRED else stream.backoff.next_delay(child.ran_seconds())
            patient = status != RETIRED and is_after_crash()
            if delay:
                self._reactor.call_later(delay, self._start_again, stream, patient)
            else:
                self._start(stream, patient)
        else:
            if self._streams.get(stream.plan.name) is stream:
                del self._streams[stream.plan.name]
            self._let_go(stream)
        self._changed()

    def _let_go(self, stream: Stream) -> None:
        """Answer all who wait for a stream that is not in the book any more."""
        self._succession.done(stream)
        for _, fds in stream.joining:
            refuse(fds, "its stream has ended")
        stream.joining.clear()
        self._start_anew(stream)
        self._plan_always_on()

    def _requeue(self, stream: Stream, child: Child, refusal: type[NotReady]) -> None:
        """Keep what an ended guardian has not answered for the next one; a publisher whose descriptors it had is refused.

        refusal: StreamEnded where nobody has them any more, so that they may be sent again.
        """
        unanswered: list[Held] = []
        for number, pending in tuple(self._pending.items()):
            if pending.child is child:
                del self._pending[number]
                if pending.held.fds:
                    pending.held.answer(_ended_answer(stream, refusal))
                else:
                    unanswered.append(pending.held)
        stream.held[:0] = unanswered

    def _start_anew(self, stream: Stream) -> None:
        """Ask what came while the stream ended of a new one, once; say of the rest that it has ended."""
        held, stream.held = stream.held, []
        for one in held:
            if one.fds or one.again or stream.ending or self._closed:
                close_all(one.fds)
                one.answer(_ended_answer(stream))
                continue
            try:
                self._ask(self._find_or_start(stream.plan.name), replace(one, again=True))
            except MistError as error:
                one.answer({"error": type(error).__name__, "text": str(error)})

    def states(self) -> list[dict[str, Any]]:
        """Return what the streams do, for the status."""
        return [
            {
                "stream": name,
                "source": stream.plan.source,
                "input": stream.input,
                "state": stream.state,
                "guardian": stream.child.pid if stream.child else 0,
                "pid": stream.input_pid,
            }
            for name, stream in sorted(self._streams.items())
        ]

    def close(self) -> None:
        """Start nothing any more."""
        self._closed = True


def _ended_answer(stream: Stream, refusal: type[NotReady] = StreamEnded) -> Message:
    return {"error": refusal.__name__, "text": f"The stream {stream.plan.name} has ended; try again"}
