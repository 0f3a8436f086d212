"""Publishers that wait for the one before them."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mist.runtime.channel import Message
from mist.runtime.reactor import Reactor
from mist.runtime.stream_guardian import StreamDuty, StreamPlan


class Publishers:
    """A stream that has a publisher, which sends, and the answers to those that come after it."""

    def __init__(self) -> None:
        self.answers: list[Message] = []
        self.peers: list[socket.socket] = []
        self.reactor = Reactor()
        self.duty: Any = StreamDuty(StreamPlan("live", "push://", pulled=False), lambda start: lambda channel: 0)
        upstream = SimpleNamespace(send=self.answers.append)
        self.duty._guardian = SimpleNamespace(ending=False, reactor=self.reactor, upstream=upstream)
        self.duty._takeover = False
        self.duty._source = SimpleNamespace(started=time.monotonic() + 100, host="first")
        self.duty._table = SimpleNamespace(clocks=[0] * 5)

    def come(self, number: int) -> socket.socket:
        """Let another publisher ask; returns its end of the connection."""
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        self.duty.command({"do": "publish", "id": number, "request": {}}, [ours.detach(), os.dup(0)])
        return theirs

    def close(self) -> None:
        self.duty._refuse_all(RuntimeError("over"))
        self.reactor.abandon()
        for peer in self.peers:
            peer.close()


@pytest.fixture
def publishers() -> Iterator[Publishers]:
    made = Publishers()
    yield made
    made.close()


def test_one_waits_and_the_next_is_refused(publishers: Publishers) -> None:
    publishers.come(2)
    assert not publishers.answers
    publishers.come(3)
    assert [(one["reply"], one["error"]) for one in publishers.answers] == [(3, "Busy")]


def test_one_that_hung_up_while_it_waited_keeps_nobody_away(publishers: Publishers) -> None:
    publishers.come(2).close()
    third = publishers.come(3)
    assert [(one["reply"], one["error"]) for one in publishers.answers] == [(2, "Busy")]
    third.setblocking(False)
    with pytest.raises(BlockingIOError):
        third.recv(1)


def test_nor_does_one_that_was_to_take_over(publishers: Publishers) -> None:
    stopped: list[str] = []
    publishers.duty._takeover = True
    publishers.duty._source.worker = None
    publishers.duty._guardian.stop_worker = lambda worker, reason: stopped.append(reason)
    publishers.come(2).close()
    publishers.come(3)
    publishers.come(4)
    assert [one["reply"] for one in publishers.answers] == [2, 4]
    assert len(stopped) == 2


def test_a_source_that_worked_is_not_waited_with_for_former_failures() -> None:
    delays: list[float] = []
    duty: Any = StreamDuty(StreamPlan("live", "dtsc://elsewhere", pulled=True), lambda start: lambda channel: 0)
    reactor = SimpleNamespace(call_later=lambda delay, *_: delays.append(delay))
    duty._guardian = SimpleNamespace(ending=False, reactor=reactor)
    duty._table = SimpleNamespace(clocks=[0] * 5, on_demand=False)
    duty._standby = SimpleNamespace(channel=SimpleNamespace(send=lambda message: None))
    duty._always_on, duty._tell_state = False, lambda: None
    source = SimpleNamespace(
        start=SimpleNamespace(ring=-1),
        yielded=False,
        started=1.0,
        reason="",
        ran_seconds=lambda: 0.5,
        replaced_by=lambda worker: None,
    )
    for _ in range(3):
        assert not duty._revive(source)
        duty._pull_again(source, -9)
    duty._table.clocks[4] = 2_000_000  # it has brought media
    assert duty._revive(source)
    duty._table.clocks[4] = 0
    assert not duty._revive(source)
    duty._pull_again(source, -9)
    assert delays == [0, 1, 2, 0]


def test_a_publisher_for_whom_no_input_can_be_started_is_refused(publishers: Publishers) -> None:
    planned = at_a_limit_of_processes(publishers)
    publishers.duty._source = None
    peer = publishers.come(2)
    assert [(one["reply"], one["error"]) for one in publishers.answers] == [(2, "NotReady")]
    assert peer.recv(1) == b""
    assert publishers.duty._source is None and len(planned) == 1  # the stream ends unless another one comes


def test_a_source_for_which_no_input_can_be_started_is_tried_again(publishers: Publishers) -> None:
    planned = at_a_limit_of_processes(publishers)
    publishers.duty._source = None
    publishers.duty._start_source()
    assert planned == [publishers.duty._start_source]


def at_a_limit_of_processes(publishers: Publishers) -> list[object]:
    """Let nothing be forked; returns what is planned from then on."""
    planned: list[object] = []

    def fail(main: object, fds: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    publishers.duty._events, publishers.duty._timeout = SimpleNamespace(begun=False), 15.0
    guardian = publishers.duty._guardian
    guardian.start_worker = fail
    guardian.reactor = SimpleNamespace(call_later=lambda delay, callback, *arguments: planned.append(callback))
    return planned
