"""Programs that are run beside the server: without a shell, in a process group of their own, ended with all that they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
from typing import Final

from mist.errors import ConfigError

PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)  # here, as between fork and exec little may be done


def words_of(command: str, name: str, path: str) -> list[str]:
    """Return the words of a command as a shell splits them. name, path: of what it stands in, for the message of ConfigError."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", path=path, value=command) from None
    if not words:
        raise ConfigError(f"{name} is empty", path=path, value=command)
    return words


def end_with_parent() -> None:
    """Let the program that is about to start (`preexec_fn`) be killed when this process dies, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a program, and to all that it started, if any of them is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
