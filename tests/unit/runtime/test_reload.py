"""The steps of a reload, and what those who wait for it are told."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from mist.runtime import reload as reloading
from mist.runtime.channel import Message
from mist.runtime.reload import Reload
from mist.runtime.upgrade import INHERITANCE, Inheritance, Trial, inherited


class Asker:
    """Somebody who waits for the end of a reload."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)


class Trials:
    """Trials that end when the test says so."""

    def __init__(self) -> None:
        self.done: list[Callable[[bool, str], None]] = []

    def __call__(self, family: object, reactor: object, on_done: Callable[[bool, str], None]) -> Trials:
        self.done.append(on_done)
        return self


class Scene:
    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.executed: list[str] = []
        self.planned: list[Any] = []
        self.busy = False
        self.reload = Reload(self, self, self._ask, self._execute, lambda: self.busy)  # type: ignore[arg-type]

    def _ask(self, changed_only: bool) -> bool:
        self.asked.append(changed_only)
        return True

    def _execute(self, notes: str, waiting: object) -> str:
        self.executed.append(notes)
        return "no memory"

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> None:
        self.planned.append(lambda: callback(*arguments))

    def begin(self, *, force: bool = False) -> Asker:
        asker = Asker()
        self.reload.begin((asker, {"id": 1}), force=force)  # type: ignore[arg-type]
        return asker


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    made = Trials()
    monkeypatch.setattr(reloading, "Trial", made)
    monkeypatch.setattr(reloading, "is_current", lambda: True)
    return made


def test_without_other_code_the_configuration_is_all(trials: Trials) -> None:
    scene = Scene()
    first, second = scene.begin(), scene.begin()
    assert scene.asked == [False]
    scene.reload.controller_said("")
    assert first.heard == second.heard == [{"ok": True, "notes": "", "reply": 1}]
    assert trials.done == []
    third = scene.begin()
    scene.reload.controller_said("it is bad")
    assert third.heard == [{"error": "ConfigError", "text": "it is bad", "reply": 1}]


def test_other_code_is_tried_and_a_bad_configuration_comes_first(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "is_current", lambda: False)
    scene = Scene()
    refused = scene.begin()
    scene.reload.controller_said("it is bad")
    assert "it is bad" in refused.heard[0]["text"]
    asker = scene.begin()
    scene.reload.controller_said("")
    assert scene.asked == [True, True]
    trials.done[0](False, "ImportError: no")
    assert "ImportError: no" in asker.heard[0]["text"]
    assert scene.executed == []
    assert "ImportError: no" in scene.reload.failure


def test_who_waits_is_told_when_no_trial_can_be_started(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Trials:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(reloading, "Trial", full)
    scene = Scene()
    asker = scene.begin(force=True)
    scene.reload.controller_said("")
    assert "Too many open files" in asker.heard[0]["text"]
    monkeypatch.setattr(reloading, "Trial", trials)
    scene.begin(force=True)
    scene.reload.controller_said("")
    assert len(trials.done) == 1


def test_a_trial_that_cannot_be_started_keeps_no_descriptor() -> None:
    class Full:
        def start(self, *_: object, **__: object) -> object:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="temporarily"):
        Trial(Full(), Full(), lambda works, said: None)  # type: ignore[arg-type]
    assert os.listdir("/proc/self/fd") == before


def test_a_publisher_on_its_way_is_waited_for(trials: Trials) -> None:
    scene = Scene()
    asker = scene.begin(force=True)
    scene.reload.controller_said("")
    scene.busy = True
    trials.done[0](True, "a note")
    assert scene.executed == []
    scene.busy = False
    scene.planned.pop()()
    assert scene.executed == ["a note"]
    assert "no memory" in asker.heard[0]["text"]


def test_what_is_handed_on_arrives_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as port, open("/dev/null", "rb") as lock:
        os.set_inheritable(port.fileno(), True)
        given: dict[str, Any] = {"lock": lock.fileno(), "alive": lock.fileno(), "door": lock.fileno(), "number": 3}
        monkeypatch.setenv(INHERITANCE, json.dumps({**given, "sockets": {"controller": [port.fileno()]}}))
        assert inherited() == Inheritance(**given, sockets={"controller": [port.fileno()]})
        assert inherited() is None
        assert not port.get_inheritable()


def test_who_waits_hears_that_the_trial_goes_on(trials: Trials) -> None:
    scene = Scene()
    asker = scene.begin(force=True)
    scene.reload.controller_said("")
    for _ in range(2):
        scene.planned.pop()()
    assert asker.heard == [{"progress": True, "reply": 1}] * 2
    trials.done[0](False, "no")
    scene.planned.pop()()
    assert len(scene.planned) == 0
