"""Opens a source for reading by position: by what its name says, and what lies there."""

from __future__ import annotations

import os
import stat
import sys

from mist.errors import TransportError
from mist.net.source_reader import STANDARD_INPUT, FileReader, PipeReader, SourceReader, is_url, path_of


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
