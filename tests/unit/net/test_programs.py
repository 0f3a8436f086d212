"""Programs beside the server: their words, and that nothing of them is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from mist.errors import ConfigError
from mist.net.programs import signal_group, words_of

PARENT = """
import subprocess, sys
from mist.net.programs import end_with_parent
child = subprocess.Popen(["sleep", "60"], start_new_session=True, preexec_fn=end_with_parent, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_words() -> None:
    assert words_of("a 'b c' \"d\" e\\ f", "the command", "source") == ["a", "b c", "d", "e f"]
    for wrong in ("", "  ", "a 'b"):
        with pytest.raises(ConfigError, match="the command"):
            words_of(wrong, "the command", "source")


def test_a_program_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        ended, _, _ = select.select([child], [], [], 20)
        os.close(child)
    assert ended


def test_all_that_a_program_started_is_signalled() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True, stdout=subprocess.PIPE) as program:
        signal_group(program.pid, signal.SIGKILL)
        assert program.stdout is not None
        assert program.stdout.read() == b""  # which ends when nobody has it any more
    signal_group(program.pid, signal.SIGKILL)
