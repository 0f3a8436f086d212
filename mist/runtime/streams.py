"""The main process's book of streams: which have a guardian, and which are to be kept running."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mist.errors import Busy, MistError, NotFound, NotReady
from mist.runtime.backoff import Backoff
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child, Family
from mist.runtime.guardian import guardian_main
from mist.runtime.input_worker import input_main
from mist.runtime.process import descendants, send_signal
from mist.runtime.program import Server
from mist.runtime.reactor import Reactor
from mist.runtime.snapshot import EMPTY, Snapshot, stream_settings
from mist.runtime.stream_guardian import StreamDuty, StreamPlan
from mist.stream.publisher import remove_stream
from mist.stream.state import StreamStatus

log = logging.getLogger(__name__)

PUSH = "push://"
ALWAYS_ON_RETRY_SECONDS = 3.0
MAX_PENDING = 1024

Answer = Callable[[Message], None]


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


@dataclass(eq=False)
class Pending:
    """A request that a guardian has not answered yet."""

    child: Child
    answer: Answer


class Streams:
    """Starts guardians of streams and passes requests to them."""

    def __init__(self, server: Server, family: Family, reactor: Reactor, changed: Callable[[], None]) -> None:
        self._server = server
        self._family = family
        self._reactor = reactor
        self._changed = changed
        self._snapshot: Snapshot = EMPTY
        self._streams: dict[str, Stream] = {}
        self._pending: dict[int, Pending] = {}
        self._last_id = 0
        self._closed = False
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
        for name, settings in self._snapshot["streams"].items():
            if settings.get("always_on") and name not in self._streams:
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
        self._ask(self._find_or_start(name), {"do": "start"}, answer)

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
        self._ask(stream, {"do": "publish", "request": request}, answer, fds)

    def stop(self, name: str, reason: str) -> None:
        """End a stream. Raises NotFound."""
        self._tell(self._find(name), {"do": "stop", "reason": reason})

    def nuke(self, name: str) -> None:
        """End a stream by force, whatever state it is in, and remove all that is left of it."""
        stream = self._streams.pop(name, None)
        if stream is not None and stream.child is not None:
            stream.ending = stream.child.stopping = True
            for pid in (*descendants(stream.child.pid), stream.child.pid):
                send_signal(pid, signal.SIGKILL)
        remove_stream(self._server.instance.name, name)
        self._changed()

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
        if stream.child is None:
            raise Busy(f"The stream {name} is being restarted; try again")
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
        chosen = self._server.program.input_for(source)
        if chosen is None:
            raise NotFound(f'The stream {name} has the source "{source}", which no input takes')
        return Stream(StreamPlan(name, source, pulled=True), chosen)

    def _ask(self, stream: Stream, message: Message, answer: Answer, fds: Iterable[int] = ()) -> None:
        assert stream.child is not None
        if len(self._pending) >= MAX_PENDING:
            close_all(tuple(fds))
            raise Busy("Too many requests wait for streams; try again")
        self._last_id += 1
        self._pending[self._last_id] = Pending(stream.child, answer)
        stream.child.channel.send({**message, "id": self._last_id}, tuple(fds), close=tuple(fds))

    # -- guardians -------------------------------------------------------------------------------------------------

    def _start(self, stream: Stream) -> None:
        if self._closed or stream.ending:
            return
        plan = stream.plan
        inputs = self._server.program.inputs

        def guard(channel: Channel) -> int:
            def make_main(fd: int, state_fd: int, request: Any) -> Any:
                connector = stream.input or str(request["input"])
                make = input_main(self._server, plan.name, plan.source, connector, inputs[connector])
                return make(fd, state_fd, request)

            return guardian_main(
                self._server, channel, lambda: StreamDuty(plan, make_main), f"input {plan.name}", plan.name
            )

        stream.child = self._family.start(
            f"guardian of {plan.name}",
            guard,
            on_message=lambda message: self._said(stream, message),
            on_ended=lambda status: self._ended(stream, status),
        )
        self._changed()

    def _said(self, stream: Stream, message: Message) -> None:
        if "reply" in message:
            pending = self._pending.pop(message.pop("reply"), None)
            if pending is not None:
                pending.answer(message)
            return
        if message.get("event") == "state":
            stream.state = int(message["state"])
            stream.input_pid = int(message["input"])
        self._changed()

    def _ended(self, stream: Stream, status: int) -> None:
        child, stream.child = stream.child, None
        assert child is not None
        for number, pending in tuple(self._pending.items()):
            if pending.child is child:
                del self._pending[number]
                pending.answer({"error": "NotReady", "text": f"The stream {stream.plan.name} has ended; try again"})
        if status == 0 or stream.ending or self._closed:
            if self._streams.get(stream.plan.name) is stream:
                del self._streams[stream.plan.name]
            self._plan_always_on()
        else:
            plan = stream.plan
            stream.plan = StreamPlan(plan.name, plan.source, plan.pulled, adopt=True)
            self._reactor.call_later(stream.backoff.next_delay(child.ran_seconds()), self._start, stream)
        self._changed()

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
