"""Looking at processes through /proc: who belongs to a server, what they cost, and what they leave behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc: number, state letter, parent, session, and the title that `ps` shows."""

    pid: int
    state: str
    parent: int
    session: int
    title: str


def look(pid: int) -> Process | None:
    """Return what /proc says of a process, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), title)


def session_processes(session: int) -> list[Process]:
    """Return the living processes of a session, that is a server that was started in its own, with all it forked.

    One without a title has no memory any more: it is on its way out, and nothing but the kernel's own work is left of it.
    """
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [one for one in found if one is not None and one.session == session and one.state != ZOMBIE and one.title]


def descends(process: Process, ancestor: int) -> bool:
    """Tell whether a process is another one, or a descendant of it; also when it ends in this moment."""
    one: Process | None = process
    while one is not None and one.pid != ancestor and one.parent:
        one = look(one.parent)
    return one is None or one.pid == ancestor


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time of processes so far, all threads, user and system, to the nanosecond as scheduled."""
    total = 0
    for pid in pids:
        for thread in _entries(f"/proc/{pid}/task"):
            try:
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total / 1e9


def pss_kib(pids: Iterable[int]) -> int:
    """Return the proportional memory of processes: own pages, and of shared ones the share, in KiB."""
    return _memory_kib(pids, ("Pss:",))


def written_kib(pids: Iterable[int]) -> int:
    """Return the same without pages of files, in KiB: their share grows when other tests' servers end."""
    return _memory_kib(pids, ("Pss_Anon:", "Pss_Shmem:"))


def _memory_kib(pids: Iterable[int], names: tuple[str, ...]) -> int:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(names))
    return total


def descriptors(pid: int) -> list[str]:
    """Return what the descriptors of a process point at."""
    found = []
    for name in _entries(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def living_watched(pid: int) -> int:
    """Return how many living processes a process watches by a descriptor: those that came to it from another parent."""
    found = set()
    for name in _entries(f"/proc/{pid}/fdinfo"):
        with suppress(FileNotFoundError):
            lines = Path(f"/proc/{pid}/fdinfo/{name}").read_text().splitlines()
            found |= {line.split()[1] for line in lines if line.startswith("Pid:")}
    return len(found - {"-1"})


def wait_until(look_again: Callable[[], T], timeout_s: float, what: str) -> T:
    """Look every 10 ms until the answer is true, and return it; for things that no event announces.

    Raises TimeoutError naming what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := look_again()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)
    return answer


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []
