"""Work that takes long, on what the controller knows: done in a forked process, so that other commands are answered meanwhile.

Threads would not do: Python runs one of them at a time, and some of its calls take long for a large configuration.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from mist.errors import MistError

MAX_AT_ONCE: Final = 2  # each may need as much memory as the controller

# Runs a function in a forked process, and tells what it returned, None if it failed, and the seconds of a core that it took.
# Returns what ends it.
RunBeside = Callable[[Callable[[], bytes], Callable[[bytes | None, float], None]], Callable[[], None]]
_T = TypeVar("_T")


class Beside:
    """Runs functions in forked processes, a few at once."""

    def __init__(self, run: RunBeside) -> None:
        self._run = run
        self._free = asyncio.Semaphore(MAX_AT_ONCE)
        self._ends: set[Callable[[], None]] = set()

    async def __call__(self, work: Callable[[], _T]) -> _T:
        """Run a function on what is known now, and return what it returned: plain values.

        Raises the MistError or OSError that it raised, and MistError when its process has failed.
        """
        async with self._free:
            future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

            def ended(data: bytes | None, seconds: float) -> None:
                if not future.done():
                    future.set_result(data)

            end = self._run(partial(_told, work), ended)
            self._ends.add(end)
            try:
                data = await future
            except asyncio.CancelledError:
                if end in self._ends:
                    end()
                raise
            finally:
                self._ends.discard(end)
        if data is None:
            raise MistError("the process that was to do it has failed")
        worked, value = pickle.loads(data)
        if not worked:
            raise value
        result: _T = value
        return result

    def close(self) -> None:
        """End what runs: nothing is written by it any more."""
        while self._ends:
            self._ends.pop()()


def _told(work: Callable[[], Any]) -> bytes:
    try:
        told = (True, work())
    except (MistError, OSError) as error:
        told = (False, error)
    return pickle.dumps(told, pickle.HIGHEST_PROTOCOL)
