"""Who has lost its parent and finds no other is killed; whoever has found one, or is none of ours, is left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from mist.runtime import orphans as module
from mist.runtime.orphans import PATIENCE_SECONDS, Orphans


class Scene:
    """The children that the kernel says this process has, and a reactor whose time the test passes."""

    def __init__(self) -> None:
        self.present: list[int] = [1, 2]
        self.own: set[int] = {1}
        self.ours: set[int] = {2, 3, 4, 5}
        self.killed: list[int] = []
        self.gone: dict[int, Callable[[], None]] = {}
        self.planned: list[Callable[[], None]] = []

    def departure(self, reactor: object, pid: int, on_gone: Callable[[], None]) -> Departed:
        self.gone[pid] = on_gone
        return Departed(self, pid)

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> None:
        assert delay == PATIENCE_SECONDS
        self.planned.append(lambda: callback(*arguments))

    def pass_time(self) -> None:
        planned, self.planned = self.planned, []
        for one in planned:
            one()


class Departed:
    def __init__(self, scene: Scene, pid: int) -> None:
        self._scene, self._pid = scene, pid

    def signal(self, number: int) -> None:
        assert number == signal.SIGKILL
        self._scene.killed.append(self._pid)

    def close(self) -> None:
        self._scene.gone.pop(self._pid, None)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = Scene()
    monkeypatch.setattr(module, "children", lambda pid: made.present)
    monkeypatch.setattr(module, "is_of_ours", lambda pid: pid in made.ours)
    monkeypatch.setattr(module, "Departure", made.departure)
    return made


def test_who_finds_no_parent_is_killed(scene: Scene) -> None:
    orphans = Orphans(scene, lambda: scene.own)  # type: ignore[arg-type]
    scene.present = [1, 2, 3, 4, 5, 6]  # 6 is a program that one of them has run
    orphans.came_back(3)  # it may have come before its parent's end was known
    orphans.look()
    orphans.look()
    orphans.came_back(4)
    assert list(scene.gone) == [5]
    scene.pass_time()
    assert scene.killed == [5]


def test_who_has_ended_meanwhile_is_not(scene: Scene) -> None:
    orphans = Orphans(scene, lambda: scene.own)  # type: ignore[arg-type]
    scene.present = [1, 3]
    orphans.look()
    scene.gone[3]()
    scene.present = [1]
    orphans.look()
    scene.present = [1, 3]  # another process with its number
    orphans.look()
    assert list(scene.gone) == [3]
    scene.planned.pop(0)()
    assert scene.killed == []
    scene.pass_time()
    assert scene.killed == [3]
