"""The end of a process that this one has not forked, of which the kernel tells by a descriptor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from mist.runtime.reactor import Reactor


class Departure:
    """Waits for the end of one process. on_gone: called then, once, unless this was closed before."""

    def __init__(self, reactor: Reactor, pid: int, on_gone: Callable[[], None]) -> None:
        """Begin to wait. Raises ProcessLookupError when there is no such process any more."""
        self._reactor = reactor
        self._on_gone = on_gone
        self._pidfd = os.pidfd_open(pid)
        reactor.add_reader(self._pidfd, self._gone)

    def _gone(self) -> None:
        self.close()
        self._on_gone()

    def signal(self, number: int) -> None:
        """Send the process a signal: to it and no other, even if its number is another one's by now. One that has gone is fine."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Wait no longer."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            self._reactor.remove_reader(pidfd)
            os.close(pidfd)
