"""Which code a process runs, and which is installed now."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

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
    return installed_build() + ("" if not _number else f"+{_number}")


_number = 0


def set_number(number: int) -> None:
    """Tell one start of the same code from the one before. Before the first `running_build`."""
    global _number
    _number = number


def is_current() -> bool:
    """Tell whether what runs is what is installed."""
    return running_build().removesuffix(f"+{_number}") == installed_build()
