"""Recordings that a process before this one had begun: what it noted, and the stream that it recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mist.errors import MistError
from mist.stream.push import PushStatus
from mist.stream.push_note import table_number
from mist.stream.reader import StreamReader
from mist.stream.recorder import GoneReader
from mist.stream.services import OutputServices


def left_behind(services: OutputServices, status: PushStatus) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return what a process before this one left of the recording."""
    if status.note is None:
        return None
    try:
        return status.note.read()
    except (OSError, ValueError) as error:
        services.log.warning("What the former process noted cannot be used, so the recording begins again: %s", error)
        return None


def _reopened(services: OutputServices, note: Mapping[str, Any]) -> StreamReader | GoneReader:
    """Return a reader of the stream that the process before this one recorded; of nothing if it is not there any more."""
    reader = services.reopen_stream(str(note["stream"]))
    if reader is None:
        return GoneReader(str(note["stream"]))
    if table_number(reader.table) != note["table"]:
        services.close_stream(reader)
        return GoneReader(str(note["stream"]))
    return reader


async def opened(
    services: OutputServices, stream: str, status: PushStatus, note: Mapping[str, Any] | None
) -> StreamReader | GoneReader:
    """Return a reader of what is recorded. note: of the process before this one, None where there was none. Raises MistError."""
    if note is None:
        return await services.open_stream(stream)
    if not note.get("film"):  # which a former version does not say
        return _reopened(services, note)
    try:
        return await reopened_film(services, str(note["stream"]), status)
    except MistError as error:
        services.log.warning("The recording ends here: %s", error)
        return GoneReader(str(note["stream"]))


async def reopened_film(services: OutputServices, stream: str, status: PushStatus) -> StreamReader:
    """Open an on-demand stream of which another process had sent a part: nobody is asked about it again. Raises MistError."""
    status.goes_on = True
    try:
        return await services.open_stream(stream)
    finally:
        status.goes_on = False
