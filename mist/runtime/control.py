"""What the controller may ask of the processes that do the work; implements `mist.stream.services.ControlServices`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from mist.core.checkpoint import CheckpointTable, open_checkpoints
from mist.errors import MistError, NotFound
from mist.runtime.instance import SHARED_MEMORY, Instance
from mist.runtime.snapshot import canonical, write_snapshot
from mist.runtime.worker import SpawnerClient
from mist.stream.reader import StreamReader, list_streams
from mist.stream.state import ConnectionSnapshot

ENDED_LINGER_US: Final = 20_000_000
_TABLE: Final = re.compile(r"#(\d+)-(\d+)")


class Control:
    """The controller's hands: configuration out, figures in, requests to the spawner."""

    def __init__(self, instance: Instance, capabilities: Mapping[str, Any]) -> None:
        self.place = instance
        self.instance = instance.name
        self.loop = asyncio.get_running_loop()
        self.log = logging.getLogger("mist")
        self.capabilities = capabilities
        self.spawner = SpawnerClient(instance, self.loop)
        self._tables: dict[str, CheckpointTable] = {}
        self._listeners: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.warning("%s", error)

    def publish_config(self, snapshot: Mapping[str, Any]) -> None:
        write_snapshot(self.place, snapshot)
        self._background(self._apply())

    async def _apply(self) -> None:
        await self.spawner.ask({"do": "apply"})
        await self.refresh_listeners()

    async def refresh_listeners(self) -> None:
        """Fetch the listeners' states from the spawner."""
        status = await self.spawner.ask({"do": "status"})
        self._listeners = {canonical(one["entry"]): one["state"] for one in status["listeners"]}

    def listener_states(self) -> Mapping[str, Any]:
        self._background(self.refresh_listeners())
        return self._listeners

    def connections(self) -> list[ConnectionSnapshot]:
        from time import time_ns

        present = {path.name for path in SHARED_MEMORY.glob(f"mist.{self.instance}.#*")}
        for name in [name for name in self._tables if name not in present]:
            del self._tables[name]
        since = time_ns() // 1000 - ENDED_LINGER_US
        found: list[ConnectionSnapshot] = []
        for name in present:
            table = self._table(name)
            if table is not None:
                prefix = table_number(name)
                found.extend(snapshot_of(prefix, row) for row in table.snapshot(since))
        return found

    def _table(self, name: str) -> CheckpointTable | None:
        table = self._tables.get(name)
        if table is None:
            try:
                table = self._tables[name] = open_checkpoints(name)
            except MistError:
                return None  # gone between the two looks, or not ready yet
        return table

    def streams(self) -> list[str]:
        return list_streams(self.instance)

    def open_reader(self, name: str) -> StreamReader:
        return StreamReader(self.instance, name)

    def stream_pids(self, name: str) -> list[int]:
        try:
            guardian, worker = StreamReader(self.instance, name).table.pids
        except NotFound:
            return []
        return [pid for pid in (worker, guardian) if pid]

    async def start_stream(self, name: str) -> None:
        await self.spawner.ask({"do": "start", "stream": name})

    async def stop_stream(self, name: str, reason: str) -> None:
        await self.spawner.ask({"do": "stop_stream", "stream": name, "reason": reason})

    async def nuke_stream(self, name: str) -> None:
        await self.spawner.ask({"do": "nuke", "stream": name})

    def shutdown(self, reason: str) -> None:
        self.spawner.tell({"do": "shutdown", "reason": reason})

    def close(self) -> None:
        self.spawner.close()


def table_number(name: str) -> int:
    """Return a number for a worker's table that no other worker's has while the server runs."""
    found = _TABLE.search(name)
    return (int(found.group(1)) << 24 | int(found.group(2)) << 4) if found else 0


def snapshot_of(prefix: int, row: tuple[Any, ...]) -> ConnectionSnapshot:
    """Return one row of a checkpoint table as the statistics take it."""
    number, generation, pid, connector, stream, host, token, started, updated, down, up, position, *rest = row
    packets, lost, again, active = rest
    return ConnectionSnapshot(
        pid=pid,
        connector=connector,
        stream=stream,
        host=host,
        token=token,
        started_us=started,
        updated_us=updated,
        down_bytes=down,
        up_bytes=up,
        position_us=position,
        packets=packets,
        packets_lost=lost,
        packets_retransmitted=again,
        active=active,
        record_id=(prefix << 44) | (number << 32) | generation,
    )
