"""Processes whose parent has died: each goes on under the next one, or has ended, or is killed because it hangs."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from mist.runtime.departure import Departure
from mist.runtime.process import children
from mist.runtime.reactor import Reactor
from mist.runtime.rejoin import REJOIN_SECONDS

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = REJOIN_SECONDS + 1.0
TITLE: Final = b"mist: "


class Orphans:
    """The kernel makes them children of this process. own: the children that this process has itself."""

    def __init__(self, reactor: Reactor, own: Callable[[], Collection[int]]) -> None:
        self._reactor = reactor
        self._own = own
        # Who has a parent again, or was here before this code.
        self._settled = set(children(os.getpid()))
        self._awaited: dict[int, Departure] = {}

    def look(self) -> None:
        """Wait for those that have lost their parent just now: somebody has ended."""
        found = set(children(os.getpid()))
        self._settled &= found
        for pid in found - self._settled - self._awaited.keys() - set(self._own()):
            if not is_of_ours(pid):
                continue
            with suppress(OSError):
                self._awaited[pid] = Departure(self._reactor, pid, partial(self._forget, pid))
                self._reactor.call_later(PATIENCE_SECONDS, self._end, pid, self._awaited[pid])

    def came_back(self, pid: int) -> None:
        """Take note of one that has found the next parent."""
        self._settled.add(pid)
        self._forget(pid)

    def _forget(self, pid: int) -> None:
        departure = self._awaited.pop(pid, None)
        if departure is not None:
            departure.close()

    def _end(self, pid: int, departure: Departure) -> None:
        """Kill one that has not come: nobody watches over it, and it keeps what others could have."""
        if self._awaited.get(pid) is departure:
            log.error("Process %d hangs since its parent has ended; killing it", pid)
            departure.signal(signal.SIGKILL)


def is_of_ours(pid: int) -> bool:
    """Tell whether a process is one of this server, and no program that one of them has run."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(TITLE)
    except OSError:
        return False
