"""Programs that work on streams beside the server, such as transcoders, by what they report of themselves to the API."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mist.controller.log_ring import LogRow

MAX_PROCESSES: Final = 1000
MAX_STATUS_BYTES: Final = 16 * 1024
MAX_NAME_CHARACTERS: Final = 256
SHOWN_LINES: Final = 25
OWN_MEMBERS: Final = ("source", "sink", "process", "logs", "terminated")
# A report has them in its own words; `proc_list` shows them in others.
_TEXTS: Final = {"source": "source", "sink": "sink", "process": "proc"}


@dataclass(slots=True)
class Reported:
    """What one program said last. texts: source, sink and process."""

    texts: Mapping[str, str]
    status: Mapping[str, Any]


class StreamProcesses:
    """Remembers programs by their process number until they have ended and that was told once."""

    def __init__(self, runs: Callable[[int], bool]) -> None:
        """Take a function that tells whether a process runs."""
        self._runs = runs
        self._known: dict[int, Reported] = {}

    def report(self, given: Mapping[str, Any]) -> str:
        """Take what a program reports: `id`, `proc`, `source`, `sink`, `status`. Returns why not, or ""."""
        pid = given.get("id")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31 or not self._runs(pid):
            return "there is no such process"
        status = given.get("status")
        if not isinstance(status, Mapping):
            status = {}
        if len(json.dumps(status)) > MAX_STATUS_BYTES:
            return f"its status is over {MAX_STATUS_BYTES} bytes"
        if pid not in self._known and len(self._known) >= MAX_PROCESSES:
            self._forget_ended()
            if len(self._known) >= MAX_PROCESSES:
                return f"{MAX_PROCESSES} processes are known already"
        texts = {name: str(given.get(member) or "")[:MAX_NAME_CHARACTERS] for name, member in _TEXTS.items()}
        self._known[pid] = Reported(texts, {key: one for key, one in status.items() if key not in OWN_MEMBERS})
        return ""

    def _forget_ended(self) -> None:
        self._known = {pid: one for pid, one in self._known.items() if self._runs(pid)}

    def listed(self, stream: str, lines: Iterable[LogRow]) -> dict[str, dict[str, Any]]:
        """Return what `proc_list` shows of the programs that have a stream as source or sink; "" for all. lines: of the log."""
        shown = {
            pid: one
            for pid, one in sorted(self._known.items())
            if not stream or stream in (one.texts["source"], one.texts["sink"])
        }
        logs: dict[int, list[LogRow]] = {pid: [] for pid in shown}
        for line in lines if shown else ():
            if line[4] in logs:
                logs[line[4]].append(line)
        found: dict[str, dict[str, Any]] = {}
        for pid, one in shown.items():
            found[str(pid)] = {**one.status, **one.texts, "logs": logs[pid][-SHOWN_LINES:]}
            if not self._runs(pid):
                found[str(pid)]["terminated"] = True
                del self._known[pid]
        return found


def runs(pid: int) -> bool:
    """Tell whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
