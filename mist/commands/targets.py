"""Outputs of commands: a file that has its name only once it is whole, or a pipe."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from mist.core.buffer import ByteBuffer
from mist.errors import TransportError

PART_SUFFIX: Final = ".part"
BLOCK_BYTES: Final = 1 << 12
BLOCKS_BYTES: Final = 1 << 19


class Target(Protocol):
    """Where an output goes.

    name: for messages. rewritable: bytes that were written can be written over at the end.
    """

    name: str
    rewritable: bool

    def write(self, output: ByteBuffer, *, last: bool = False) -> None:
        """Take bytes from the front of a buffer and write them, all if they are the last.

        Raises TransportError, BrokenPipeError.
        """

    def complete(self, patches: list[tuple[int, bytes]]) -> None:
        """Write over earlier bytes, by their position in the output, and call the output whole."""

    def keep(self, patches: list[tuple[int, bytes]]) -> str:
        """Close what could not be made whole, but is worth something. Returns where it is left, or ""."""

    def discard(self) -> None:
        """Leave nothing behind, as far as that is possible."""


class FileTarget:
    """A file, written under another name beside it and renamed when it is whole."""

    rewritable = True

    def __init__(self, path: str) -> None:
        """Raises TransportError."""
        self.name = path
        self._path = Path(path)
        self._part = self._path.with_name(self._path.name + PART_SUFFIX)
        try:
            self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise TransportError(f"{self._part}: {error.strerror}") from error

    def write(self, output: ByteBuffer, *, last: bool = False) -> None:
        """Append whole blocks, many at once: that costs the least."""
        size = len(output)
        if last or size >= BLOCKS_BYTES:
            _write(self._fd, output, size if last else size - size % BLOCK_BYTES, self.name)

    def complete(self, patches: list[tuple[int, bytes]]) -> None:
        """Write the patches and give the file its name."""
        self.keep(patches)
        try:
            self._part.rename(self._path)
        except OSError as error:
            raise TransportError(f"{self.name}: {error.strerror}") from error

    def keep(self, patches: list[tuple[int, bytes]]) -> str:
        """Write the patches, and leave the file the name it has."""
        try:
            for position, data in patches:
                os.pwrite(self._fd, data, position)
            self._close()
        except OSError as error:
            raise TransportError(f"{self.name}: {error.strerror}") from error
        return str(self._part)

    def discard(self) -> None:
        """Remove the file."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PipeTarget:
    """An open descriptor, such as standard output; a file there that was not opened for appending can be written over."""

    def __init__(self, name: str, fd: int, *, owned: bool = False) -> None:
        """Write to a descriptor. owned: it is closed at the end."""
        self.name = name
        self._fd = fd
        self._owned = owned
        mode = os.fstat(fd).st_mode
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        self.rewritable = stat.S_ISREG(mode) and not appends
        self._begin = os.lseek(fd, 0, os.SEEK_CUR) if self.rewritable else 0
        if stat.S_ISFIFO(mode):
            _widen(fd)

    def write(self, output: ByteBuffer, *, last: bool = False) -> None:
        """Append all at once: somebody may be waiting for it."""
        if len(output):
            _write(self._fd, output, len(output), self.name)

    def complete(self, patches: list[tuple[int, bytes]]) -> None:
        """Write the patches where that is possible."""
        if self.rewritable:
            for position, data in patches:
                os.pwrite(self._fd, data, self._begin + position)
        self.discard()

    def keep(self, patches: list[tuple[int, bytes]]) -> str:
        """Write the patches where that is possible."""
        self.complete(patches)
        return ""

    def discard(self) -> None:
        """Leave what is written: it cannot be taken back."""
        if self._owned:
            os.close(self._fd)
            self._owned = False


def open_target(path: str) -> Target:
    """Open a target: a path, or a device or named pipe, which is written directly. Raises TransportError."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return FileTarget(path)
    except OSError as error:
        raise TransportError(f"{path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise TransportError(f"{path}: it is a folder")
    if stat.S_ISREG(mode):
        return FileTarget(path)
    try:
        return PipeTarget(path, os.open(path, os.O_WRONLY | os.O_CLOEXEC), owned=True)
    except OSError as error:
        raise TransportError(f"{path}: {error.strerror}") from error


def _write(fd: int, output: ByteBuffer, count: int, name: str) -> None:
    try:
        output.write_to(fd, count)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TransportError(f"{name}: {error.strerror}") from error


def _widen(fd: int) -> None:
    """Ask the kernel for a pipe of a megabyte, so that the two processes switch less often."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    except PermissionError:  # over the user's bound for pipes: the smaller pipe does as well
        pass
