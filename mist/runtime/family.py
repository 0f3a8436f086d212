"""The children of a process that forks: started or taken over, listened to, and told of when they have ended.

A child that was not forked here came back from a parent that is gone (`mist.runtime.rejoin`); a descriptor of its process
tells when it ends, and the child itself says with which status.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mist.runtime.channel import Channel, Message, close_all, pair
from mist.runtime.departure import Departure
from mist.runtime.process import describe_exit, fork, reap, send_signal
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

# Keys of the main process's children that keep a listening socket: which runs handlers of triggers, which decides about viewers.
TRIGGERS = "triggers"
SESSIONS = "sessions"

# What a child that was not forked here ended with when it did not say so: it was killed.
UNKNOWN_STATUS = -signal.SIGKILL

ChildMain = Callable[[Channel], int]
Ended = Callable[["Child", int], None]
Received = Callable[["Child", Message, list[int]], None]


@dataclass(eq=False)
class Child:
    """One child. stopping: it was told to end, so its end is no failure. departure: of one that was not forked here.

    build: which code it runs. last_status: the exit status that it announced. left: the numbers of the workers that it leaves to
    its successor. watched: whether it is to be killed when it hangs. stays: it serves to their end those whom nobody else can serve.
    heard: when it said something. asked: since when it owes a sign of life (`mist.runtime.vigil`). used_s: processor time that it had
    had by then.
    """

    pid: int
    name: str
    channel: Channel
    started: float
    on_message: Received
    on_ended: Ended
    stopping: bool = False
    departure: Departure | None = None
    build: str = ""
    last_status: int | None = None
    left: Sequence[int] = ()
    watched: bool = True
    stays: bool = False
    heard: float = 0.0
    asked: float = 0.0
    used_s: float = 0.0

    def ran_seconds(self) -> float:
        return time.monotonic() - self.started

    def signal(self, number: int) -> None:
        """Send a signal; a child that has gone already is fine."""
        if self.departure is not None:
            self.departure.signal(number)
        else:
            send_signal(self.pid, number)

    def terminate(self) -> None:
        self.stopping = True
        self.signal(signal.SIGTERM)


class Family:
    """All children of this process.

    key: the name under which children find a successor of this process. on_gone: told of everyone who has ended, also of
    descendants whose own parent had died.
    """

    def __init__(
        self, reactor: Reactor, key: str, build: str, on_gone: Callable[[int], None] = lambda pid: None
    ) -> None:
        self._reactor = reactor
        self._key = key
        self._build = build
        self._on_gone = on_gone
        self.children: dict[int, Child] = {}

    def start(
        self, name: str, main: ChildMain, *, on_message: Received, on_ended: Ended, fds: Iterable[int] = ()
    ) -> Child:
        """Fork a child.

        on_message: owns the descriptors that it gets. on_ended: given the exit status, negative for a signal. Raises OSError.
        """
        ours, theirs = pair()
        keep = {theirs.fileno(), *fds}
        try:
            pid = fork(lambda: main(Channel(theirs, self._key)), keep=keep, abandon=self._reactor.abandon)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        child = Child(pid, name, Channel(ours), time.monotonic(), on_message, on_ended, build=self._build)
        return self._listen(child)

    def expect(self, name: str, pid: int, *, on_message: Received, on_ended: Ended) -> Child | None:
        """Watch a process that another parent forked and that will come back; None when it is gone."""
        closed = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC))
        closed.close()
        child = Child(pid, name, closed, time.monotonic(), on_message, on_ended)
        try:
            child.departure = Departure(self._reactor, pid, lambda: self._ended(child, child.last_status))
        except ProcessLookupError:
            return None
        self.children[pid] = child
        return child

    def adopt(
        self, name: str, message: Message, fds: list[int], *, on_message: Received, on_ended: Ended
    ) -> Child | None:
        """Take over the child that sent a `rejoin` message, whose descriptors are the channel's and the process's.

        Returns None when it has ended meanwhile. One that was expected keeps its `Child`.
        """
        pid = int(message["pid"])
        sock, pidfd = socket.socket(fileno=fds[0]), fds[1]
        child = self.children.get(pid)
        if child is None:
            child = self.expect(name, pid, on_message=on_message, on_ended=on_ended)
        os.close(pidfd)
        if child is None:
            sock.close()
            return None
        child.channel.close()
        child.channel = Channel(sock)
        child.build = str(message.get("build", ""))
        child.asked = 0.0
        child.channel.send({"do": "adopted"})
        return self._listen(child)

    def _listen(self, child: Child) -> Child:
        self.children[child.pid] = child

        def received(message: Message, fds: list[int]) -> None:
            answers, child.asked, child.heard = bool(child.asked), 0.0, time.monotonic()
            if answers and "pong" in message:
                close_all(fds)
            elif message.get("event") == "ends":
                child.last_status = int(message["status"])
                child.left = message.get("left", ())
            else:
                child.on_message(child, message, fds)

        # The end of the channel says nothing: the process has ended, of which the kernel tells, or it comes back.
        child.channel.attach(self._reactor, received, lambda: None)
        return child

    def reap(self) -> None:
        """Collect who has ended and tell whoever started them."""
        for pid, status in reap():
            child = self.children.get(pid)
            if child is None:
                self._on_gone(pid)
            else:
                self._ended(child, status)

    def _ended(self, child: Child, status: int | None) -> None:
        if self.children.get(child.pid) is not child:
            return
        child.channel.drain()
        if status is None:
            status = UNKNOWN_STATUS if child.last_status is None else child.last_status
        child.channel.close()
        del self.children[child.pid]
        if child.departure is not None:
            child.departure.close()
        if status != 0 and not child.stopping:
            log.error("%s (%d) %s after %.0f s", child.name, child.pid, describe_exit(status), child.ran_seconds())
        child.on_ended(child, status)
        self._on_gone(child.pid)
