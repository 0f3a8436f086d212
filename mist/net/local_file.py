"""A local file that is read in pieces, and noticed when it becomes another one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mist.errors import NotFound, RemoteProtocolError
from mist.net.source_reader import SOURCE_CHANGED, FileReader


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_pipe(path: str) -> bool:
    """Tell whether a path is a named pipe."""
    try:
        return Path(path).is_fifo()
    except (OSError, ValueError):
        return False


class LocalFile(FileReader):
    """An open regular file. It stays readable when its name goes away.

    waits: reading may take as long as a network takes. lasting: this file can be told from another one later.
    """

    waits = False
    lasting = True

    def __init__(self, path: str) -> None:
        """Open it. Raises NotFound (no such file, no permission, no regular file), with a text for the operator."""
        self.path = path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise NotFound(f"{path} cannot be opened: {text}", reason="READ_START_FAILURE") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise NotFound(f"{path} is not a file", reason="READ_START_FAILURE")
        super().__init__(path, fd)
        self.identity = _identity(status)
        self.modified_ns = status.st_mtime_ns

    def another(self) -> LocalFile:
        """Return the same file for another reader of it."""
        return self

    def stop(self) -> None:
        """End what another thread reads: there is none."""

    def check(self, position: int) -> None:
        """Raise RemoteProtocolError when somebody has written into the file since it was opened. position: of what was just read."""
        now = _identity(os.fstat(self._fd))
        if now != self.identity:
            text = f"it was overwritten while it was read, and has {now[1]} bytes instead of {self.identity[1]}"
            raise RemoteProtocolError(f"{self.path}, byte {position}: {text}", offset=position, reason=SOURCE_CHANGED)

    def changed(self, grows: bool = False) -> str:
        """Return what has become of the file since it was opened, "" when nothing has. grows: that it may have become longer."""
        try:
            now = _identity(Path(self.path).stat())
        except OSError as error:
            return f"{self.path} is gone: {error.strerror}"
        if now == self.identity or (grows and now[0] == self.identity[0] and now[1] > self.identity[1]):
            return ""
        if now[0] != self.identity[0]:
            return f"{self.path} was replaced by another file"
        if now[1] == self.identity[1]:
            return f"{self.path} has changed: somebody has written into it"
        return f"{self.path} has changed: {now[1]} bytes instead of {self.identity[1]}"
