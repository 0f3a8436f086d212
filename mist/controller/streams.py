"""Streams as the controller sees them: their states, and keeping the always-on ones running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mist.errors import MistError, NotFound
from mist.stream.names import base_name
from mist.stream.services import ControlServices
from mist.stream.state import StreamStatus, TrackState

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader

# Words and number of the API's `error` and `online` for the states of a stream that is between two others.
IN_TRANSITION = {
    StreamStatus.INIT: "Initializing...",
    StreamStatus.BOOT: "Loading...",
    StreamStatus.WAIT: "Waiting for data...",
    StreamStatus.SHUTDOWN: "Shutting down...",
}


class StreamWatch:
    """Looks at the streams' tables in shared memory, and starts what must always run."""

    def __init__(self, services: ControlServices) -> None:
        self.services = services
        self.configured: Mapping[str, Any] = {}
        self._readers: dict[str, StreamReader] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def configure(self, snapshot: Mapping[str, Any]) -> None:
        """Take the streams of a configuration snapshot."""
        self.configured = snapshot["streams"]

    def reader(self, name: str) -> StreamReader | None:
        """Return a reader for looking at an active stream, None when it is not active."""
        reader = self._readers.get(name)
        if reader is not None and reader.status() != StreamStatus.OFF:
            return reader
        if reader is not None:
            self._readers.pop(name).close()
        try:
            self._readers[name] = self.services.open_reader(name)
        except NotFound:
            return None
        return self._readers[name]

    def status(self, name: str) -> int:
        """Return the state of a stream; a byte that is no state is returned as it is."""
        reader = self.reader(name)
        if reader is None:
            return StreamStatus.OFF
        try:
            return reader.status()
        except ValueError:
            return StreamStatus.INVALID

    def tracks(self, name: str) -> list[TrackState]:
        """Return the tracks of a stream, none when it is not active."""
        reader = self.reader(name)
        return reader.tracks() if reader is not None else []

    def zero_unix(self, name: str) -> int | None:
        """Return the unix second of media time 0, None when unknown."""
        reader = self.reader(name)
        return reader.wall_clock_offset_us // 1_000_000 if reader is not None and reader.wall_clock_offset_us else None

    def pids(self, name: str) -> list[int]:
        """Return the processes that feed a stream."""
        return list(self.services.stream_pids(name))

    def configured_tags(self, name: str) -> set[str]:
        """Return the tags that the configuration gives to a stream."""
        return set(self.configured.get(base_name(name), {}).get("tags", ()))

    def online(self, name: str) -> dict[str, Any]:
        """Return the status members of a configured stream: `online`, and `error` where there is something to say."""
        status = self.status(name)
        if status == StreamStatus.READY:
            return {"online": 1}
        for state, text in IN_TRANSITION.items():
            if status == state:
                return {"online": 2, "error": text}
        if status != StreamStatus.OFF:
            return {"online": 0, "error": "Unrecognized stream state"}
        source = self.configured.get(name, {}).get("source", "")
        if not source:
            return {"online": 0, "error": "Stream offline: Missing source parameter!"}
        if source.startswith("/"):
            if _exists(source):
                return {"online": 2, "error": "Available"}
            return {"online": 0, "error": f"Stream offline: Not found: {source}"}
        return {"online": 0}

    def check(self) -> None:
        """Start always-on streams that do not run, and let go of readers of streams that ended. Never waits."""
        for name in [name for name, reader in self._readers.items() if reader.status() == StreamStatus.OFF]:
            self._readers.pop(name).close()
        for name, stream in self.configured.items():
            if stream.get("always_on") and name not in self._tasks and self.status(name) == StreamStatus.OFF:
                self._run(name, name, partial(self.services.start_stream, name))

    def stop(self, name: str, reason: str) -> None:
        """Stop a stream that runs, without waiting for it."""
        if self.status(name) != StreamStatus.OFF:
            self._run(f"stop {name}", name, partial(self.services.stop_stream, name, reason))

    def nuke(self, name: str) -> None:
        """Remove everything of a stream by force, without waiting for it."""
        self._run(f"nuke {name}", name, partial(self.services.nuke_stream, name))

    def _run(self, key: str, stream: str, work: Callable[[], Awaitable[None]]) -> None:
        """Let something be done to a stream in the background; what is under way under the same key goes on instead."""
        if key not in self._tasks:
            task = self.services.loop.create_task(self._guarded(stream, work))
            self._tasks[key] = task
            task.add_done_callback(lambda _task: self._tasks.pop(key, None))

    async def _guarded(self, stream: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (MistError, OSError) as error:
            self.services.log.warning("%s", error, extra={"stream": stream})

    async def close(self) -> None:
        """Cancel what is being started, and let go of all readers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def _exists(source: str) -> bool:
    try:
        return Path(source.partition("?")[0]).exists() or Path(source).exists()
    except (OSError, ValueError):
        return False
