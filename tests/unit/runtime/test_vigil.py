"""Who of the main process's children is asked for a sign of life, and who is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from mist.runtime import vigil
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, pair
from mist.runtime.family import Child, Family
from mist.runtime.reactor import Reactor
from mist.runtime.vigil import (
    SILENCE_SECONDS,
    START_SECONDS,
    Vigil,
    Watched,
    is_held_up,
    is_restless,
    patience_seconds,
    process_state,
)

START = 1000.0
LOOK_SECONDS, HANG_SECONDS = 2.0, 6.0


class Scene:
    """A family of one child, which is this process, and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = START
        self.signals: list[int] = []
        self.asleep = True
        self.reactor = Reactor()
        self.family = Family(self.reactor, "", running_build())
        ours, theirs = pair()
        self.other = Channel(theirs)
        self.child = Child(
            os.getpid(), "A child", Channel(ours), START, lambda *_: None, lambda *_: None, build=running_build()
        )
        self.family._listen(self.child)
        monkeypatch.setattr(self.child, "signal", self.signals.append)
        monkeypatch.setattr(vigil.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(vigil, "process_state", lambda pid: "S" if self.asleep else "T")
        self.vigil = Vigil(self.reactor, LOOK_SECONDS, self.watched, is_restless)
        self.vigil.begin()

    def watched(self) -> Watched:
        return [(child, patience_seconds(child, HANG_SECONDS)) for child in self.family.children.values()]

    def look(self, seconds: float = LOOK_SECONDS, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            self.vigil._look()

    def asked(self) -> bool:
        """Return whether the child was asked, which answers then."""
        heard: list[Message] = []
        self.other.attach(self.reactor, lambda message, fds: heard.append(message), lambda: None)
        self.other._readable()
        for message in heard:
            self.other.send({"pong": message["ping"]})
        self.child.channel._readable()
        return bool(heard)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(monkeypatch)
    yield made
    made.other.close()
    made.child.channel.close()
    made.reactor.abandon()


def test_one_that_sleeps_in_peace_is_not_woken(scene: Scene) -> None:
    scene.child.heard = START + 1
    scene.look(times=10)
    assert not scene.asked()
    scene.look(times=int(SILENCE_SECONDS / LOOK_SECONDS))
    assert scene.asked()
    assert scene.child.asked == 0.0


def test_one_that_does_not_answer_is_killed(scene: Scene) -> None:
    scene.child.heard = START + 1
    scene.asleep = False
    scene.look()
    assert scene.child.asked
    scene.look(times=int(HANG_SECONDS / LOOK_SECONDS) - 1)
    assert scene.signals == []
    scene.look()
    assert scene.signals == [signal.SIGKILL]


def test_what_it_has_not_read_makes_it_suspect(scene: Scene) -> None:
    scene.child.heard = START + 1
    scene.child.channel.send({"do": "config"})
    scene.look()
    assert scene.child.asked


def test_one_that_answers_lives(scene: Scene) -> None:
    scene.child.heard = START + 1
    scene.asleep = False
    for _ in range(10):
        scene.look()
        assert scene.asked()
    assert scene.signals == []


def test_one_that_begins_has_more_time(scene: Scene) -> None:
    scene.asleep = False
    scene.look(times=int(HANG_SECONDS / LOOK_SECONDS) + 1)
    assert scene.signals == []
    scene.look(times=int(START_SECONDS / LOOK_SECONDS))
    assert scene.signals[0] == signal.SIGKILL


def test_a_main_process_that_was_late_itself_does_not_judge(scene: Scene) -> None:
    scene.child.heard = START + 1
    scene.asleep = False
    scene.look()
    scene.look(seconds=60)
    assert scene.signals == []


def test_one_that_will_come_back_is_left_alone(scene: Scene) -> None:
    scene.asleep = False
    scene.child.channel.close()
    scene.look(times=30)
    assert scene.signals == []


@pytest.mark.parametrize(
    ("state", "used_s", "held_up"), [("D", 9.0, True), ("R", 5.0, True), ("R", 7.0, False), ("T", 0.0, False)]
)
def test_one_that_cannot_run_is_not_to_blame(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, state: str, used_s: float, held_up: bool
) -> None:
    scene.child.used_s = 10.0
    monkeypatch.setattr(vigil, "process_state", lambda pid: state)
    monkeypatch.setattr(vigil, "cpu_seconds", lambda pid: 10.0 + used_s)
    assert is_held_up(scene.child, HANG_SECONDS) == held_up


def test_nobody_is_looked_at_who_need_not_be(scene: Scene) -> None:
    """Without children to watch there is no timer; the next `begin` starts again."""
    planned: list[float] = []
    scene.reactor.call_later = lambda delay, *_: planned.append(delay)  # type: ignore[method-assign,assignment,return-value]
    scene.look()
    assert planned == [LOOK_SECONDS]
    scene.family.children.clear()
    scene.look()
    assert planned == [LOOK_SECONDS]
    scene.vigil.begin()
    assert planned == [LOOK_SECONDS] * 2


def test_states_of_processes() -> None:
    assert process_state(os.getpid()) == "R"
    assert process_state(2**22 + 1) == ""
