"""What outputs and inputs may ask of the process that runs them. The runtime implements these faces.

Outputs and inputs import no runtime: they get one of these objects, and tests give them a fake of a few lines.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mist.core.fanout import Fanout
    from mist.core.file_pump import FilePump
    from mist.stream.on_demand import OnDemandReader
    from mist.stream.publisher import StreamPublisher
    from mist.stream.reader import StreamReader
    from mist.stream.session_counts import ConnectionSnapshot
    from mist.stream.visits import Visit


class ConnectionRecord(Protocol):
    """One connection's fixed-size record in the worker's checkpoint table (shared memory): statistics and recovery.

    Written by the connection, read by the statistics and, after a crash, by the replacement.
    """

    def set_stream(self, stream: str) -> None: ...
    def set_host(self, host: str) -> None: ...
    def set_connector(self, connector: str) -> None: ...
    def set_token(self, token: str) -> None: ...
    def add_bytes(self, down: int, up: int) -> None: ...
    def set_position(self, media_us: int) -> None: ...
    def close(self) -> None: ...


class Triggers(Protocol):
    """Fires triggers (`mist.stream.triggers`); costs nothing where no handler is configured. lines: of the payload."""

    def wanted(self, name: str, stream: str = "") -> Sequence[object]:
        """Return the handlers of a trigger, so that a payload that is dear to make is only made for somebody."""
        ...

    def notify(self, name: str, stream: str, lines: Sequence[str]) -> None: ...

    async def allows(self, name: str, stream: str, lines: Sequence[str]) -> bool:
        """Return whether all handlers allow."""
        ...

    async def replace(self, name: str, stream: str, lines: Sequence[str], value: str) -> str:
        """Return what the handlers make of a value."""
        ...

    async def statistics(self) -> Mapping[str, Mapping[str, int]]:
        """Return for each trigger that was fired how often (count), for how long (ms), and how often in vain (fails)."""
        ...


class Handlers(Triggers, Protocol):
    """What only the controller asks of the process that runs the handlers of triggers."""

    async def statistics(self) -> Mapping[str, Mapping[str, int]]:
        """Return {trigger: {"count", "ms", "fails"}}; {} where no handler was ever called."""
        ...

    async def test(self, name: str, stream: str, lines: Sequence[str]) -> list[dict[str, Any]]:
        """Fire a trigger and return {"handler", "blocking", "answer", "error", "ms"} of each. Raises MistError."""
        ...

    async def variable(self, name: str, target: str, seconds: float) -> str:
        """Return the new value of a custom variable from its command or URL. Raises MistError."""
        ...


class OutputServices(Protocol):
    """What a worker gives to the connections it serves."""

    instance: str
    config: Mapping[str, Any]  # the whole configuration snapshot, replaced (never changed) on reload
    loop: asyncio.AbstractEventLoop
    log: logging.Logger
    triggers: Triggers
    fanout: Fanout
    file_pump: FilePump  # sends from files, for all connections

    def visit(self, record: ConnectionRecord) -> Visit | None:
        """Return what fires the triggers of the connection that has a record, None where no handlers are configured."""
        ...

    async def open_stream(self, name: str, visit: Visit | None = None) -> StreamReader:
        """Return a reader of a playable stream, starting its input when it is not running.

        name: as the client wrote it; sanitised here. visit: who asks. Raises NotFound, NotReady, AccessDenied.
        Readers are shared by all connections of the worker: give each back with `close_stream`.
        """
        ...

    def close_stream(self, reader: StreamReader) -> None: ...

    def reopen_stream(self, name: str) -> StreamReader | None:
        """Return a reader for a viewer of another process, None when the stream has gone; `close_stream` as for `open_stream`."""
        ...

    def take_arena(self, number: int) -> int | None:
        """Return the descriptor of a group's memory that came from another process, None when there is none; the caller's now."""
        ...

    @property
    def guarded(self) -> bool:
        """Whether anybody decides about viewers, so that each must be admitted."""
        ...

    async def admit(self, stream: str, host: str, token: str, connector: str, url: str) -> None:
        """Raise AccessDenied when the session that a viewer belongs to may not watch; free where nobody decides.

        stream: full name. Called before the connection's record names the stream, with the same names.
        """
        ...

    def tell_agent(self, names: tuple[str, str, str, str], agent: str, seconds: float) -> None:
        """Have a viewer's session say what it is watched with, as a tag, after some seconds.

        names: stream, connector, host and token of the connection's record.
        """
        ...

    async def publishing_stream(self, token: str, host: str) -> str:
        """Return the stream that a token, shown in place of a stream key, allows to publish to. Raises AccessDenied."""
        ...

    def on_demand(self, reader: StreamReader) -> OnDemandReader:
        """Return what plays the media of a reader of `open_stream` that is not live. Raises NotFound.

        Shared by all connections of the worker, and valid until the reader is given back.
        """
        ...

    def keep_socket(self, fd: int, close: Callable[[str], None]) -> Callable[[str], None]:
        """Note that a connection goes on in a descriptor that was taken from its response.

        close: called with a reason when the worker has to end. Returns what to call, with the reason, once the descriptor is closed.
        """
        ...

    def open_record(self, connector: str, host: str) -> ConnectionRecord: ...

    async def hand_over_publisher(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        """Give an accepted publisher's socket to the input of its stream, and return once that input has it.

        request: {"stream", "input" (name of the input module), "connector", "host", ...} JSON-able. state: the
        engine's exported state plus unread bytes. After it returns, the caller closes its copy of fd without shutdown.
        Raises Busy, AccessDenied, NotFound with the text for the peer; the caller still has the socket then.
        """
        ...


class Closable(Protocol):
    """What is closed when it is no longer needed."""

    def close(self) -> None: ...


class InputServices(Protocol):
    """What an input process gives to the input it runs."""

    instance: str
    stream: str  # full name
    source: str
    config: Mapping[str, Any]  # the stream's own configuration
    server_config: Mapping[str, Any]  # the settings of the whole server
    loop: asyncio.AbstractEventLoop
    log: logging.Logger
    triggers: Triggers
    publisher: StreamPublisher
    record: ConnectionRecord
    fd: int  # a publisher's socket that was handed over, or -1
    ring: int  # memory of the connection that outlives this process (mist.net.receive_ring), or -1
    request: Mapping[str, Any]  # what came with it
    state: bytes
    ahead: Any  # what the input's `begin_ahead`, if it has one, returned in this process, or None; taken by who uses it
    on_yield: (
        Callable[[], None] | None
    )  # set by an input that can let another process go on at a clean point; called once

    def variables(self) -> Mapping[str, str]:
        """Return the values of all variables as they are now, in the order in which they are replaced."""
        ...

    def serve_spans(
        self,
        answer: Callable[[int], Awaitable[tuple[int, Mapping[str, Any]]]],
        answer_layout: Callable[[Mapping[str, Any]], Awaitable[tuple[int, Mapping[str, Any]]]],
    ) -> Closable:
        """Let workers ask for spans of the stream, and for the layout of whole files made from them.

        answer: returns for a span's number, at once or later, the descriptor of its memory, which stays the input's, and
        {"tracks": its tracks as text}. answer_layout: the same for a description (`mist.stream.layouts`). Both raise MistError,
        whose text the viewer is told.
        """
        ...


class ControlServices(Protocol):
    """What the controller may ask of the processes that do the work. It never waits for media."""

    instance: str
    loop: asyncio.AbstractEventLoop
    log: logging.Logger
    triggers: Handlers
    capabilities: Mapping[str, Any]  # {"connectors": {name: document}, "inputs": {name: document}, "processes": {}}
    # Called when the operator wants the configuration file read again, or (True) only if it has changed; returns why it was not,
    # or "".
    on_reload: Callable[[bool], Awaitable[str]]
    asked_to_leave: bool  # to another controller, which goes on; when nobody is connected to the API

    def prepare_streams(self, streams: Mapping[str, Mapping[str, Any]]) -> None:
        """Do a part of `publish_config` ahead: for some streams, by name, that the next snapshot will have."""
        ...

    def publish_config(self, snapshot: Mapping[str, Any]) -> None:
        """Write the immutable snapshot that all processes read, and tell them; listeners follow `config.protocols`."""
        ...

    async def config_taken(self, seconds: float) -> None:
        """Wait until what was published last holds for whatever begins from now on, or until some seconds have passed."""
        ...

    def tell_identity(self, identity: str) -> None:
        """Tell all processes what this controller is called (`iid`)."""
        ...

    def load_state(self) -> bytes:
        """Return what a controller of this server gave to `save_state` last, b"" for the first one."""
        ...

    def save_state(self, data: bytes) -> None:
        """Keep what the next controller is to know, as long as the server runs."""
        ...

    def run_beside(self, work: Callable[[], bytes], done: Callable[[bytes | None, float], None]) -> Callable[[], None]:
        """Do something in a forked process, on what is known now.

        done: called with what it returned, None if it failed, and the seconds of a core that it took. Returns what ends it.
        """
        ...

    def listener_states(self) -> Mapping[str, Any]:
        """Return {canonical JSON of the protocol entry without "online": 1 | 0 | error text} for the listeners."""
        ...

    def connections(self) -> list[ConnectionSnapshot]: ...

    def streams(self) -> list[str]:
        """Return the full names of all streams that have a table in shared memory."""
        ...

    def open_reader(self, name: str) -> StreamReader:
        """Return a reader for looking (not for media) or raise NotFound; the caller closes it."""
        ...

    def stream_pids(self, name: str) -> list[int]: ...

    async def start_stream(self, name: str) -> None: ...

    def pushes(self) -> list[Mapping[str, Any]]:
        """Return the pushes that run or have ended lately: the members of `PushPlan`, "status" and "result"."""
        ...

    async def start_push(self, stream: str, requested: str, target: str) -> int:
        """Start a push and return its number. Raises NotFound, LimitExceededError."""
        ...

    async def stop_push(self, number: int, *, gracefully: bool = False) -> None:
        """End a push, gracefully after its destination has taken what there is. Raises NotFound."""
        ...

    async def stop_stream(self, name: str, reason: str) -> None: ...

    async def nuke_stream(self, name: str) -> None: ...

    def end_connections(self, records: Iterable[int]) -> None:
        """Break connections, by the identifiers of their records; those that have ended are passed over."""
        ...

    def invalidate_sessions(self, streams: Iterable[str]) -> None:
        """Let whoever decides about the viewers of some streams do so again."""
        ...

    def shutdown(self, reason: str, *, failed: bool = False) -> None: ...
