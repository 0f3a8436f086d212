"""Memory that is given back: only what can be read from its file again."""

from __future__ import annotations

import zlib

from mist.runtime.resident import _untouched, give_back

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
