"""Reads of an index file what is needed to begin with, which is a small part of it.

The log of all packets, and the parts that other programs want, are most of an index of a long film and stay on disk.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import zlib
from pathlib import Path
from typing import Final

from mist.core.dtsc import MAX_HEADER_BYTES
from mist.core.dtsc_objects import MAX_DEPTH
from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats.dtsh import HEAD_BYTES

BLOCK_BYTES: Final = 64 << 10  # read at once
LEFT_BYTES: Final = 4 * BLOCK_BYTES  # of a member that stays on disk; shorter ones are read
LEFT: Final = (b"parts", b"packets")
PACKETS: Final = (b"mist", b"packets")  # names of the member that has the log of all packets
MAX_WALKED: Final = 1 << 12  # values; an index with more of them is read whole
_INTEGER, _STRING, _NULL, _DOUBLE, _ARRAY = 0x01, 0x02, 0x03, 0x04, 0x0A
_OBJECTS: Final = (0xE0, 0xFF)


class _Odd(Exception):
    """Something that an index of ours does not have: whoever parses the whole can tell what is wrong."""


class PacketsOnDisk:
    """The log of all packets of an index whose rest was read."""

    def __init__(self, fd: int, begin: int, end: int) -> None:
        """fd: of the index; it is this object's from now on. begin, end: bytes of the log. `check` must be set before `read`."""
        self._fd = fd
        self._begin = begin
        self._end = end
        self.check = 0

    def read(self) -> memoryview:
        """Return the log and close the file. May be called in a thread. Raises RemoteProtocolError, OSError."""
        fd, self._fd = self._fd, -1
        try:
            count = self._end - self._begin
            room = memoryview(large_room(count))[:count]
            fill(fd, self._begin, room)
        finally:
            os.close(fd)
        if zlib.crc32(room) != self.check:
            raise RemoteProtocolError("the checksum of its packets is wrong", spec="DTSC")
        return room

    def close(self) -> None:
        """Let the file go, if it was not read."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class IndexReader:
    """An open index file. data: its content, of which what stays on disk reads as zeros."""

    def __init__(self, path: Path, status: os.stat_result) -> None:
        """Read it. Raises OSError, RemoteProtocolError, LimitExceededError."""
        if not stat.S_ISREG(status.st_mode):
            raise RemoteProtocolError("it is not a file")
        if status.st_size > MAX_HEADER_BYTES:
            raise LimitExceededError(f"{status.st_size} bytes; the limit is {MAX_HEADER_BYTES}")
        self._size = status.st_size
        self.data = mmap.mmap(-1, max(self._size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._done = bytearray(self._size // BLOCK_BYTES + 1)
        self._walked = 0
        self._packets: tuple[int, int] | None = None
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_needed()
        except BaseException:
            self.close()
            raise

    def _read_needed(self) -> None:
        self._need(0, min(self._size, HEAD_BYTES + 1))
        try:
            self._container(HEAD_BYTES, ())
        except _Odd:
            self._packets = None
            self._need(0, self._size)

    def take_packets(self) -> PacketsOnDisk | None:
        """Return the log of all packets, None if it was read like everything else. The file is closed, or the log's."""
        if self._packets is None:
            self.close()
            return None
        fd, self._fd = self._fd, -1
        return PacketsOnDisk(fd, *self._packets)

    def close(self) -> None:
        """Let the file go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _need(self, begin: int, end: int) -> None:
        """Have bytes of the file in `data`."""
        if end > self._size:
            raise _Odd
        first, last = begin // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        while first < last and self._done[first]:
            first += 1
        while first < last and self._done[last - 1]:
            last -= 1
        if first < last:
            with memoryview(self.data) as view, view[first * BLOCK_BYTES : min(last * BLOCK_BYTES, self._size)] as room:
                fill(self._fd, first * BLOCK_BYTES, room)
            self._done[first:last] = b"\1" * (last - first)

    def _number(self, at: int, count: int) -> int:
        self._need(at, at + count)
        return int.from_bytes(self.data[at : at + count], "big")

    def _container(self, at: int, names: tuple[bytes, ...]) -> int:
        """Read an object or array that begins at a place; returns where it ends."""
        kind = self._number(at, 1)
        if len(names) >= MAX_DEPTH or (kind != _ARRAY and kind not in _OBJECTS):
            raise _Odd
        at += 1
        while length := self._number(at, 2):
            name = b""
            if kind != _ARRAY:
                self._need(at, at + 2 + length)
                name = self.data[at + 2 : at + 2 + length]
                at += 2 + length
            at = self._value(at, (*names, name))
        self._need(at, at + 3)
        return at + 3

    def _value(self, at: int, names: tuple[bytes, ...]) -> int:
        kind = self._number(at, 1)
        self._walked += 1
        if self._walked > MAX_WALKED:
            raise _Odd
        if kind in (_INTEGER, _DOUBLE):
            self._need(at, at + 9)
            return at + 9
        if kind == _NULL:
            return at + 1
        return self._string(at, names) if kind == _STRING else self._container(at, names)

    def _string(self, at: int, names: tuple[bytes, ...]) -> int:
        count = self._number(at + 1, 4)
        begin, end = at + 5, at + 5 + count
        if end > self._size:
            raise _Odd
        left = count >= LEFT_BYTES and names[-1] in LEFT
        if names == PACKETS:
            self._packets = (begin, end) if left else None
        if not left:
            self._need(begin, end)
        return end


def large_room(size_bytes: int) -> mmap.mmap:
    """Return memory in large pages where the system has them: touching it in small ones would take longer than filling it."""
    room = mmap.mmap(-1, max(size_bytes, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without such pages
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


def fill(fd: int, position: int, room: memoryview) -> None:
    """Read bytes of a file that must be there. Raises RemoteProtocolError, OSError."""
    done = 0
    while done < len(room):
        count = os.preadv(fd, [room[done:]], position + done)
        if not count:
            raise RemoteProtocolError(f"it ends at byte {position + done}, {len(room) - done} bytes early")
        done += count
