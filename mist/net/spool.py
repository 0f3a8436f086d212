"""Bytes that wait on disk for a destination that is away or slow: files in one nameless file, up to a limit."""

from __future__ import annotations

import asyncio
import heapq
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mist.errors import TransportError

BLOCK_BYTES: Final = 256 << 10
DEFAULT_LIMIT_BYTES: Final = 1 << 30
LEAST_LIMIT_BYTES: Final = 32 << 20  # room for the parts of uploads to S3
DEFAULT_FOLDER: Final = "/var/tmp"


class Spool:
    """Blocks of one file that has no name, so that nothing of it is left behind. What is given back is used again, or cut off."""

    def __init__(self, folder: str = DEFAULT_FOLDER, limit_bytes: int = DEFAULT_LIMIT_BYTES, fd: int = -1) -> None:
        """folder: on a disk. limit_bytes: from when on it is full. fd: of another process's file, which is gone on with.

        Raises TransportError.
        """
        self.limit_bytes = max(limit_bytes, LEAST_LIMIT_BYTES)
        self._free: list[int] = []
        self._given_back: list[int] = []
        self._waits = False
        self._end = 0  # blocks that the file has
        if fd >= 0:
            self._fd = fd
            return
        try:
            with tempfile.TemporaryFile(dir=folder, prefix="mist-push-") as file:
                self._fd = os.dup(file.fileno())
        except OSError as error:
            raise TransportError(f"{folder} cannot hold what waits for a push: {error.strerror}") from error

    @property
    def used_bytes(self) -> int:
        """How much waits, in whole blocks."""
        return (self._end - len(self._free) - len(self._given_back)) * BLOCK_BYTES

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

    def fileno(self) -> int:
        return self._fd

    def claim(self, blocks: Sequence[int]) -> None:
        """Say which blocks of another process's file are in use, all in one call."""
        self._end = max(blocks, default=-1) + 1
        self._free = sorted(set(range(self._end)) - set(blocks))

    def wait_for_notes(self, wanted: bool) -> None:
        """Use blocks that are given back not before `noted` is called: what another process would go on with may name them."""
        self._waits = wanted
        self.noted()

    def noted(self) -> None:
        """Say that what is written down names no block that was given back before."""
        blocks, self._given_back = self._given_back, []
        if blocks:
            self._release(blocks)

    def give_back(self, blocks: list[int]) -> None:
        """Take blocks back."""
        if self._waits:
            self._given_back += blocks
        else:
            self._release(blocks)

    def _release(self, blocks: list[int]) -> None:
        """Have blocks used again, and cut off those at the end of the file."""
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
            os.ftruncate(self._fd, end * BLOCK_BYTES)

    def write(self, block: int, at: int, data: bytes | memoryview) -> None:
        """Write into a block. Raises TransportError."""
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], block * BLOCK_BYTES + at + done)
        except OSError as error:
            raise TransportError(f"what waits for a push cannot be written down: {error.strerror}") from error

    def read(self, block: int, at: int, count: int) -> bytes:
        """Read from a block."""
        return os.pread(self._fd, count, block * BLOCK_BYTES + at)

    def close(self) -> None:
        """Forget everything."""
        os.close(self._fd)


class SpooledFile:
    """A file that is written at its end and read at some other time. start: what is before it has been let go of."""

    def __init__(self, spool: Spool) -> None:
        self.size = 0
        self.start = 0
        self.whole = False
        self.changed = asyncio.Event()
        self._spool = spool
        self._blocks: list[int | None] = []

    def state(self, size: int | None = None) -> dict[str, Any]:
        """Return where its bytes are, as JSON has it. size: as if it had been written up to there only."""
        first = self.start // BLOCK_BYTES
        return {
            "size": self.size if size is None else size,
            "start": self.start,
            "whole": self.whole and size is None,
            "first": first,
            "blocks": [block for block in self._blocks[first:] if block is not None],
        }

    @classmethod
    def restore(cls, spool: Spool, state: Mapping[str, Any]) -> SpooledFile:
        """Return the file of a state; `Spool.claim` is to be told of its blocks. Raises KeyError, TypeError, ValueError."""
        file = cls(spool)
        size, start = int(state["size"]), int(state["start"])
        blocks = [int(block) for block in state["blocks"]][: -(-size // BLOCK_BYTES) - int(state["first"])]
        file.size, file.start, file.whole = size, min(start, size), bool(state["whole"])
        file._blocks = [None] * int(state["first"]) + blocks
        if len(file._blocks) != -(-size // BLOCK_BYTES):
            raise ValueError(f"{len(file._blocks)} blocks for {size} bytes")
        return file

    @property
    def blocks(self) -> list[int]:
        """The blocks that it has."""
        return [block for block in self._blocks if block is not None]

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
