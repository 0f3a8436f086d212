"""Which code a process runs, and since which start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mist.runtime import build
from mist.runtime.build import installed_build, is_current, is_same_edition, running_build, set_start, start_of


@pytest.fixture(autouse=True)
def started_as_before() -> Iterator[None]:
    yield
    set_start(0)
    running_build.cache_clear()


def began(number: int, crashes: int = 0) -> str:
    """Be what a main process of that number has forked."""
    set_start(number, crashes)
    running_build.cache_clear()
    return running_build()


@pytest.mark.parametrize("start", [(0, 0), (3, 0), (0, 1), (12, 345)])
def test_each_start_has_its_mark(start: tuple[int, int]) -> None:
    assert start_of(began(*start)) == start
    assert is_current()


def test_starts_after_crashes_are_of_one_edition() -> None:
    first, third, upgraded = began(0), began(0, 2), began(1)
    assert len({first, third, upgraded}) == 3
    began(0, 1)
    assert [is_same_edition(one) for one in (first, third, upgraded)] == [True, True, False]
    began(1, 1)
    assert [is_same_edition(one) for one in (first, third, upgraded)] == [False, False, True]


def test_other_code_is_another_edition(monkeypatch: pytest.MonkeyPatch) -> None:
    former = began(0)
    monkeypatch.setattr(build, "installed_build", lambda: "2.0-0123456789ab")
    assert began(0, 1) == "2.0-0123456789ab+0.1"
    assert not is_same_edition(former)


def test_a_version_may_have_a_plus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "installed_build", lambda: "1.0+7.1-123456789012")
    assert start_of(began(0)) == (0, 0)
    assert start_of(installed_build()) == (0, 0)
    assert is_same_edition("1.0+7.1-123456789012+0.4")
    assert not is_same_edition("1.0+7.2-123456789012")
