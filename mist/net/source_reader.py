"""Bytes of a source by position: local files, pipes, and http(s) servers. Reading blocks; errors name source and byte."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from abc import ABC, abstractmethod
from typing import Final
from urllib.parse import unquote, urlsplit

from mist.errors import RemoteProtocolError, TransportError, UnsupportedError

STANDARD_INPUT: Final = "-"
PIPE_BYTES: Final = 1 << 20  # asked of the kernel for pipes: fewer switches between the two processes
HEAD_BYTES: Final = 1 << 16  # of a pipe are kept, for a second look at its beginning
SKIP_BYTES: Final = 1 << 18
SOURCE_CHANGED: Final = "SOURCE_CHANGED"  # the reason of errors about a source that became another one
URL_SCHEMES: Final = ("http", "https", "s3", "s3+http", "s3+https")


class SourceReader(ABC):
    """One open source.

    name: for messages. size: in bytes, None while unknown. position_matters: reading backwards is possible.
    """

    name: str
    size: int | None = None
    can_jump: bool = True

    @abstractmethod
    def read(self, position: int, count: int) -> bytes:
        """Return up to count bytes from a position, as many as there are at once, but at least one; b"" at the end.

        Raises TransportError for what the system or the network says; RemoteProtocolError with the offset for a source that
        has become another while it was read; UnsupportedError for one that cannot be read out of order.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class FileReader(SourceReader):
    """A regular file. It may grow while it is read; one that shrinks is an error."""

    def __init__(self, path: str, fd: int) -> None:
        """Take over an open descriptor."""
        self.name = path
        self._fd = fd
        self.size = os.fstat(fd).st_size
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read(self, position: int, count: int) -> bytes:
        """Return bytes from a position."""
        try:
            data = os.pread(self._fd, count, position)
            if not data and position < (self.size or 0):
                self._check_size(position)
        except OSError as error:
            raise TransportError(f"{self.name}: byte {position}: {error.strerror}") from error
        return data

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's."""
        return self._fd

    def _check_size(self, position: int) -> None:
        now = os.fstat(self._fd).st_size
        raise RemoteProtocolError(
            f"it was cut from {self.size} to {now} bytes while it was read", offset=position, reason=SOURCE_CHANGED
        )

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PipeReader(SourceReader):
    """A pipe, socket or terminal: read once, from front to back. Only its first HEAD_BYTES can be looked at again."""

    can_jump = False

    def __init__(self, name: str, fd: int, *, owned: bool = True) -> None:
        """Read from a descriptor. owned: it is closed at the end."""
        self.name = name
        self._fd = fd
        self._owned = owned
        self._head = b""
        self._at = 0
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            except PermissionError:  # over the user's bound for pipes: the smaller pipe does as well
                pass

    def read(self, position: int, count: int) -> bytes:
        """Return bytes from a position, which must not be before what was read, but for the head."""
        if position < len(self._head):
            return self._head[position : position + count]
        while position > self._at and (skipped := self._take(min(position - self._at, SKIP_BYTES))):
            del skipped
        if position > self._at:
            return b""
        if position < self._at:
            raise UnsupportedError(
                f"it is a pipe, of which byte {self._at} is next, and byte {position} is needed: "
                "a file like this cannot be read from a pipe",
                offset=position,
            )
        return self._take(count)

    def _take(self, count: int) -> bytes:
        try:
            data = os.read(self._fd, count)
        except OSError as error:
            raise TransportError(f"{self.name}: byte {self._at}: {error.strerror}") from error
        if len(self._head) == self._at and self._at + len(data) <= HEAD_BYTES:
            self._head += data
        self._at += len(data)
        return data

    def close(self) -> None:
        """Close the pipe."""
        if self._owned and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def is_url(source: str) -> bool:
    """Tell whether a source is on an http(s) server, an S3 store among them."""
    scheme, mark, _ = source.partition("://")
    return bool(mark) and scheme.lower() in URL_SCHEMES


def path_of(source: str) -> str:
    """Return the path in a source, as its suffix is looked for: without query, and without host for URLs."""
    return unquote(urlsplit(source).path) if is_url(source) or source.startswith("file://") else source


def open_source(source: str) -> SourceReader:
    """Open a source: "-" for standard input, a path, a file: URL, or an http(s) or S3 URL. Raises TransportError."""
    if source == STANDARD_INPUT:
        if sys.stdin is None:
            raise TransportError("standard input is closed")
        return PipeReader("standard input", sys.stdin.fileno(), owned=False)
    if is_url(source):
        from mist.net.http_source import HttpReader

        return HttpReader(source)
    path = path_of(source)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TransportError(f"{source}: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        os.close(fd)
        raise TransportError(f"{source}: it is a folder")
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return FileReader(source, fd)
    return PipeReader(source, fd)
