"""The order in which processes of other code, or of a main process that is gone, give way to new ones.

A few do at a time, so that they do not starve each other.

What is replaced needs the processors twice, for beginning and for going on with what there is. All at once, that holds up
everybody's viewers for as long as all of it takes together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from mist.runtime.reactor import Reactor, Timer

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 15.0  # with one that is not replaced; the next begin then


class Succession:
    """Lets those who are added give way in the order of their arrival. stepped: called whenever one has."""

    def __init__(self, reactor: Reactor, stepped: Callable[[], None]) -> None:
        self._reactor = reactor
        self._stepped = stepped
        self._waiting: dict[object, tuple[str, Callable[[], None]]] = {}
        self._under_way: dict[object, Timer] = {}
        self._at_once = 0

    @property
    def is_over(self) -> bool:
        """Whether all have given way."""
        return not self._waiting and not self._under_way

    def add(self, who: object, name: str, give_way: Callable[[], None]) -> None:
        """Have somebody give way when it is its turn. who: as `done` is told when its successor has everything."""
        self._waiting.setdefault(who, (name, give_way))
        self._go_on()

    def open(self) -> None:
        """Let them begin: all who are to be replaced are known."""
        self._at_once = max(1, len(os.sched_getaffinity(0)) // 2)
        self._go_on()

    def done(self, who: object) -> None:
        """Take note that somebody is of this code or has ended, be it its turn or not."""
        waited = self._waiting.pop(who, None)
        timer = self._under_way.pop(who, None)
        if timer is not None:
            timer.cancel()
        if waited is not None or timer is not None:
            self._stepped()
            self._go_on()

    def _go_on(self) -> None:
        while self._waiting and len(self._under_way) < self._at_once:
            who = next(iter(self._waiting))
            name, give_way = self._waiting.pop(who)
            self._under_way[who] = self._reactor.call_later(PATIENCE_SECONDS, self._give_up, who, name)
            give_way()

    def _give_up(self, who: object, name: str) -> None:
        log.warning("%s has not given way to its successor in %.0f s; going on with the others", name, PATIENCE_SECONDS)
        self.done(who)
