"""A local file that is read in pieces, and noticed when it becomes another one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mist.errors import MistError, NotFound


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class LocalFile:
    """An open file. It stays readable when its name goes away."""

    def __init__(self, path: str) -> None:
        """Open it. Raises NotFound (no such file, no permission, no regular file), with a text for the operator."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise NotFound(f"{path} cannot be opened: {text}", reason="READ_START_FAILURE") from None
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise NotFound(f"{path} is not a file", reason="READ_START_FAILURE")
        self.size = status.st_size
        self.identity = _identity(status)
        self.modified_ns = status.st_mtime_ns

    def read(self, position: int, count: int) -> bytes:
        """Return up to count bytes; none at the end of the file. Raises MistError."""
        try:
            return os.pread(self._fd, count, position)
        except OSError as error:
            text = f"{self.path} cannot be read at byte {position}: {error.strerror}"
            raise MistError(text, reason="READ_FAILURE") from None

    def changed(self) -> str:
        """Return what has become of the file since it was opened, "" when nothing has."""
        try:
            now = _identity(Path(self.path).stat())
        except OSError as error:
            return f"{self.path} is gone: {error.strerror}"
        if now == self.identity:
            return ""
        if now[0] != self.identity[0]:
            return f"{self.path} was replaced by another file"
        return f"{self.path} has changed: {now[1]} bytes instead of {self.identity[1]}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
