"""The main process when it cannot fork, at a limit of processes or without memory: it says so, tries again, and does not end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mist.runtime.channel import pair
from mist.runtime.control_keeper import ControlKeeper
from mist.runtime.family import Family
from mist.runtime.pushes import Pushes
from mist.runtime.reactor import Reactor


class Machine:
    """A family and an event loop that are none; the first child cannot be forked."""

    def __init__(self) -> None:
        self.planned: list[Callable[[], object]] = []
        self.started: list[SimpleNamespace] = []
        self.failures = [BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))]
        self.done = self.add = lambda *_: None

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> None:
        self.planned.append(lambda: callback(*arguments))

    def pass_time(self) -> None:
        planned, self.planned = self.planned, []
        for call in planned:
            call()

    def start(self, name: str, main: object, **_: object) -> SimpleNamespace:
        if self.failures:
            raise self.failures.pop()
        sent: list[object] = []
        self.started.append(
            SimpleNamespace(name=name, pid=7, channel=SimpleNamespace(send=sent.append), stopping=False)
        )
        return self.started[-1]

    def around(self, folder: Path) -> tuple[Any, ...]:
        role = SimpleNamespace(controller=object, push_role=lambda target, schemes: ("RTMP", target))
        instance = SimpleNamespace(push_notes=folder, config_file=folder / "none")
        return SimpleNamespace(instance=instance, program=role), self, self, lambda: None, self


def test_the_guardian_of_pushes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    pushes = Pushes(*machine.around(tmp_path))
    number = pushes.start("live", "rtmp://b/a/live", "rtmp://b/a/live")
    assert (machine.started, pushes.pid) == ([], 0)
    assert "temporarily unavailable" in caplog.text
    assert pushes.start("live", "rtmp://c/a/live", "rtmp://c/a/live") == number + 1
    assert len(machine.planned) == 1
    machine.pass_time()
    assert [one.name for one in machine.started] == ["The guardian of the pushes"]
    assert all(one["result"] is None for one in pushes.states())


def test_the_controller(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.runtime.control_keeper.control_main", lambda server, fd: object)
    machine = Machine()
    keeper = ControlKeeper(lambda answer: None, *machine.around(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as port:
        keeper._sockets = [port]
        keeper.open()
        assert keeper.pid == 0
        assert "The controller cannot be started" in caplog.text
        machine.pass_time()
        assert keeper.pid == 7


def test_nothing_of_a_child_that_was_not_forked_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ends: list[socket.socket] = []

    def kept() -> tuple[socket.socket, socket.socket]:
        ends.extend(pair())
        return ends[0], ends[1]

    monkeypatch.setattr("mist.runtime.family.fork", fail)
    monkeypatch.setattr("mist.runtime.family.pair", kept)
    family = Family(Reactor(), "key", "build")
    with pytest.raises(BlockingIOError):
        family.start("A child", lambda channel: 0, on_message=lambda *_: None, on_ended=lambda *_: None)
    assert [end.fileno() for end in ends] == [-1, -1]
    assert family.children == {}
