"""What recordings into files here and on other machines have in common: when they go on, and what they tell of themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final, Protocol

from mist.stream.push import PushStatus
from mist.stream.reader import StreamReader
from mist.stream.recorder import GoneReader, Recorder
from mist.stream.recording import RecordingTarget
from mist.stream.services import OutputServices

INTERVAL_S: Final = 0.1  # from a packet to the next write: larger pieces cost less
LOOK_S: Final = 0.5  # without a packet: the target may name a time to stop at


class Written(Protocol):
    """What of a recording's files is told."""

    bytes_written: int

    @property
    def path(self) -> str: ...


def tell_unknown(log: logging.Logger, target: RecordingTarget, known: Container[str] = ()) -> None:
    """Say which parameters do nothing: a typing error would show only in the files. known: those that mean something elsewhere."""
    names = [name for name in target.unknown if name not in known]
    if names:
        log.warning("Parameters without a meaning for a recording: %s", ", ".join(names))


async def follow(
    services: OutputServices, reader: StreamReader, changed: asyncio.Event, step: Callable[[StreamReader], bool]
) -> None:
    """Call `step` whenever there is something new, until it returns False. changed: also when somebody else sets it."""
    watch = services.fanout.watch(reader, changed.set)
    try:
        while step(reader):
            changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()
                await asyncio.sleep(INTERVAL_S)
    finally:
        services.fanout.unwatch(watch, changed.set)


def own_push(log: logging.Logger, status: PushStatus, recorder: Recorder) -> None:
    """Let the stream end when it ends, once all that the process before this one left unrecorded is recorded."""
    note = status.note
    if note is None or note.owned or not recorder.caught_up:
        return
    try:
        note.own()
    except OSError as error:
        log.warning("If this process dies, the stream may end before the next one has it all: %s", error)


def tell_progress(status: PushStatus, recorder: Recorder, files: Written, reader: StreamReader | GoneReader) -> None:
    """Bring a push's figures up to date."""
    status.bytes, status.current_target = files.bytes_written, files.path
    status.tracks = recorder.tracks
    if recorder.begun:
        status.first_ms, status.last_ms = recorder.first_us // 1000, recorder.done_us // 1000
        newest_us = max((one.last_us for one in reader.tracks() if one.index in recorder.tracks), default=0)
        status.latency_ms = max(newest_us - recorder.done_us, 0) // 1000
