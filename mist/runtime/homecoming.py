"""Waiting for the processes that a former main process had started: each comes back, or has ended, or is killed."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from mist.runtime.departure import Departure
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

FAMILY_SECONDS: Final = 5.0
LAST_CHANCE_SECONDS: Final = 1.0


class Homecoming:
    """all_back: called when nobody is waited for any longer; maybe more than once."""

    def __init__(self, reactor: Reactor, all_back: Callable[[], None]) -> None:
        self._reactor = reactor
        self._all_back = all_back
        self._expected: dict[int, Departure] = {}

    def expect(self, pids: Iterable[int]) -> None:
        """Wait for these."""
        for pid in pids:
            with suppress(OSError):
                self._expected[pid] = Departure(self._reactor, pid, partial(self.came_back, pid))
        self._reactor.call_later(FAMILY_SECONDS, self._wait_once_more)
        if not self._expected:
            self._all_back()

    def _wait_once_more(self) -> None:
        """Give those a last chance who came while this process itself was busy, or had no processor: they wait to be heard."""
        self._reactor.call_later(LAST_CHANCE_SECONDS, self._end)

    def _end(self) -> None:
        """Kill who should have come back and has not: it hangs, and others are to have what it holds."""
        for pid, departure in tuple(self._expected.items()):
            log.error("Process %d did not come back; killing it", pid)
            departure.signal(signal.SIGKILL)
            self.came_back(pid)
        self._all_back()

    def came_back(self, pid: int) -> None:
        """Take note of a process that is back or has ended."""
        departure = self._expected.pop(pid, None)
        if departure is not None:
            departure.close()
            if not self._expected:
                self._all_back()
