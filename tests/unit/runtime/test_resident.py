"""Memory that is given back: only what can be read from its file again; and what a fork shared."""

from __future__ import annotations

import mmap
import os
import resource
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mist.runtime.resident import _untouched, give_back, own_pages, unshare

SMAPS = """\
10000-20000 r-xp 00000000 08:01 77                                       /usr/lib/a.so
Size:                 64 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
20000-30000 r--p 00010000 08:01 77                                       /usr/lib/a.so
Anonymous:             4 kB
30000-40000 rw-p 00020000 08:01 77                                       /usr/lib/a.so
Anonymous:             0 kB
40000-50000 r--s 00000000 08:01 78                                       /usr/lib/shared
Anonymous:             0 kB
50000-60000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ff0000-7ff1000 r-xp 00000000 00:00 0                                    [vdso]
Anonymous:             0 kB
ab0000-ac0000 r--p 00000000 08:01 79                                     /usr/share/with blanks (deleted)
Anonymous:             0 kB
"""


def test_only_unchanged_pages_of_files_are_given_back() -> None:
    assert list(_untouched(SMAPS)) == [(0x10000, 0x20000), (0xAB0000, 0xAC0000)]


def test_a_process_goes_on_afterwards() -> None:
    packed = zlib.compress(b"x" * 100_000)
    give_back()
    give_back()
    assert zlib.decompress(packed) == b"x" * 100_000


def minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


@contextmanager
def forked() -> Iterator[None]:
    """Have a child that shares this process's memory, and does nothing."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def test_what_a_fork_shared_is_copied_before_it_is_touched() -> None:
    pages = 2048
    with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:

        def touch() -> int:
            before = minor_faults()
            for page in range(pages):
                memory[page * mmap.PAGESIZE] = 1
            return minor_faults() - before

        touch()
        with forked():
            assert touch() >= pages
        own = own_pages()
        with forked():
            unshare(own)
            assert touch() < pages // 10


def test_what_is_not_there_or_was_shared_before_stays_as_it_is() -> None:
    """The processes of a server share what they had from the one that forked them."""
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[: 8 << 20] = b"x" * (8 << 20)
        with forked():
            memory[0] = 1
            own = own_pages()
            before = resident_bytes()
            unshare(own)
            assert memory[0] == 1
            assert resident_bytes() - before < 8 << 20
            faults = minor_faults()
            memory[: 8 << 20] = b"y" * (8 << 20)
            assert minor_faults() - faults > (8 << 20) // mmap.PAGESIZE // 2


def test_memory_that_is_gone_is_passed_over() -> None:
    memory = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: 4 << 20] = b"x" * (4 << 20)
    own = own_pages()
    memory.close()
    unshare(own)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
