"""A small event loop for the processes that fork: descriptors, timers and signals over `selectors`.

It has the method names of asyncio's loop for what it does, so that a `Channel` works with either, and it can be
abandoned in a forked child without touching the parent's.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from mist.runtime.process import own

log = logging.getLogger(__name__)

Callback = Callable[[], None]
WATCHED_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Timer:
    """A call at a later time that can be cancelled."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object] | None) -> None:
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class Reactor:
    """Calls back when descriptors are ready, timers are due or signals arrived, until `stop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._running = False
        self._signals: dict[int, Callback] = {}
        self._wake_reader: socket.socket | None = None
        self._wake_writer: socket.socket | None = None

    # -- descriptors -----------------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callback) -> None:
        self._set(fd, selectors.EVENT_READ, callback)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._set(fd, selectors.EVENT_WRITE, callback)

    def remove_reader(self, fd: int) -> bool:
        return self._clear(fd, selectors.EVENT_READ)

    def remove_writer(self, fd: int) -> bool:
        return self._clear(fd, selectors.EVENT_WRITE)

    def _set(self, fd: int, event: int, callback: Callback) -> None:
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            self._selector.register(fd, event, {event: callback})
            return
        callbacks = {**key.data, event: callback}
        self._selector.modify(fd, key.events | event, callbacks)

    def _clear(self, fd: int, event: int) -> bool:
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            return False
        if not key.events & event:
            return False
        if key.events == event:
            self._selector.unregister(fd)
        else:
            callbacks = {one: callback for one, callback in key.data.items() if one != event}
            self._selector.modify(fd, key.events & ~event, callbacks)
        return True

    # -- timers ----------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        """Call back after `delay` seconds; the returned timer can be cancelled."""
        bound = (lambda: callback(*arguments)) if arguments else callback
        timer = Timer(time.monotonic() + delay, bound)
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        return timer

    def _run_due(self) -> float | None:
        """Run the timers that are due and return the seconds until the next one."""
        while self._timers:
            when, _, timer = self._timers[0]
            if timer.callback is not None:
                left = when - time.monotonic()
                if left > 0:
                    return left
            heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._call(callback)
            if not self._running:
                return 0.0
        return None

    # -- signals ---------------------------------------------------------------------------------------------------

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call back from the loop when this signal arrives."""
        if self._wake_reader is None:
            self._wake_reader, self._wake_writer = (own(one) for one in socket.socketpair())
            self._wake_reader.setblocking(False)
            self._wake_writer.setblocking(False)
            signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
            self.add_reader(self._wake_reader.fileno(), self._signals_arrived)
        self._signals[number] = callback
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)

    def _signals_arrived(self) -> None:
        assert self._wake_reader is not None
        try:
            numbers = set(self._wake_reader.recv(4096))
        except BlockingIOError:
            return
        for number in sorted(numbers, key=lambda one: one == signal.SIGCHLD):
            if number in self._signals:
                self._call(self._signals[number])

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop` is called."""
        self._running = True
        while self._running:
            left = self._run_due()
            if self._halted():
                return
            for key, events in self._selector.select(left):
                for event, callback in tuple(key.data.items()):
                    if events & event and self._still(key.fd, event, callback):
                        self._call(callback)

    def _still(self, fd: int, event: int, callback: Callback) -> bool:
        """Tell whether an earlier callback of this round has not removed this one."""
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            return False
        return key.data.get(event) is callback

    def _call(self, callback: Callable[[], object]) -> None:
        """Run a callback; a defect in one must not end the process that keeps all others alive."""
        try:
            callback()
        except Exception:
            log.exception("a callback of the event loop failed")

    def _halted(self) -> bool:
        return not self._running

    def stop(self) -> None:
        self._running = False

    def abandon(self) -> None:
        """Forget everything in a forked child, without changing what the parent watches."""
        self._selector.close()
        self._timers.clear()
        self._signals.clear()
        for sock in (self._wake_reader, self._wake_writer):
            if sock is not None:
                sock.close()
        self._wake_reader = self._wake_writer = None
        self._running = False
