"""Work that is not to hold up the processes that serve: at low priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# A third of what others of the usual priority get beside it: more would keep those waiting too long who need what is loaded.
NICENESS: Final = 5


def gently(work: Callable[[], T]) -> T:
    """Do something in a thread of low priority, and return its result. Raises what it raises.

    A process whose user is not root cannot raise its priority again; the priority of a thread ends with it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, max(NICENESS, os.getpriority(os.PRIO_PROCESS, own)))
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again below, by who asked)
            errors.append(error)

    thread = threading.Thread(target=run, name="gently")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
