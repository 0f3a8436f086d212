"""What the main process imports before it forks."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from mist.app import preload_readers

preload_readers({".mp4", ".avi", ".unknown"})
print(*(name for name in ("mist.core.mp4_demux", "mist.core.ts_demux", "mist.formats.libav", "av") if name in sys.modules))
"""


def test_only_what_reads_the_files_that_there_are_and_no_large_library() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mist.core.mp4_demux"]
