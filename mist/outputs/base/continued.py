"""Recordings that a process before this one had begun: what it noted, and the stream that it recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def reopened(services: OutputServices, note: Mapping[str, Any]) -> StreamReader | GoneReader:
    """Return a reader of the stream that the process before this one recorded; of nothing if it is not there any more."""
    reader = services.reopen_stream(str(note["stream"]))
    if reader is None:
        return GoneReader(str(note["stream"]))
    if table_number(reader.table) != note["table"]:
        services.close_stream(reader)
        return GoneReader(str(note["stream"]))
    return reader
