"""The event loop of the processes that fork."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from mist.runtime.reactor import Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.abandon()


def test_timers_run_in_order_and_not_when_cancelled(reactor: Reactor) -> None:
    seen: list[str] = []
    reactor.call_later(0.002, seen.append, "second")
    reactor.call_later(0, seen.append, "first")
    reactor.call_later(0.001, seen.append, "never").cancel()
    reactor.call_later(0.003, reactor.stop)
    reactor.run()
    assert seen == ["first", "second"]


def test_readers_and_writers_of_one_descriptor_are_apart(reactor: Reactor) -> None:
    seen: list[str] = []
    one, other = socket.socketpair()
    with one, other:

        def written() -> None:
            seen.append("writable")
            assert reactor.remove_writer(one.fileno())
            other.send(b"x")

        def read() -> None:
            seen.append(one.recv(10).decode())
            assert reactor.remove_reader(one.fileno())
            assert not reactor.remove_reader(one.fileno())
            reactor.stop()

        reactor.add_reader(one.fileno(), read)
        reactor.add_writer(one.fileno(), written)
        reactor.run()
    assert seen == ["writable", "x"]


def test_a_callback_that_was_removed_in_the_same_round_is_not_called(reactor: Reactor) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    seen: list[int] = []

    def make(place: int) -> None:
        def read() -> None:
            seen.append(place)
            for one, _ in pairs:
                reactor.remove_reader(one.fileno())
            reactor.stop()

        reactor.add_reader(pairs[place][0].fileno(), read)

    for place, (_, other) in enumerate(pairs):
        other.send(b"x")
        make(place)
    reactor.run()
    assert len(seen) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_defect_in_a_callback_is_logged_and_the_loop_goes_on(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    reactor.call_later(0, lambda: 1 // 0)
    reactor.call_later(0, reactor.stop)
    reactor.run()
    assert "ZeroDivisionError" in caplog.text


def test_signals_arrive_as_callbacks(reactor: Reactor) -> None:
    former = signal.getsignal(signal.SIGUSR1)
    try:
        reactor.on_signal(signal.SIGUSR1, reactor.stop)
        reactor.call_later(0, os.kill, os.getpid(), signal.SIGUSR1)
        reactor.run()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, former)
