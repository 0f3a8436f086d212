"""Which code a process runs, since which start of a main process, and which is installed now.

A build is the version and a digest of what is installed, and, but for the first start, a mark: `+NUMBER` of times that the main process
was replaced as somebody wished, and `.CRASHES` since then. Processes of one edition differ in the last alone: they run the same code,
and nobody has asked for others.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Final

import mist
from mist.core import shm

CODE = (".py", ".so", ".json", ".js", ".css", ".html")


def installed_build() -> str:
    """Return the version and a digest of the names, sizes and times of the installed files."""
    digest = hashlib.sha256()
    for folder in sorted({Path(mist.__file__).parent, Path(shm.__file__).parent}):
        for where, folders, files in os.walk(folder):
            folders[:] = sorted(one for one in folders if one != "__pycache__")
            for name in sorted(files):
                if name.endswith(CODE):
                    found = os.stat(os.path.join(where, name))
                    digest.update(f"{where}/{name}|{found.st_size}|{found.st_mtime_ns}\n".encode())
    return f"{mist.__version__}-{digest.hexdigest()[:12]}"


@cache
def running_build() -> str:
    """Return what was installed when the main process started; all that it forks says the same."""
    return installed_build() + _mark


_mark = ""
_MARK: Final = re.compile(r"\+(\d{1,9})(?:\.(\d{1,9}))?\Z")


def set_start(number: int, crashes: int = 0) -> None:
    """Tell one start of the same code from the one before. Before the first `running_build`."""
    global _mark
    _mark = f"+{number}.{crashes}" if crashes else f"+{number}" if number else ""


def start_of(build: str) -> tuple[int, int]:
    """Return the number and the crashes that a build's mark tells of."""
    found = _MARK.search(build)
    return (0, 0) if found is None else (int(found[1]), int(found[2] or 0))


def is_after_crash() -> bool:
    """Tell whether the main process before this one was killed: what it had started goes on, of the same code."""
    return start_of(running_build())[1] > 0


def is_same_edition(build: str) -> bool:
    """Tell whether a process is of the same code and number as this one, whatever main processes crashed in between."""
    here = running_build()
    return (_MARK.sub("", build), start_of(build)[0]) == (_MARK.sub("", here), start_of(here)[0])


def is_current() -> bool:
    """Tell whether what runs is what is installed."""
    return running_build().removesuffix(_mark) == installed_build()
