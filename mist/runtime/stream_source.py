"""What feeds a stream: its process, the publisher's connection with its ring, and whether another process may go on with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mist.net.receive_ring import ring_progress
from mist.net.tcp_counters import waiting_bytes
from mist.runtime.channel import Message, close_all
from mist.runtime.guardian import WorkerHandle

HANG_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 1.0
LATE_SECONDS: Final = 0.5  # a look that comes so much later shows that the machine, not the input, is slow
# As many processes that died in a row over the same bytes, in so short a time: the publisher's bytes kill them.
FATAL_DEATHS: Final = 3
FATAL_SECONDS: Final = 10.0
SOUND_SECONDS: Final = 0.5  # a process that had nothing to do so long was not killed by its publisher


@dataclass(frozen=True, slots=True)
class InputStart:
    """What an input process begins with. Descriptors are -1 for a source that is pulled.

    resumed: it goes on for one that was killed or gives way. standby: it waits to be told when. begins: it is the stream's first.
    admitted: the handlers of triggers have allowed the source, at the time `began` (unix seconds). source: what they gave instead
    of the configured one.
    """

    fd: int = -1
    state_fd: int = -1
    ring: int = -1
    request: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    standby: bool = False
    begins: bool = False
    admitted: bool = False
    began: float = 0.0
    source: str = ""

    @property
    def fds(self) -> list[int]:
        return [fd for fd in (self.fd, self.state_fd, self.ring) if fd >= 0]


@dataclass(eq=False)
class Source:
    """What feeds the stream now."""

    worker: WorkerHandle
    started: float
    start: InputStart = field(default_factory=InputStart)
    publish: Message | None = None  # the request to answer once the process has taken the socket
    failure: str = ""
    reason: str = ""
    yielded: bool = False
    refused: bool = False
    is_mute: bool = False
    _open: list[int] = field(default_factory=list)
    _looked_at: float = 0.0
    _seen: tuple[int, int, int] = (0, 0, 0)
    _since: float = 0.0
    _reached: int = -1
    _deaths: list[float] = field(default_factory=list)
    _brought_us: int = -1

    def __post_init__(self) -> None:
        self._open = self.start.fds

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def host(self) -> str:
        return str(self.start.request.get("host", ""))

    @property
    def fd(self) -> int:
        """The publisher's socket, or -1."""
        return self.start.fd if self.start.fd in self._open else -1

    def ran_seconds(self) -> float:
        return time.monotonic() - self.started

    def has(self, start: InputStart) -> None:
        """Take note of the descriptors that a process of a former guardian shows."""
        self.let_go()
        self.start, self._open = start, start.fds

    def taken(self, source: str) -> None:
        """Take note that its process runs the source, or what handlers of triggers gave instead of it."""
        self.start = replace(self.start, admitted=True, began=time.time(), source=source)

    def drop_state(self) -> None:
        """Let go of what the listener handed over besides the socket: the ring has a later state."""
        fd = self.start.state_fd
        if fd in self._open:
            self._open.remove(fd)
            close_all([fd])
            self.start = replace(self.start, state_fd=-1)

    def take(self, fd: int) -> int:
        """Give one descriptor to the caller."""
        self._open.remove(fd)
        return fd

    def let_go(self) -> None:
        close_all(self._open)
        self._open = []

    # -- the process -----------------------------------------------------------------------------------------------

    def replaced_by(self, worker: WorkerHandle) -> None:
        """Go on with another process."""
        self.worker, self.started = worker, time.monotonic()
        self.failure = self.reason = ""
        self.yielded = False

    def may_live_on(self) -> bool:
        """Tell, after its process was killed, whether another one should go on with the publisher's connection."""
        end, handled = ring_progress(self.start.ring)
        now = time.monotonic()
        if handled > self._reached or (handled == end and self.ran_seconds() >= SOUND_SECONDS):
            self._deaths.clear()
        self._reached = handled
        self._deaths = [at for at in self._deaths if now - at < FATAL_SECONDS] + [now]
        return len(self._deaths) < FATAL_DEATHS

    def hangs(self) -> bool:
        """Look whether bytes have waited for long and the process handles none. Called every LOOK_SECONDS."""
        now = time.monotonic()
        late, self._looked_at = now - self._looked_at > LOOK_SECONDS + LATE_SECONDS, now
        end, handled = ring_progress(self.start.ring)
        seen = (self.pid, end, handled)
        if late or seen != self._seen or not (end > handled or waiting_bytes(self.fd)):
            self._seen, self._since = seen, now
            return False
        return now - self._since >= HANG_SECONDS

    def look(self, brought_us: int, watched: bool) -> None:
        """See whether the process of a pulled source is mute: it brings nothing to those who watch.

        brought_us: when it brought a packet last. watched: whether somebody plays the stream. Called every LOOK_SECONDS.
        """
        works, self._brought_us = brought_us != self._brought_us, brought_us
        self.is_mute = watched and not works
        if not self.is_mute:
            self.worker.asked = 0.0
