"""What recordings into files here and on other machines have in common: when they go on, and what they tell of themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from mist.stream.film_reader import FilmReader
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


Recorded = StreamReader | FilmReader


async def source(
    services: OutputServices, reader: StreamReader | GoneReader, target: RecordingTarget, note: Mapping[str, Any] | None
) -> tuple[Recorded | GoneReader, RecordingTarget]:
    """Return what a recorder reads, and the target for it. note: of the process before this one. Raises MistError."""
    if isinstance(reader, GoneReader) or reader.live:
        return reader, target
    film = FilmReader(services.on_demand(reader))
    target = await film.begin(target, time.time_ns() // 1000)
    if note is not None:
        await film.go_to(int(note["recorder"]["done_us"]))
    return film, target


async def follow(
    services: OutputServices, reader: Recorded, changed: asyncio.Event, step: Callable[[Recorded], bool]
) -> None:
    """Call `step` whenever there is something new, until it returns False. changed: also when somebody else sets it."""
    if isinstance(reader, FilmReader):
        await _follow_film(reader, changed, step)
        return
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


async def _follow_film(film: FilmReader, changed: asyncio.Event, step: Callable[[Recorded], bool]) -> None:
    """Load what comes next whenever what there was is written."""
    while await film.load():
        while True:
            changed.clear()
            if not step(film):
                return
            if not film.waits:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()
    step(film)


def own_push(log: logging.Logger, status: PushStatus, recorder: Recorder) -> None:
    """Let the stream end when it ends, once all that the process before this one left unrecorded is recorded."""
    note = status.note
    if note is None or note.owned or not recorder.caught_up:
        return
    try:
        note.own()
    except OSError as error:
        log.warning("If this process dies, the stream may end before the next one has it all: %s", error)


def tell_progress(status: PushStatus, recorder: Recorder, files: Written, reader: Recorded | GoneReader) -> None:
    """Bring a push's figures up to date."""
    status.bytes, status.current_target = files.bytes_written, files.path
    status.tracks = recorder.tracks
    if recorder.begun:
        status.first_ms, status.last_ms = recorder.first_us // 1000, recorder.done_us // 1000
        newest_us = max((one.last_us for one in reader.tracks() if one.index in recorder.tracks), default=0)
        status.latency_ms = max(newest_us - recorder.done_us, 0) // 1000
