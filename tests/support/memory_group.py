"""A control group with a bound on memory, in which the kernel kills a process when the bound is reached."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.processes import wait_until

GROUPS = Path("/sys/fs/cgroup/memory")  # of version 1
FIRST = 1000  # the adjustment with which a process is killed before all others
ROOM_BYTES = 48 << 20
HOG_S = 60

# Takes memory until somebody in its group was killed for that, then lets go of all.
HOG = """
import re, sys
def kills():
    return int(re.search(r"oom_kill (\\d+)", open(sys.argv[1]).read())[1])
before, held = kills(), []
while kills() == before:
    held.append(b"x" * (1 << 16))
"""


class MemoryGroup:
    """One group, made and removed here. Raises OSError when this machine or user has no such groups."""

    def __init__(self) -> None:
        self._folder = GROUPS / f"mist-test-{os.getpid()}"
        if not (GROUPS / "memory.oom_control").exists():
            raise FileNotFoundError(f"no memory groups of version 1 at {GROUPS}")
        self._folder.mkdir()

    @property
    def wrap(self) -> tuple[str, ...]:
        """What starts a command inside the group."""
        return ("sh", "-c", f'echo $$ > {self._folder}/cgroup.procs && exec "$@"', "sh")

    def kill(self, pid: int) -> None:
        """Let the memory of the group run out so that this process is killed by the kernel, before all others there."""
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(FIRST))
        used = int((self._folder / "memory.usage_in_bytes").read_text())
        (self._folder / "memory.limit_in_bytes").write_text(str(used + ROOM_BYTES))
        try:
            command = [*self.wrap, sys.executable, "-S", "-c", HOG, str(self._folder / "memory.oom_control")]
            subprocess.run(command, check=True, timeout=HOG_S)
        finally:
            (self._folder / "memory.limit_in_bytes").write_text("-1")

    def remove(self) -> None:
        """Remove the group; those who are in it have ended."""

        def removed() -> bool:
            with suppress(OSError):
                self._folder.rmdir()
            return not self._folder.exists()

        wait_until(removed, 10, "the end of the group's processes")
