"""Long work on the event loop in short pieces: other commands get their turn in between, and the collector of cycles stays short."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

PIECE_SECONDS: Final = 0.005
LONG_COLLECTION_SECONDS: Final = 0.005  # of a core
FULL_AFTER: Final = 3  # collections of the middle generation, instead of 10: each full one has less to look at
FREED_AT_ONCE: Final = 100


class Turns:
    """Awaited often by long work: lets others have their turn once the work has gone on for `PIECE_SECONDS`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def __call__(self) -> None:
        if time.perf_counter() - self._began >= PIECE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


async def let_go(held: list[Any]) -> None:
    """Let go of what may be freed with it, in turns: to free the streams of a large configuration takes long."""
    turns = Turns()
    while held:
        del held[-FREED_AT_ONCE:]
        await turns()


@contextmanager
def short_collections() -> Iterator[None]:
    """Keep the collector of cycles from stopping the process for long, while this lasts.

    What survives a collection that took long lives long, as the streams of a large configuration do: later collections do
    not look at it any more. It is freed as ever when nothing refers to it. The collector waits the longer for its next
    look at everything the more it found in the last; so it is shown at once how little is left.
    """
    began = 0.0
    loop = asyncio.get_running_loop()

    def noted(phase: str, info: dict[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.thread_time()
        elif time.thread_time() - began > LONG_COLLECTION_SECONDS:
            gc.freeze()
            loop.call_soon_threadsafe(gc.collect)  # a collection within this one would not be made

    young, middle, full = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)
    gc.callbacks.append(noted)
    try:
        yield
    finally:
        gc.callbacks.remove(noted)
        gc.set_threshold(young, middle, full)
