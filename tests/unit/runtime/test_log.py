"""Log lines: their form, their levels, and how repetition is cut."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from pathlib import Path

import pytest

from mist.runtime.log import (
    MAX_REMEMBERED_LINES,
    REPEAT_WINDOW_SECONDS,
    REPEATS_ALLOWED,
    LogHandler,
    RepeatLimit,
    parse_level,
    python_level,
)


def record(text: str = "it happened", level: int = logging.INFO, **extra: str) -> logging.LogRecord:
    made = logging.LogRecord("mist", level, "/x/file.py", 7, text, None, None)
    for key, value in extra.items():
        setattr(made, key, value)
    return made


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOURNAL_STREAM", "INVOCATION_ID", "MIST_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_the_human_form(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogHandler("output HTTP")
    handler.emit(record(stream="live"))
    handler.emit(record("shown", kind="CONF"))
    first, second = capsys.readouterr().err.splitlines()
    pid = os.getpid()
    assert re.fullmatch(
        rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\] output HTTP:live \({pid}\) INFO: it happened \(file\.py:7\)", first
    )
    assert f"output HTTP ({pid}) CONF: shown (file.py:7)" in second


def test_a_service_manager_gets_priorities(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    monkeypatch.setenv("INVOCATION_ID", "x")
    LogHandler("mist").emit(record("one\ntwo", logging.WARNING))
    assert capsys.readouterr().err == f"<2>mist ({os.getpid()}) WARN: one\n<2>\ttwo (file.py:7)\n"


def test_what_a_peer_sent_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    forged = "publisher a\n[2026-01-01 00:00:00] mist (1) FAIL: forged\r\x1b[2J\x9b2J\0\u2028\u202e\ud800 \u00fc"
    LogHandler("mist").emit(record(forged))
    first, second = capsys.readouterr().err.split("\n")[:2]
    assert first.endswith("INFO: publisher a")
    assert second.startswith(
        "\t[2026-01-01 00:00:00] mist (1) FAIL: forged\\r\\x1b[2J\\x9b2J\\x00\\u2028\\u202e\\ud800 \u00fc ("
    )


def test_colours_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MIST_COLOR", "1")
    LogHandler("mist").emit(record("bad", logging.ERROR))
    assert "\x1b[31;1mERROR\x1b[0m" in capsys.readouterr().err


def test_the_controller_gets_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "log.sock")
    handler = LogHandler("input RTMP", path)
    handler.stream = "live"
    handler.emit(record("nobody listens"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        handler.emit(record("somebody does", logging.CRITICAL))
        line = json.loads(reader.recv(65536))
    handler.close()
    assert line.pop("time") > 0
    assert line == {
        "kind": "FAIL",
        "program": "input RTMP",
        "pid": os.getpid(),
        "where": "file.py:7",
        "stream": "live",
        "message": "somebody does",
    }
    assert "nobody listens" in capsys.readouterr().err


def test_equal_lines_are_cut_and_counted() -> None:
    limit = RepeatLimit()
    seen = [limit.admit("line", 100.0) for _ in range(REPEATS_ALLOWED + 4)]
    assert seen == [0] * REPEATS_ALLOWED + [None] * 4
    assert limit.admit("another", 100.0) == 0
    assert limit.admit("line", 100.1 + REPEAT_WINDOW_SECONDS) == 4
    assert limit.admit("line", 100.2 + REPEAT_WINDOW_SECONDS) == 0


def test_the_memory_of_lines_is_bounded() -> None:
    limit = RepeatLimit()
    for number in range(MAX_REMEMBERED_LINES * 3):
        limit.admit(str(number), 1.0)
    assert len(limit._lines) == MAX_REMEMBERED_LINES


def test_levels() -> None:
    assert parse_level("debug") == 6
    assert parse_level("WARN") == 3
    assert parse_level("10") == 10
    with pytest.raises(ValueError, match="log level"):
        parse_level("11")
    assert python_level(0) > logging.CRITICAL
    assert python_level(3) == logging.WARNING
    assert python_level(10) == logging.DEBUG
