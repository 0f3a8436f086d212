"""The trial of newly installed code."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

import mist
from mist.errors import ConfigError
from mist.runtime.instance import Instance
from mist.runtime.program import Program
from mist.runtime.upgrade import EXIT_CONFIG, try_out


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
