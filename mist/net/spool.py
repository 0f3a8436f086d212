"""Bytes that wait on disk for a destination that is away or slow: files in one nameless file, up to a limit."""

from __future__ import annotations

import asyncio
import heapq
import os
import tempfile
from typing import Final

from mist.errors import TransportError

BLOCK_BYTES: Final = 256 << 10
DEFAULT_LIMIT_BYTES: Final = 1 << 30
LEAST_LIMIT_BYTES: Final = 32 << 20  # room for the parts of uploads to S3
DEFAULT_FOLDER: Final = "/var/tmp"


class Spool:
    """Blocks of one file that has no name, so that nothing of it is left behind. What is given back is used again, or cut off."""

    def __init__(self, folder: str = DEFAULT_FOLDER, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """folder: on a disk. limit_bytes: from when on it is full. Raises TransportError."""
        self.limit_bytes = max(limit_bytes, LEAST_LIMIT_BYTES)
        self._free: list[int] = []
        self._end = 0  # blocks that the file has
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="mist-push-")  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise TransportError(f"{folder} cannot hold what waits for a push: {error.strerror}") from error

    @property
    def used_bytes(self) -> int:
        """How much waits, in whole blocks."""
        return (self._end - len(self._free)) * BLOCK_BYTES

    @property
    def full(self) -> bool:
        """Whether nothing more is to be put in."""
        return self.used_bytes >= self.limit_bytes

    def take_block(self) -> int:
        """Return the number of a block that nobody has."""
        if self._free:
            return heapq.heappop(self._free)
        self._end += 1
        return self._end - 1

    def give_back(self, blocks: list[int]) -> None:
        """Take blocks back, and cut off those at the end of the file."""
        for block in blocks:
            heapq.heappush(self._free, block)
        free = set(self._free)
        end = self._end
        while end and end - 1 in free:
            end -= 1
        if end < self._end:
            self._free = [block for block in self._free if block < end]
            heapq.heapify(self._free)
            self._end = end
            os.ftruncate(self._file.fileno(), end * BLOCK_BYTES)

    def write(self, block: int, at: int, data: bytes | memoryview) -> None:
        """Write into a block. Raises TransportError."""
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file.fileno(), data[done:], block * BLOCK_BYTES + at + done)
        except OSError as error:
            raise TransportError(f"what waits for a push cannot be written down: {error.strerror}") from error

    def read(self, block: int, at: int, count: int) -> bytes:
        """Read from a block."""
        return os.pread(self._file.fileno(), count, block * BLOCK_BYTES + at)

    def close(self) -> None:
        """Forget everything."""
        self._file.close()


class SpooledFile:
    """A file that is written at its end and read at some other time. start: what is before it has been let go of."""

    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self.start = 0
        self.whole = False
        self.changed = asyncio.Event()
        self._spool = spool
        self._blocks: list[int | None] = []

    def append(self, data: bytes) -> None:
        """Write at the end. Raises TransportError."""
        view, done = memoryview(data), 0
        while done < len(view):
            at = self.size % BLOCK_BYTES
            if not at:
                self._blocks.append(self._spool.take_block())
            block = self._blocks[-1]
            assert block is not None
            count = min(BLOCK_BYTES - at, len(view) - done)
            self._spool.write(block, at, view[done : done + count])
            self.size += count
            done += count
        self.changed.set()

    def patch(self, at: int, data: bytes) -> bool:
        """Write over earlier bytes; False if some of them are not here any more. Raises TransportError."""
        if at < self.start or at + len(data) > self.size:
            return False
        done = 0
        while done < len(data):
            block = self._blocks[(at + done) // BLOCK_BYTES]
            assert block is not None
            inside = (at + done) % BLOCK_BYTES
            part = data[done : done + BLOCK_BYTES - inside]
            self._spool.write(block, inside, part)
            done += len(part)
        return True

    def finish(self) -> None:
        """Say that nothing more is written."""
        self.whole = True
        self.changed.set()

    def read(self, at: int) -> bytes:
        """Return bytes from a place on, of one block at most; b"" at the end of what there is."""
        assert at >= self.start
        if at >= self.size:
            return b""
        block = self._blocks[at // BLOCK_BYTES]
        assert block is not None
        inside = at % BLOCK_BYTES
        return self._spool.read(block, inside, min(BLOCK_BYTES - inside, self.size - at))

    async def wait_beyond(self, at: int) -> None:
        """Wait until there are more bytes than so many, or the file is whole."""
        while self.size <= at and not self.whole:
            self.changed.clear()
            await self.changed.wait()

    def let_go(self, before: int) -> None:
        """Forget the bytes before a place; those of a block that is not over yet stay on disk."""
        self.start = max(self.start, before)
        self._drop(self.start // BLOCK_BYTES)

    def discard(self) -> None:
        """Forget everything."""
        self.start = self.size
        self._drop(len(self._blocks))

    def _drop(self, end: int) -> None:
        gone = [block for block in self._blocks[:end] if block is not None]
        if gone:
            self._blocks[:end] = [None] * end
            self._spool.give_back(gone)
