"""A file of a remote source's blocks as far as they have been fetched. Several processes may fill one at the same time.

Behind the room for the source there is a record for each block: its CRC-32 and a mark. A block counts only when record and bytes
fit each other, so one that a killed process or a power failure left half-written is fetched again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mist.errors import TransportError

BLOCK_BYTES: Final = 1 << 18
SUFFIX: Final = ".asset"
ROOM_BYTES: Final = 16 << 20  # asked for at a time

_RECORD: Final = struct.Struct("<II")
_MARK: Final = 0x6D697374


class BlockFile:
    """Blocks of a source of a known size."""

    def __init__(self, path: Path | None, size: int, room: Callable[[int], bool]) -> None:
        """Open or make the file. Raises TransportError.

        path: None for one without a name, which goes with this object. size: of the source, bytes. room: is asked before so many more bytes
        are stored; where it says False, none are.
        """
        self.size = size
        self._room = room
        self._left = 0
        try:
            if path is None:
                self._fd = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_SH)  # whoever makes room leaves it alone
                os.utime(self._fd)
        except OSError as error:
            raise TransportError(f"{path or tempfile.gettempdir()}: {error.strerror}") from None

    def read(self, position: int, count: int) -> bytes:
        """Return bytes from a position, at most to the end of the block, or b"" if that block is not here."""
        number, start = divmod(position, BLOCK_BYTES)
        record = os.pread(self._fd, _RECORD.size, self._record_at(number))
        if len(record) < _RECORD.size:
            return b""
        check, mark = _RECORD.unpack(record)
        if mark != _MARK:
            return b""
        data = os.pread(self._fd, self.block_bytes(number), number * BLOCK_BYTES)
        if zlib.crc32(data) != check:
            return b""
        return data[start : start + count]

    def write(self, number: int, data: bytes) -> bool:
        """Keep a whole block; False where there is no room for it."""
        if self._left < len(data) and not self._room(ROOM_BYTES):
            return False
        self._left = (self._left if self._left >= len(data) else ROOM_BYTES) - len(data)
        try:
            os.pwrite(self._fd, data, number * BLOCK_BYTES)
            os.pwrite(self._fd, _RECORD.pack(zlib.crc32(data), _MARK), self._record_at(number))
        except OSError:  # the disk is full: what is not kept is fetched again
            return False
        return True

    def block_bytes(self, number: int) -> int:
        """Return how many bytes a block has."""
        return min(BLOCK_BYTES, self.size - number * BLOCK_BYTES)

    def _record_at(self, number: int) -> int:
        return self.size + number * _RECORD.size

    def close(self) -> None:
        """Close the file, and say that it was used until now."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.utime(self._fd)
            os.close(self._fd)
            self._fd = -1
