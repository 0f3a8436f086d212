"""The trial of newly installed code."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path

import pytest

import mist
from mist.errors import ConfigError
from mist.runtime import upgrade
from mist.runtime.build import running_build
from mist.runtime.family import Child, Family
from mist.runtime.instance import Instance
from mist.runtime.program import Program
from mist.runtime.reactor import Reactor
from mist.runtime.upgrade import EXIT_CONFIG, Trial, try_out


def program(**given: object) -> Program:
    return Program("1", {}, {}, lambda: dict(given))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax (not_preloaded.py, line 1)"),
        ("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library_that_is_missing'"),
        ("from mist.errors import NoSuchError", "ImportError: cannot import name 'NoSuchError'"),
    ],
)
def test_a_module_that_only_some_process_needs_is_tried_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    (tmp_path / "not_preloaded.py").write_text(text)
    monkeypatch.setattr(mist, "__path__", [*mist.__path__, str(tmp_path)])
    with pytest.raises((ImportError, SyntaxError)) as caught:
        try_out(Instance("unit-trial", tmp_path), program())
    last = "".join(traceback.format_exception(caught.value)).splitlines()[-1]
    assert last.startswith(f"mist.not_preloaded cannot be imported: {why}")


def test_code_that_works_has_nothing_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert try_out(Instance("unit-trial", tmp_path), program()) == 0
    assert capsys.readouterr() == ("", "")


def test_a_bad_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert try_out(Instance("unit-trial", tmp_path), program(bad_file="config.json: no")) == EXIT_CONFIG
    assert capsys.readouterr().err == "mist: config.json: no\n"


def test_a_configuration_that_cannot_be_loaded_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> dict[str, object]:
        raise ConfigError("config.json: odd")

    assert try_out(Instance("unit-trial", tmp_path), Program("1", {}, {}, load)) == EXIT_CONFIG
    assert "odd" in capsys.readouterr().err


def test_a_trial_may_take_longer_when_it_gets_no_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of low priority, so beside busy programs it waits for most of its time."""
    looks, said = [True, True, False], []

    def is_held_up(child: Child, seconds: float) -> bool:
        assert seconds == upgrade.TRIAL_SECONDS
        return looks.pop(0)

    monkeypatch.setattr(upgrade, "TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(upgrade, "command", lambda: [sys.executable, "-c", "import signal; signal.pause()"])
    monkeypatch.setattr(upgrade, "is_held_up", is_held_up)
    reactor = Reactor()
    family = Family(reactor, "", running_build())

    def done(works: bool, text: str) -> None:
        said.append((works, text))
        reactor.stop()

    reactor.on_signal(signal.SIGCHLD, family.reap)
    try:
        Trial(family, reactor, done)
        reactor.run()
    finally:
        signal.set_wakeup_fd(-1)
        reactor.abandon()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert said == [(False, f"it ended with status {-signal.SIGKILL}")]
    assert looks == []
