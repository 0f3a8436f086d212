"""What a process that ended leaves in shared memory and in the runtime directory, and how that is cleared."""

from __future__ import annotations

import contextlib
import time

from mist.core.checkpoint import CheckpointTable, open_checkpoints
from mist.core.track_buffer import open_table
from mist.errors import MistError
from mist.runtime.instance import Instance, unlink_shared
from mist.runtime.process import is_alive

# The figures of the connections of a dead worker stay readable this long, so that statistics see how they ended.
RECORDS_LINGER_SECONDS = 10.0
_MARK = "#"  # no stream's name in shared memory begins with it


def records_name(instance: Instance, pid: int) -> str:
    """Return the name of a process's table of connections."""
    return f"{instance.prefix}{_MARK}{pid}"


def all_records(instance: Instance) -> dict[int, str]:
    """Return {process number: name} of all tables of connections."""
    start = f"{instance.prefix}{_MARK}"
    names = (name for name in instance.shared_names() if name.startswith(start))
    return {int(name.removeprefix(start)): name for name in names if name.removeprefix(start).isdigit()}


def open_records(name: str) -> CheckpointTable | None:
    """Open a table of connections, or return None when it is gone or of another version."""
    try:
        return open_checkpoints(name)
    except (MistError, OSError):
        return None


def clean_up_after(instance: Instance, pid: int) -> None:
    """Clear what a dead process held: its connections have ended, its subscriptions and its doorbell are gone."""
    records = open_records(records_name(instance, pid))
    if records is not None:
        records.end_process(pid)
    for name in instance.shared_names():
        rest = name.removeprefix(instance.prefix)
        if "." in rest or rest.startswith(_MARK):
            continue
        try:
            open_table(name).release_process(pid)
        except (MistError, OSError):
            continue  # the stream ended meanwhile
    with contextlib.suppress(FileNotFoundError):
        (instance.bells / str(pid)).unlink()


class RecordSweeper:
    """Removes the tables of connections of dead processes a while after their end."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._dead_since: dict[str, float] = {}

    def sweep(self, now: float | None = None) -> float | None:
        """Remove what is due; returns the seconds after which to sweep again, or None when nothing waits."""
        now = time.monotonic() if now is None else now
        dead = {name: pid for pid, name in all_records(self._instance).items() if not is_alive(pid)}
        for name, pid in dead.items():
            if name not in self._dead_since:
                self._dead_since[name] = now
                clean_up_after(self._instance, pid)
        for name, since in tuple(self._dead_since.items()):
            if name not in dead or now - since >= RECORDS_LINGER_SECONDS:
                unlink_shared([name])
                del self._dead_since[name]
        if not self._dead_since:
            return None
        return max(0.1, min(self._dead_since.values()) + RECORDS_LINGER_SECONDS - now)
