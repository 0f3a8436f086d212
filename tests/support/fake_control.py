"""A controller without processes: the face the runtime gives it, answered from ordinary memory, and a clock to turn.

control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})
control.services.connect("live", "FLV")
control.second()
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mist.controller.beside import Beside
from mist.controller.state import Controller
from mist.controller.store import Store
from mist.errors import NotFound
from mist.stream.session_counts import ConnectionSnapshot
from tests.support.fake_stream import FakeReader, FakeStream

START = 1_700_000_000
CAPABILITIES: dict[str, Any] = {
    "connectors": {
        "HTTP": {"name": "HTTP", "provides": "HTTP", "optional": {"wrappers": {"type": "string"}}},
        "RTMP": {"name": "RTMP", "optional": {"maxkbps": {"type": "uint", "min": 0, "max": 9000}}},
        "DTSC": {"name": "DTSC"},
        "FLV": {"name": "FLV", "deps": "HTTP", "url_match": ["/$.flv"]},
        "TS": {"name": "TS", "required": {"streamname": {"type": "str"}}},
        "TSRIST": {"name": "TSRIST", "PUSHONLY": True},
    },
    "inputs": {"Buffer": {"name": "Buffer", "source_match": ["push://*"], "optional": {"pass": {"type": "string"}}}},
    "processes": {},
}


class Clock:
    """Unix and monotonic seconds that only move when told to."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    """Remembers log records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self, kind: str = "") -> list[str]:
        """Return the messages, of one kind if asked for."""
        return [record.getMessage() for record in self.records if not kind or getattr(record, "kind", "") == kind]


class LookingReader(FakeReader):
    """A reader that can be closed, as the controller's are."""

    def close(self) -> None:
        """Let go of nothing."""


SNAPSHOT_FIELDS = (
    "pid", "connector", "stream", "host", "token", "started_us", "updated_us", "down_bytes", "up_bytes", "position_us",
    "packets", "packets_lost", "packets_retransmitted", "active", "record_id",
)  # fmt: skip


class FakeTriggers:
    """Notes what is fired: (name, stream, lines). refused: triggers that are denied; values: answers by trigger, and of variables
    by name; counts: of what was fired.
    """

    def __init__(self) -> None:
        self.fired: list[tuple[str, str, list[str]]] = []
        self.refused: set[str] = set()
        self.values: dict[str, str] = {}
        self.counts: dict[str, dict[str, int]] = {}

    def wanted(self, name: str, stream: str = "") -> list[object]:
        return [name]

    def notify(self, name: str, stream: str, lines: Sequence[str]) -> None:
        self.fired.append((name, stream, list(lines)))

    async def allows(self, name: str, stream: str, lines: Sequence[str]) -> bool:
        self.notify(name, stream, lines)
        return name not in self.refused

    async def replace(self, name: str, stream: str, lines: Sequence[str], value: str) -> str:
        self.notify(name, stream, lines)
        return self.values.get(name, value)

    async def statistics(self) -> Mapping[str, Mapping[str, int]]:
        return self.counts

    async def test(self, name: str, stream: str, lines: Sequence[str]) -> list[dict[str, Any]]:
        return []

    async def variable(self, name: str, target: str, seconds: float) -> str:
        return self.values[name]


