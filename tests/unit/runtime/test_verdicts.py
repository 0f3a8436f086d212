"""What was decided about sessions outlives the process that decided it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mist.runtime import verdicts
from mist.runtime.verdicts import Verdicts
from mist.stream.session_access import Verdict, Viewer


def verdict(session: str, *, allowed: bool = True, until: float = math.inf) -> Verdict:
    return Verdict(
        Viewer(session, "live", "::1", "token", "HLS", "http://x/"), allowed, until, 5.0, by_token=not allowed
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def known(found: Verdicts) -> dict[str, tuple[bool, float, bool]]:
    return {one.viewer.session: (one.allowed, one.until, one.by_token) for one in found}


def test_the_next_process_knows_it(path: Path) -> None:
    first = Verdicts(path)
    first.keep(verdict("a"))
    first.keep(verdict("b", allowed=False, until=99.5))
    first.keep(verdict("c"))
    first.forget("c")
    second = Verdicts(path)
    assert known(second) == {"a": (True, math.inf, False), "b": (False, 99.5, True)}
    assert second.get("a").viewer == verdict("a").viewer  # type: ignore[union-attr]
    assert second.get("a").seen > 5.0  # type: ignore[union-attr]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_decided_while_another_process_takes_over(path: Path) -> None:
    former = Verdicts(path)
    later = Verdicts(path)
    former.keep(verdict("a"))
    assert later.get("a") is not None
    later.keep(verdict("b"))
    former.keep(verdict("c"))
    assert set(known(Verdicts(path))) == {"a", "b", "c"}
    assert later.get("c") is not None
    assert later.get("d") is None


def test_the_latest_decision_of_two_processes_counts(path: Path) -> None:
    former, later = Verdicts(path), Verdicts(path)
    former.keep(verdict("a"))
    later.keep(verdict("a", allowed=False, until=7.0))
    assert known(later) == known(Verdicts(path)) == {"a": (False, 7.0, True)}
    former.keep(verdict("b"))
    later.forget("b")
    assert later.get("b") is None and Verdicts(path).get("b") is None


def test_other_keys_and_handlers(path: Path) -> None:
    """What a token decided ends, refusals without one are forgotten, the rest stays."""
    found = Verdicts(path)
    for one in (verdict("kept"), verdict("token", allowed=False, until=7.0)):
        found.keep(one)
    found.keep(Verdict(verdict("refused").viewer, False, 9.0, 5.0))
    found.reconsider()
    assert known(found) == known(Verdicts(path)) == {"kept": (True, math.inf, False), "token": (False, 0.0, True)}


def test_the_file_does_not_grow_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "MAX_IDLE_LINES", 4)
    kept = Verdicts(path)
    for number in range(100):
        kept.keep(verdict(str(number)))
        if number:
            kept.forget(str(number - 1))
    assert len(path.read_bytes().splitlines()) < 10
    assert set(known(Verdicts(path))) == {"99"}
    kept.clear()
    assert path.read_bytes() == b""
    assert len(Verdicts(path)) == 0


def test_the_oldest_goes_when_there_are_too_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "MAX_VERDICTS", 2)
    kept = Verdicts(path)
    for name in "abc":
        kept.keep(verdict(name))
    assert set(known(kept)) == set(known(Verdicts(path))) == {"b", "c"}


def test_damaged_lines_are_passed_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Verdicts(path).keep(verdict("a"))
    with path.open("ab") as file:
        file.write(b'["b","live"]\n{"x":1}\nnonsense\n["half","li')
    assert set(known(Verdicts(path))) == {"a"}
    assert "cannot be read" in caplog.text
