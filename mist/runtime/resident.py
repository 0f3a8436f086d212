"""The memory of a process: what it has mapped and does not need, and what it shares with a process that it forked."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SMAPS = Path("/proc/self/smaps")
_MAPS = Path("/proc/self/maps")
_PAGE_MAP = Path("/proc/self/pagemap")
# "7f00a1000-7f00a2000 r-xp 00000000 08:01 1234   /usr/lib/libz.so": only what is of a file, and cannot be written.
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [1-9][0-9]* ")
# "7f00a1000-7f00a2000 rw-p 00000000 00:00 0", or one called [heap]: what objects are in.
_OBJECTS: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ 00:00 0 *(?:\[heap\])?$", re.MULTILINE)
_ENTRY_BYTES: Final = 8  # of a page in the page map, the last of which says that it is there, and mapped by nobody else
_OWN: Final = re.compile(rb"\x81+")
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE of Linux 5.14
_PIECE_BYTES: Final = 1 << 20
_C: Final = ctypes.CDLL(None, use_errno=True)


def give_back() -> None:
    """Give memory back to the system that nothing is in, or that can be read from its file again.

    The allocator's free pages, and the pages of programs and libraries: each module has run its start once, and most of the code of
    others is never run. What is run again is mapped again from the page cache. Children that are forked later map what they use.
    """
    _C.malloc_trim(ctypes.c_size_t(0))
    for start, end in tuple(_untouched(_SMAPS.read_text())):
        _C.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _untouched(smaps: str) -> Iterator[tuple[int, int]]:
    """Return the (start, end) of mappings of files of which no page was changed: the linker writes into some before it seals them."""
    span = None
    for line in smaps.splitlines():
        found = _MAPPING.match(line)
        if found is not None:
            span = int(found[1], 16), int(found[2], 16)
        elif not line[0].isupper():
            span = None
        elif span is not None and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                yield span
            span = None


def own_pages() -> list[tuple[int, int]]:
    """Return the (start, size) of memory with objects in it that no other process has, as it has what was there before a fork."""
    found: list[tuple[int, int]] = []
    with _PAGE_MAP.open("rb", buffering=0) as file:
        for match in _OBJECTS.finditer(_MAPS.read_text()):
            start, end = int(match[1], 16), int(match[2], 16)
            entries = os.pread(
                file.fileno(), (end - start) // mmap.PAGESIZE * _ENTRY_BYTES, start // mmap.PAGESIZE * _ENTRY_BYTES
            )
            for run in _OWN.finditer(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]):
                found.append((start + run.start() * mmap.PAGESIZE, len(run[0]) * mmap.PAGESIZE))
    return found


def unshare(pages: list[tuple[int, int]]) -> None:
    """Have memory copied that a fork has made shared, many pages at a time, before each costs a fault when it is touched.

    pages: (start, size) of what was the process's own. The interpreter's lock is held for a small part of it: for use in a
    thread. What was unmapped meanwhile is passed over, and a kernel that cannot do it leaves all as it was.
    """
    for start, size in pages:
        for at in range(start, start + size, _PIECE_BYTES):
            length = min(_PIECE_BYTES, start + size - at)
            _C.madvise(ctypes.c_void_p(at), ctypes.c_size_t(length), _POPULATE_WRITE)
