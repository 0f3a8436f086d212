"""Fuzz target: the state of a publisher's connection that a process reads back after another one was killed."""

from __future__ import annotations

import json
import logging
from typing import Any

from mist.errors import LocalProtocolError, MistError
from mist.formats.dtsc_session import ReceivingSession
from mist.formats.rtmp.media import TrackAssembler
from mist.formats.rtmp.server import ServerSession
from mist.formats.rtmp.timeline import Timeline
from mist.inputs.base.publisher_connection import split_parts
from mist.stream.continued_tracks import ContinuedTracks
from tests.support.rtmp_fakes import FakePublisher

LOG = logging.getLogger("tests.fuzz")


def fuzz(data: bytes) -> None:
    """Read bytes as each of the two protocols' states: a restored parser takes bytes, or the error is one of ours."""
    for read in (_rtmp, _dtsc):
        try:
            read(data)
        except (MistError, ValueError, KeyError, TypeError, AttributeError):
            continue


def _fields(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from error


def _rtmp(data: bytes) -> None:
    about, session = split_parts(data, 2)
    fields = _fields(about)
    TrackAssembler.restore(fields["assembler"]).feed(9, 0, b"\x17\x01\x00\x00\x00data")
    Timeline.restore(fields["timeline"]).place(0, 40_000)
    ContinuedTracks(FakePublisher(), LOG, dict(fields["tracks"]))  # type: ignore[arg-type]
    ServerSession.restore(session, 0.0).feed(b"\x04\x00\x00\x00\x00\x00\x04\x08\x01\x00\x00\x00abcd", 0.0)


def _dtsc(data: bytes) -> None:
    about, rest, waiting = split_parts(data, 3)
    fields = _fields(about)
    ReceivingSession.resume(fields["session"], rest, waiting).feed(b"DTCM\x00\x00\x00\x04\xe0\x00\x00\xee", 0.0)
