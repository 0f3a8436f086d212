"""Is the service stopped for good, or to be started again?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mist.runtime import restart
from mist.runtime.instance import Instance


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("17 mist.service restart running\n", True),
        ("16 other.service restart waiting\n17 mist.service try-restart running\n", True),
        ("17 mist.service stop running\n", False),
        ("17 other.service restart running\n", False),
        ("No jobs running.\n", False),
        ("", False),
    ],
)
def test_the_list_of_jobs(said: str, wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = tmp_path / "systemctl"
    manager.write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(restart.UNIT, "mist.service")
    assert restart.is_wanted() is wanted
    monkeypatch.delenv(restart.UNIT)
    assert not restart.is_wanted()


def test_without_a_manager_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(restart.UNIT, "mist.service")
    assert not restart.is_wanted()


def test_the_note(tmp_path: Path) -> None:
    """It counts up, and counts once."""
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    assert restart.number_left(instance) == 0
    restart.leave_note(instance, 0)
    assert restart.number_left(instance) == 1
    restart.leave_note(instance, 1)
    assert restart.number_left(instance) == 2
    restart.forget_note(instance)
    restart.forget_note(instance)
    assert restart.number_left(instance) == 0


def test_how_many_main_processes_crashed(tmp_path: Path) -> None:
    """What the one before was is in the status that it wrote; a start that somebody wished counts anew."""
    instance = Instance("unit", tmp_path)
    assert restart.start_after(instance) == (0, 0)
    instance.folder.mkdir()
    for build, start in {"1.0-abc": (0, 1), "1.0-abc+0.1": (0, 2), "1.0-abc+4": (4, 1), "1.0-abc+4.8": (4, 9)}.items():
        instance.status_file.write_text(json.dumps({"build": build}))
        assert restart.start_after(instance) == start
    restart.leave_note(instance, 4)
    assert restart.start_after(instance) == (5, 0)
    restart.forget_note(instance)
    for broken in ("", "[]", "{}", '{"build'):
        instance.status_file.write_text(broken)
        assert restart.start_after(instance) == (0, 0)
