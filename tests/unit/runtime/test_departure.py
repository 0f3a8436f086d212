"""Processes that come back from another parent, or do not, and how their end is heard of."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mist.runtime.departure import Departure
from mist.runtime.homecoming import FAMILY_SECONDS, LAST_CHANCE_SECONDS, Homecoming


class Planned:
    """An event loop that calls when the test says so."""

    def __init__(self) -> None:
        self.readers: dict[int, object] = {}
        self.timers: list[tuple[float, object]] = []

    def add_reader(self, fd: int, callback: object) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_later(self, delay: float, callback: object) -> None:
        self.timers.append((delay, callback))

    def pass_time(self) -> float:
        """Call what is planned next; returns after how long."""
        delay, callback = self.timers.pop(0)
        callback()  # type: ignore[operator]
        return delay

    def hear(self) -> None:
        """Tell of all ends."""
        for callback in tuple(self.readers.values()):
            callback()  # type: ignore[operator]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def test_a_departure_is_told_of_once_and_lets_go(sleeper: subprocess.Popen[bytes]) -> None:
    reactor, told = Planned(), []
    before = len(os.listdir("/proc/self/fd"))
    departure = Departure(reactor, sleeper.pid, lambda: told.append(1))  # type: ignore[arg-type]
    departure.signal(signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    departure.signal(signal.SIGKILL)  # which is too late, and no error
    reactor.hear()
    assert told == [1]
    departure.close()
    departure.signal(signal.SIGKILL)
    assert (reactor.readers, len(os.listdir("/proc/self/fd"))) == ({}, before)
    with pytest.raises(ProcessLookupError):
        Departure(reactor, sleeper.pid, lambda: None)  # type: ignore[arg-type]


def test_all_are_back_when_the_last_one_is(sleeper: subprocess.Popen[bytes]) -> None:
    reactor, back = Planned(), []
    homecoming = Homecoming(reactor, lambda: back.append(1))  # type: ignore[arg-type]
    homecoming.expect([sleeper.pid, os.getpid()])
    homecoming.came_back(os.getpid())
    assert back == []
    sleeper.kill()
    sleeper.wait()
    reactor.hear()
    assert back == [1]


def test_nobody_is_waited_for_who_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    back: list[int] = []
    Homecoming(Planned(), lambda: back.append(1)).expect([sleeper.pid])  # type: ignore[arg-type]
    assert back == [1]


def test_who_does_not_come_back_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    reactor, back = Planned(), []
    Homecoming(reactor, lambda: back.append(1)).expect([sleeper.pid])  # type: ignore[arg-type]
    assert reactor.pass_time() == FAMILY_SECONDS
    assert back == []
    assert reactor.pass_time() == LAST_CHANCE_SECONDS
    assert sleeper.wait() == -signal.SIGKILL
    assert back
    assert reactor.readers == {}
