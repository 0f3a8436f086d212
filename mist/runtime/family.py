"""The main process's children: started, listened to, reaped."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mist.runtime.channel import Channel, Message, close_all, pair
from mist.runtime.process import describe_exit, fork, reap, send_signal
from mist.runtime.reactor import Reactor

log = logging.getLogger(__name__)

ChildMain = Callable[[Channel], int]
Ended = Callable[[int], None]


@dataclass(eq=False)
class Child:
    """One child. stopping: it was told to end, so its end is no failure."""

    pid: int
    name: str
    channel: Channel
    started: float
    on_ended: Ended
    stopping: bool = False

    def ran_seconds(self) -> float:
        return time.monotonic() - self.started

    def terminate(self) -> None:
        self.stopping = True
        send_signal(self.pid, signal.SIGTERM)


class Family:
    """All children that were forked here, and the orphans of those that died."""

    def __init__(self, reactor: Reactor, on_orphan_ended: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._on_orphan_ended = on_orphan_ended
        self.children: dict[int, Child] = {}

    def start(
        self,
        name: str,
        main: ChildMain,
        *,
        on_message: Callable[[Message], None],
        on_ended: Ended,
        fds: Iterable[int] = (),
    ) -> Child:
        """Fork a child. on_ended: called with its exit status, negative for a signal."""
        ours, theirs = pair()
        keep = {theirs.fileno(), *fds}
        pid = fork(lambda: main(Channel(theirs)), keep=keep, abandon=self._reactor.abandon)
        theirs.close()
        child = Child(pid, name, Channel(ours), time.monotonic(), on_ended)
        self.children[pid] = child

        def received(message: Message, fds: list[int]) -> None:
            close_all(fds)
            on_message(message)

        child.channel.attach(self._reactor, received, lambda: None)
        return child

    def reap(self) -> None:
        """Collect who has ended and tell whoever started them."""
        for pid, status in reap():
            child = self.children.pop(pid, None)
            if child is None:
                self._on_orphan_ended(pid)
                continue
            child.channel.drain()
            child.channel.close()
            if status != 0 and not child.stopping:
                log.error("The %s (%d) %s", child.name, pid, describe_exit(status))
            child.on_ended(status)
