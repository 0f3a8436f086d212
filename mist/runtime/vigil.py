"""How the main process finds those of its children that hang: guardians, the controller, the processes that answer visitors.

Nobody is woken for it who has nothing to do: the kernel says of a child whether it sleeps and has read all that it was sent. Only one
that does not, or has said nothing for long, is asked for a sign of life; one that owes it for too long is killed, and so replaced.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import struct
import termios
import time
from pathlib import Path
from typing import Final

from mist.runtime.build import running_build
from mist.runtime.family import Child, Family
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
LATE_SECONDS: Final = 1.0  # a look that comes so much later shows that the machine, not a child, is slow
HANG_SECONDS: Final = 6.0
SILENCE_SECONDS: Final = 60.0  # after which one that seems to sleep in peace is asked all the same
START_SECONDS: Final = 20.0  # for one that begins
ASLEEP: Final = "S"


class Vigil:
    """Watches the children of a family, from `begin` on."""

    def __init__(self, family: Family, reactor: Reactor) -> None:
        self._family = family
        self._reactor = reactor
        self._looked_at = 0.0

    def begin(self) -> None:
        """Look from now on, every LOOK_SECONDS."""
        self._looked_at = time.monotonic()
        self._reactor.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        late = now - self._looked_at > LOOK_SECONDS + LATE_SECONDS  # this process was held up, and has answers to read
        for child in tuple(self._family.children.values()):
            if not child.watched or child.channel.closed or child.build != running_build():
                continue  # it will come back, or give way
            if not child.asked:
                if now - child.heard > SILENCE_SECONDS or is_busy(child):
                    child.asked = now
                    child.channel.send({"do": "ping", "ping": 1})
            elif late:
                child.asked = now
            elif now - child.asked >= patience_seconds(child):
                log.error("%s (%d) has not answered for %.0f s; killing it", child.name, child.pid, now - child.asked)
                child.asked = now
                child.signal(signal.SIGKILL)
        self.begin()


def patience_seconds(child: Child) -> float:
    """Return how long a child may owe an answer."""
    has_begun = child.heard > child.started or child.ran_seconds() > START_SECONDS
    return HANG_SECONDS if has_begun else START_SECONDS


def is_busy(child: Child) -> bool:
    """Tell whether a child does something, is stopped, or has not read what it was sent."""
    unread: int = struct.unpack("i", fcntl.ioctl(child.channel.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return unread > 0 or process_state(child.pid) != ASLEEP


def process_state(pid: int) -> str:
    """Return the letter that the kernel has for what a process does, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""
