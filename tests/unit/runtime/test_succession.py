"""In which order processes give way to newer ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mist.runtime import succession
from mist.runtime.succession import PATIENCE_SECONDS, Succession


class FakeReactor:
    """Keeps what is planned."""

    def __init__(self) -> None:
        self.planned: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> FakeReactor:
        self.planned.append((delay, lambda: callback(*arguments)))
        return self

    def cancel(self) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.began: list[str] = []
        self.steps = 0
        self.succession = Succession(self.reactor, self._step)  # type: ignore[arg-type]

    def _step(self) -> None:
        self.steps += 1

    def add(self, *names: str) -> None:
        for name in names:
            self.succession.add(name, name, lambda name=name: self.began.append(name))  # type: ignore[misc]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(succession.os, "sched_getaffinity", lambda pid: range(2))
    return Scene()


def test_one_after_the_other_once_all_are_known(scene: Scene) -> None:
    scene.add("a", "b")
    assert scene.began == []
    scene.succession.open()
    assert scene.began == ["a"]
    assert not scene.succession.is_over
    scene.succession.done("a")
    assert scene.began == ["a", "b"]
    scene.succession.done("b")
    assert scene.succession.is_over
    assert scene.steps == 2
    scene.succession.done("b")
    assert scene.steps == 2


def test_more_at_once_with_more_processors(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession.os, "sched_getaffinity", lambda pid: range(4))
    scene.add("a", "b", "c")
    scene.succession.open()
    assert scene.began == ["a", "b"]


def test_who_was_replaced_otherwise_has_no_turn(scene: Scene) -> None:
    scene.add("a", "b", "c")
    scene.succession.open()
    scene.succession.done("b")
    scene.succession.done("a")
    assert scene.began == ["a", "c"]


def test_one_that_does_not_give_way_holds_up_the_others_for_a_while(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.add("a", "b")
    scene.succession.open()
    [(delay, give_up)] = scene.reactor.planned
    assert delay == PATIENCE_SECONDS
    give_up()
    assert scene.began == ["a", "b"]
    assert "a has not given way" in caplog.text
