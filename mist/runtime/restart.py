"""A restart by the service manager: only the main process ends, and the next one takes over all others.

systemd ends a service for a restart as it ends it for good, by SIGTERM; which of the two it is, its list of jobs says. With
`KillMode=process` the other processes are left alone. They find the next main process as after the death of one
(`mist.runtime.rejoin`), and since that one counts as other code they are replaced, one after the other, as in an upgrade: so a restart
is a new process for everything, and nobody's connection ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Final

from mist.runtime.build import start_of
from mist.runtime.control import former_status
from mist.runtime.instance import Instance, write_atomically

# The environment variable by which the unit names itself, and so says that it leaves processes alone.
UNIT: Final = "MIST_UNIT"
ASK_SECONDS: Final = 2.0
JOBS: Final = ("restart", "try-restart")


def is_wanted() -> bool:
    """Tell whether the service manager stops this service in order to start it again; False when it cannot be asked."""
    unit = os.environ.get(UNIT, "")
    if not unit:
        return False
    question = ["systemctl", "list-jobs", "--no-legend", "--no-pager", "--plain", unit]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=ASK_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return False
    jobs = (line.split() for line in answer.splitlines())
    return any(len(words) >= 3 and words[1] == unit and words[2] in JOBS for words in jobs)


def leave_note(instance: Instance, number: int) -> None:
    """Tell the next main process that it replaces this one, of that number. Raises OSError."""
    write_atomically(instance.restart_note, b"%d" % number)


def number_left(instance: Instance) -> int:
    """Return the number for a main process that replaces another by a restart, 0 when it does not, or none can be read."""
    try:
        return int(instance.restart_note.read_bytes()[:9]) + 1
    except (OSError, ValueError):
        return 0


def start_after(instance: Instance) -> tuple[int, int]:
    """Return the number of this start, and how many main processes have crashed since it was the number (`mist.runtime.build`)."""
    number = number_left(instance)
    if number:
        return number, 0
    former = str(former_status(instance).get("build", ""))
    number, crashes = start_of(former)
    return number, crashes + 1 if former else 0


def forget_note(instance: Instance) -> None:
    """Take the note away: it has been acted upon."""
    with contextlib.suppress(FileNotFoundError):
        instance.restart_note.unlink()
