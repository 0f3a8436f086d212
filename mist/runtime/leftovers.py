"""What a process that ended leaves in shared memory and in the runtime directory, and how that is cleared."""

from __future__ import annotations

import contextlib
import logging
import os
import time

from mist.core.checkpoint import CheckpointTable, open_checkpoints
from mist.core.track_buffer import open_table
from mist.errors import MistError
from mist.runtime.instance import Instance, unlink_shared
from mist.runtime.process import is_alive
from mist.stream.names import SHARED_MEMORY

log = logging.getLogger(__name__)

# The figures of the connections of a dead worker stay readable this long, so that statistics see how they ended.
RECORDS_LINGER_SECONDS = 10.0
# A guardian gives a dead worker's connections to another worker, or ends its records. So long it has time for that.
ORPHAN_SECONDS = 3.0
_MARK = "#"  # no stream's name in shared memory begins with it


def records_name(instance: Instance, pid: int) -> str:
    """Return the name of a process's table of connections."""
    return f"{instance.prefix}{_MARK}{pid}"


def all_records(instance: Instance) -> dict[int, tuple[str, int]]:
    """Return {process number: (name, inode)} of all tables of connections; a table made anew has another inode."""
    start = f"{instance.prefix}{_MARK}"
    return {
        int(entry.name.removeprefix(start)): (entry.name, entry.inode())
        for entry in os.scandir(SHARED_MEMORY)
        if entry.name.startswith(start)
    }


def open_records(name: str) -> CheckpointTable | None:
    """Open a table of connections, or return None when it is gone or of another version."""
    try:
        return open_checkpoints(name)
    except (MistError, OSError):
        return None


def end_records(instance: Instance, pid: int) -> None:
    """Mark the connections of a dead process as ended, and remove its sockets."""
    records = open_records(records_name(instance, pid))
    if records is not None:
        records.end_process(pid)
    for folder in (instance.bells, instance.spans):
        with contextlib.suppress(FileNotFoundError):
            (folder / str(pid)).unlink()


def release_subscriptions(instance: Instance, pid: int) -> None:
    """Free what a killed process held in the tables of all streams; one that ended by itself has done so."""
    for name in instance.shared_names():
        rest = name.removeprefix(instance.prefix)
        if rest == name or "." in rest or rest.startswith(_MARK):
            continue
        try:
            open_table(name).release_process(pid)
        except (MistError, OSError):
            continue  # the stream ended meanwhile


class RecordSweeper:
    """Removes the tables of connections of dead processes a while after their end."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._dead_since: dict[tuple[str, int], float] = {}
        self._ended: set[tuple[str, int]] = set()

    def sweep(self, now: float | None = None) -> float | None:
        """Remove what is due; returns the seconds after which to sweep again, or None when nothing waits."""
        now = time.monotonic() if now is None else now
        try:
            tables = all_records(self._instance)
        except OSError as error:  # there is no descriptor left to look with
            log.error("What dead processes left cannot be looked for: %s", error.strerror)
            return RECORDS_LINGER_SECONDS
        dead = {table: pid for pid, table in tables.items() if not is_alive(pid)}
        self._dead_since = {table: since for table, since in self._dead_since.items() if table in dead}
        for table, pid in dead.items():
            dead_seconds = now - self._dead_since.setdefault(table, now)
            if dead_seconds >= ORPHAN_SECONDS and table not in self._ended:
                self._ended.add(table)
                end_records(self._instance, pid)
            if dead_seconds >= RECORDS_LINGER_SECONDS:
                unlink_shared([table[0]])
                del self._dead_since[table]
        self._ended &= self._dead_since.keys()
        if not self._dead_since:
            return None
        due = [
            since + (RECORDS_LINGER_SECONDS if table in self._ended else ORPHAN_SECONDS)
            for table, since in self._dead_since.items()
        ]
        return max(0.1, min(due) - now)
