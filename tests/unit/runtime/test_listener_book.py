"""The main process's book of listeners: each port has one guardian, whoever started it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mist.runtime.build import running_build
from mist.runtime.channel import Message
from mist.runtime.instance import Instance
from mist.runtime.listeners import Listeners
from mist.runtime.program import Program, Server
from mist.runtime.succession import Succession
from mist.stream.capability import Capability


@dataclass
class FakeChild:
    """A guardian that only keeps what it is told."""

    pid: int
    ended: Callable[[FakeChild, int], None]
    build: str
    stopping: bool = False
    left: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.sent: list[Message] = []

    @property
    def channel(self) -> FakeChild:
        return self

    def ran_seconds(self) -> float:
        return 3600.0

    def send(self, message: Message, fds: Any = (), *, close: Any = ()) -> None:
        self.sent.append(message)


@dataclass(frozen=True)
class Module:
    capability: Capability


class Timer:
    """One call that is planned."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def cancel(self) -> None:
        self.call = lambda: None


class Book:
    """Listeners with triggers, a family and an event loop that are none, and one configured port."""

    def __init__(self, folder: Path, port: int) -> None:
        outputs = {"RTMP": Module(Capability("RTMP", "", "", default_port=port))}
        server = Server(Instance(f"unit{os.getpid()}", folder), Program("1", outputs, {}, dict))
        self.started: list[FakeChild] = []
        self.failures: list[OSError] = []  # of what is started next
        self.adopted: list[FakeChild] = []
        self.planned: list[Timer] = []
        around = (server, self, self, lambda: None, Succession(self, lambda: None))  # type: ignore[arg-type]
        self.listeners = Listeners(self, *around)  # type: ignore[arg-type]
        entry = {"connector": "RTMP", "interface": "127.0.0.1"}
        self.entry = entry
        self.listeners.expect({"config": {"protocols": [entry]}, "streams": {}}, {})
        self.listeners.await_viewers()

    def notify(self, *event: object) -> None: ...
    def add_reader(self, fd: int, callback: object) -> None: ...
    def remove_reader(self, fd: int) -> None: ...

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        self.planned.append(Timer(lambda: callback(*arguments)))
        return self.planned[-1]

    def pass_time(self) -> None:
        """Do everything that is planned."""
        planned, self.planned = self.planned, []
        for timer in planned:
            timer.call()

    def start(self, name: str, main: object, *, on_message: object, on_ended: Any, fds: object) -> FakeChild:
        if self.failures:
            raise self.failures.pop()
        self.started.append(FakeChild(100 + len(self.started), on_ended, running_build()))
        return self.started[-1]

    def adopt(self, name: str, message: Message, fds: list[int], *, on_message: object, on_ended: Any) -> FakeChild:
        for fd in fds:
            os.close(fd)
        self.adopted.append(FakeChild(message["pid"], on_ended, message["build"]))
        return self.adopted[-1]

    def come_back(self, sock: socket.socket, pid: int) -> None:
        """Let a guardian of the former main process show itself and its port."""
        [name] = next(iter(self.listeners._listeners.values())).names
        message = {"name": name, "pid": pid, "build": running_build(), "note": {"entry": self.entry}}
        self.listeners.take(message, [*os.pipe(), os.dup(sock.fileno())])


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """Return the port as a guardian has it that the killed main process had forked, and told nobody of."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def book(tmp_path: Path, port: socket.socket) -> Iterator[Book]:
    made = Book(tmp_path, port.getsockname()[1])
    yield made
    made.listeners.close()


def states(book: Book) -> list[tuple[int, Any]]:
    return [(one["pid"], one["state"]) for one in book.listeners.states()]


def test_a_port_whose_guardian_comes_late_has_that_one_alone(book: Book, port: socket.socket) -> None:
    """The main process was killed while it started a guardian, before it could note it: nobody waits for that one."""
    book.listeners.start_all()
    [(pid, state)] = states(book)
    assert pid == 0
    assert "in use" in str(state)
    assert len(book.planned) == 1, "it tries again"
    book.come_back(port, 7)
    assert states(book) == [(7, 1)]
    book.pass_time()
    book.listeners.start_all()
    book.listeners.await_viewers()
    assert (book.started, states(book)) == ([], [(7, 1)])
    assert book.adopted[0].sent == []


def test_of_two_guardians_of_a_port_the_later_one_leaves(book: Book, port: socket.socket) -> None:
    book.come_back(port, 7)
    book.come_back(port, 8)
    assert states(book) == [(7, 1)]
    assert [one.sent for one in book.adopted] == [[], [{"do": "retire"}]]
    book.adopted[1].ended(book.adopted[1], 3)
    assert (book.started, states(book)) == ([], [(7, 1)])
    book.adopted[0].ended(book.adopted[0], -9)
    assert [one.pid for one in book.started] == [100], "the first one's successor"
    assert states(book) == [(100, 1)]


def test_a_guardian_that_cannot_be_forked_is_tried_again(book: Book, port: socket.socket) -> None:
    book.come_back(port, 7)
    book.failures = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))]
    book.adopted[0].left = (55,)
    book.adopted[0].ended(book.adopted[0], -9)
    [(pid, state)] = states(book)
    assert (pid, book.started) == (0, [])
    assert "temporarily unavailable" in str(state)
    [listener] = book.listeners._listeners.values()
    assert listener.left == (55,), "the next guardian is to expect them"
    book.pass_time()
    assert states(book) == [(100, 1)]