class FakeControl:
    """The runtime's face to the controller. streams_by_name: the active ones; snapshots: connections by record id."""

    def __init__(self, clock: Clock, capabilities: Mapping[str, Any] = CAPABILITIES) -> None:
        self.instance = "test"
        self.capabilities = capabilities
        self.clock = clock
        self.lines = Lines()
        self.log = logging.Logger("mist.test", logging.DEBUG)
        self.log.addHandler(self.lines)
        self.streams_by_name: dict[str, FakeStream] = {}
        self.snapshots: dict[int, ConnectionSnapshot] = {}
        self.states: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.pushed: list[Mapping[str, Any]] = []
        self.told: int | None = None  # of how many pushes the main process has told
        self.triggers = FakeTriggers()
        self.done: list[tuple[str | int, ...]] = []
        self.on_reload: Callable[[bool], Awaitable[str]]
        self.asked_to_leave = False
        self.state = b""

    def load_state(self) -> bytes:
        return self.state

    def tell_identity(self, identity: str) -> None:
        """Tell nobody."""

    def save_state(self, data: bytes) -> None:
        self.state = data

    def run_beside(self, work: Callable[[], bytes], done: Callable[[bytes | None, float], None]) -> Callable[[], None]:
        self.loop.call_soon(done, work(), 0.0)
        return lambda: None

    def prepare_streams(self, streams: Mapping[str, Mapping[str, Any]]) -> None:
        """Prepare nothing."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def publish_config(self, snapshot: Mapping[str, Any]) -> None:
        self.published.append(json.loads(json.dumps(snapshot)))

    async def config_taken(self, seconds: float) -> None:
        """Wait for nobody."""

    def listener_states(self) -> Mapping[str, Any]:
        return self.states

    def connections(self) -> list[ConnectionSnapshot]:
        return list(self.snapshots.values())

    def streams(self) -> list[str]:
        return sorted(self.streams_by_name)

    def open_reader(self, name: str) -> Any:
        if name not in self.streams_by_name:
            raise NotFound(f"There is no stream {name}")
        return LookingReader(self.streams_by_name[name])

    def stream_pids(self, name: str) -> list[int]:
        return [4711] if name in self.streams_by_name else []

    def pushes(self) -> list[Mapping[str, Any]]:
        return self.pushed[: self.told]

    async def start_push(self, stream: str, requested: str, target: str) -> int:
        number = len(self.pushed) + 1
        plan = {"number": number, "stream": stream, "requested": requested, "target": target, "connector": "FLV"}
        self.pushed.append({**plan, "status": None, "result": None})
        return number

    async def stop_push(self, number: int, *, gracefully: bool = False) -> None:
        self.pushed = [{**one, "result": {}} if one["number"] == number else one for one in self.pushed]

    async def start_stream(self, name: str) -> None:
        self.done.append(("start", name))

    async def stop_stream(self, name: str, reason: str) -> None:
        self.done.append(("stop", name, reason))

    async def nuke_stream(self, name: str) -> None:
        self.done.append(("nuke", name))

    def end_connections(self, records: Iterable[int]) -> None:
        self.done.append(("end", *sorted(records)))

    def invalidate_sessions(self, streams: Iterable[str]) -> None:
        self.done.append(("invalidate", *streams))

    def shutdown(self, reason: str, *, failed: bool = False) -> None:
        self.done.append(("shutdown", reason))

    # -- what tests do -------------------------------------------------------------------------------------------------

    def connect(self, stream: str, connector: str, host: str = "203.0.113.7", token: str = "") -> int:
        """Add a connection that begins now; returns its record id."""
        record_id = max(self.snapshots, default=0) + 1
        now_us = int(self.clock.now * 1_000_000)
        self.snapshots[record_id] = ConnectionSnapshot(
            pid=100 + record_id, connector=connector, stream=stream, host=host, token=token, started_us=now_us,
            updated_us=now_us, down_bytes=0, up_bytes=0, position_us=0, packets=0, packets_lost=0,
            packets_retransmitted=0, active=True, record_id=record_id,
        )  # fmt: skip
        return record_id

    def update(self, record_id: int, **fields: Any) -> None:
        """Change fields of a connection; `sent` and `received` add bytes."""
        snapshot = self.snapshots[record_id]
        sent, received = fields.pop("sent", 0), fields.pop("received", 0)
        counters = {"down_bytes": snapshot.down_bytes + sent, "up_bytes": snapshot.up_bytes + received}
        now = {name: getattr(snapshot, name) for name in SNAPSHOT_FIELDS}
        self.snapshots[record_id] = ConnectionSnapshot(**{**now, **counters, **fields})

    def disconnect(self, record_id: int) -> None:
        """Remove a connection's record."""
        del self.snapshots[record_id]


class ControllerUnderTest:
    """A controller on fakes. services, clock: what it stands on; path: its configuration file."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.clock = Clock()
        self.services = FakeControl(self.clock)
        store = Store(path, self.services.capabilities, self.services.log, Beside(self.services.run_beside), **options)
        self.controller = Controller(self.services, store, clock=self.clock, monotonic=self.clock)  # type: ignore[arg-type]
        self.controller.publish(store.config)

    def check(self) -> None:
        """Let what happens every three seconds happen."""
        asyncio.run(self.controller.check())

    def reload(self) -> str:
        """Let the file be read again; returns what is wrong with it."""
        return asyncio.run(self.controller.reload("Test"))

    def second(self, count: int = 1) -> None:
        """Let seconds pass."""
        for _ in range(count):
            self.clock.now += 1
            self.controller.tick()


def make_controller(folder: Path, document: Mapping[str, Any] | None = None, **options: Any) -> ControllerUnderTest:
    """Return a controller whose configuration file holds a document, or does not exist."""
    path = folder / "config.json"
    if document is not None:
        path.write_text(json.dumps(document))
    return ControllerUnderTest(path, **options)
