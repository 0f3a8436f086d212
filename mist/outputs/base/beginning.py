"""Where a viewer of a live stream begins and ends: its times as media times, and waiting for what is not there yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mist.errors import NoSuitableTrack
from mist.stream.parameters import PlaybackParameters
from mist.stream.playability import UNPLAYABLE
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices

if TYPE_CHECKING:
    from mist.outputs.base import Choice

STALL_SECONDS: Final = 5.0  # a start that is still to come is waited for while the stream goes on


async def settle_times(services: OutputServices, choice: Choice, parameters: PlaybackParameters) -> PlaybackParameters:
    """Return a live viewer's parameters with its times as media times, once the stream has the beginning that was asked for.

    An end that is past, without a start, means all from the beginning of the buffer up to there. Raises NoSuitableTrack when the
    stream ends before the beginning.
    """
    if parameters.wait_key:
        await wait_fresh_key(services, choice)
    reader, main = choice.reader, choice.indexes[0]
    state = reader.track(main)
    begin_us = max((key.dts_us for key in reader.keys(main)), default=state.last_us)
    start_us, stop_us = parameters.window(time.time_ns() // 1000, reader.wall_clock_offset_us or None, begin_us)
    if start_us is not None:
        await _wait_time(services, choice, start_us)
    elif parameters.duration_us is None and stop_us is not None and stop_us <= state.last_us:
        start_us = state.first_us
    return replace(
        parameters, start_us=start_us, stop_us=stop_us, start_unix_s=None, stop_unix_s=None, duration_us=None
    )


async def _wait_time(services: OutputServices, choice: Choice, time_us: int) -> None:
    """Wait until a chosen track has come to a time, or none of them goes on. Raises NoSuitableTrack when the stream ends."""
    reader = choice.reader

    def newest_us() -> int:
        return max((state.last_us for state in reader.tracks() if state.index in choice.indexes), default=0)

    with suppress(TimeoutError):
        while (before_us := newest_us()) < time_us:
            async with asyncio.timeout(STALL_SECONDS):
                await wait_until(services, reader, lambda past_us=before_us: newest_us() > past_us, "its beginning")  # type: ignore[misc]


async def wait_fresh_key(services: OutputServices, choice: Choice) -> None:
    """Wait for a keyframe that is not there yet. Raises NoSuitableTrack when the stream ends."""
    reader, main = choice.reader, choice.indexes[0]
    newest = max((key.sequence for key in reader.keys(main)), default=-1)
    await wait_until(
        services, reader, lambda: any(key.sequence > newest for key in reader.keys(main)), "another keyframe"
    )


async def wait_until(services: OutputServices, reader: StreamReader, holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds for a stream. Raises NoSuitableTrack when it ends before that."""
    changed = asyncio.Event()
    watch = services.fanout.watch(reader, changed.set)
    try:
        while not holds():
            if reader.status() in UNPLAYABLE:
                raise NoSuitableTrack(f"The stream {reader.name} ended before {what}")
            changed.clear()
            await changed.wait()
    finally:
        services.fanout.unwatch(watch, changed.set)
