"""Visitors of a process that has no descriptor for them."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.runtime import acceptor
from mist.runtime.acceptor import Acceptor
from mist.runtime.reactor import Reactor

LOOKS = 3  # after a pause each


class CountedSocket(socket.socket):
    """Counts how often somebody wants to take a visitor."""

    __slots__ = ("accepts",)

    def accept(self) -> tuple[socket.socket, object]:
        self.accepts += 1
        return super().accept()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[CountedSocket]:
    with CountedSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.accepts = 0
        made.bind(str(tmp_path / "door"))
        made.listen()
        yield made


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.abandon()


def visit(door: socket.socket) -> socket.socket:
    visitor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    visitor.connect(door.getsockname())
    return visitor


def limit_descriptors() -> tuple[int, int]:
    """Let this process open nothing more; returns the limit that it had."""
    free = os.dup(0)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    return before


def test_visitors_wait_for_a_descriptor_and_nobody_spins(
    door: CountedSocket, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.02)
    taken: list[socket.socket] = []

    def welcome(sock: socket.socket) -> None:
        taken.append(sock)
        reactor.stop()

    looking = Acceptor(door, reactor, welcome)
    with visit(door):
        before = limit_descriptors()
        try:
            reactor.call_later(acceptor.PAUSE_SECONDS * LOOKS, reactor.stop)
            reactor.run()
            assert (taken, 1 <= door.accepts <= LOOKS + 1) == ([], True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        reactor.run()
        assert len(taken) == 1
        taken[0].close()
    looking.close()


def test_who_stops_in_a_pause_looks_no_more(door: CountedSocket, reactor: Reactor) -> None:
    looking = Acceptor(door, reactor, lambda sock: sock.close())
    with visit(door):
        before = limit_descriptors()
        try:
            reactor.call_later(0.01, reactor.stop)
            reactor.run()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        looking.close()
        accepts = door.accepts
        reactor.call_later(acceptor.PAUSE_SECONDS * 1.5, reactor.stop)
        reactor.run()
        assert door.accepts == accepts == 1
