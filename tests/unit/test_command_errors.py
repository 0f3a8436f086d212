"""What the commands say where something is not allowed: one line that tells the cure, and status 1."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mist.cli import main


@pytest.mark.parametrize(
    "command", ["status", "streams", "stop", "reload", "api totals", "nuke live", "serve --config /x/y"]
)
def test_what_is_another_users(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(arguments[0]))

    monkeypatch.setenv("MIST_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    if command.startswith(("nuke", "serve")):
        monkeypatch.setattr(Path, "exists", refuse)
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "user" in said and "or as root" in said


@pytest.mark.parametrize(
    "command",
    [
        "api totals --instance gone {}",
        "api --instance gone totals {}",
        "api totals {} --compact --instance gone",
        "clients --instance gone live --json",
        "trigger test OUTPUT_END --instance gone live",
        "record live --instance gone /nowhere/a.ts",
        "config diff --instance gone /nowhere.json --json",
    ],
)
def test_options_stand_anywhere(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MIST_RUNTIME_DIR", str(tmp_path))
    assert main(command.split()) in (1, 2)
    said = capsys.readouterr().err
    assert "gone" in said or "/nowhere.json" in said
    assert "usage:" not in said


def test_too_many_words_name_the_command_and_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["api", "addstream", '{"a":', "1}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "usage: mist api" in said
    assert "unrecognized arguments: 1}" in said and "single quotes" in said


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("strems", 'did you mean "streams"?'),
        ("config chek", 'did you mean "check"?'),
        ("account frobnicate", 'see "mist account --help"'),
        ("log -n 3", 'see "mist log --help"'),
    ],
)
def test_a_command_line_that_cannot_be(command: str, cure: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert ended.value.code == 2
    assert cure in capsys.readouterr().err
