"""How a process finds those of its children that hang: it asks them for a sign of life, and kills who owes it for too long.

Whom it asks is its own affair: the main process none that sleeps and has read all that it was sent, guardians those that have
connections, pushes or a source to serve.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from mist.runtime.family import Child
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

START_SECONDS: Final = 20.0  # for one that begins
SILENCE_SECONDS: Final = 60.0  # after which one that seems to sleep in peace is asked all the same
ASLEEP: Final = "S"
LATE: Final = 1.5  # a look that comes so many times later than it should shows that the machine, not a child, is slow

Watched = Iterable[tuple[Child, float]]


class Vigil:
    """Watches children, from `begin` on, for as long as there are any to watch.

    every_s: how often it looks. watched: returns them, each with how long it may owe an answer, seconds. asks: tells whether one is
    to be asked now.
    """

    def __init__(
        self,
        reactor: Reactor,
        every_s: float,
        watched: Callable[[], Watched],
        asks: Callable[[Child], bool] = lambda child: True,
    ) -> None:
        self._reactor = reactor
        self._every_s = every_s
        self._watched = watched
        self._asks = asks
        self._planned = False
        self._looked_at = 0.0

    def begin(self) -> None:
        """Look from now on."""
        if not self._planned:
            self._planned = True
            self._looked_at = time.monotonic()
            self._reactor.call_later(self._every_s, self._look)

    def _look(self) -> None:
        self._planned = False
        now = time.monotonic()
        late = now - self._looked_at > LATE * self._every_s  # this process was held up, and has answers to read
        for child, patience_s in tuple(self._watched()):
            self.begin()
            if child.channel.closed:
                continue  # it will come back
            if not child.asked:
                if self._asks(child):
                    child.asked, child.used_s = now, cpu_seconds(child.pid)
                    child.channel.send({"do": "ping", "ping": 1})
            elif late:
                child.asked = now
            elif now - child.asked >= patience_s and not is_held_up(child, patience_s):
                log.error("%s (%d) has not answered for %.0f s; killing it", child.name, child.pid, now - child.asked)
                child.asked = now
                child.signal(signal.SIGKILL)


def patience_seconds(child: Child, usual_s: float) -> float:
    """Return how long a child may owe an answer that may do so for `usual_s` once it has begun."""
    has_begun = child.heard > child.started or child.ran_seconds() > START_SECONDS
    return usual_s if has_begun else START_SECONDS


def is_restless(child: Child) -> bool:
    """Tell whether a child does something, is stopped, has not read what it was sent, or was silent for long."""
    if time.monotonic() - child.heard > SILENCE_SECONDS:
        return True
    unread: int = struct.unpack("i", fcntl.ioctl(child.channel.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return unread > 0 or process_state(child.pid) != ASLEEP


def is_held_up(child: Child, seconds: float) -> bool:
    """Tell whether a child that does not answer is not to blame: another one in its place would wait for the same.

    It is in the kernel and cannot be interrupted, for a disk, or it could run and has not had a processor for so many seconds since it
    was asked.
    """
    state = process_state(child.pid)
    return state == "D" or (state == "R" and cpu_seconds(child.pid) - child.used_s < seconds)


def process_state(pid: int) -> str:
    """Return the letter that the kernel has for what a process does, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process's first thread has had."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
