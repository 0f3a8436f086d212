"""Recordings: pushes of live streams into files, in every format that can be written."""

from __future__ import annotations

from typing import Final

from mist.outputs.base.file_formats import FORMATS
from mist.outputs.base.recording_push import RecordingPush

_ELSEWHERE: Final = frozenset({"DTSC", "EBML", "HTTPTS"})  # connectors that push to servers or programs as well

PUSH: Final = tuple(RecordingPush(connector) for connector in FORMATS if connector not in _ELSEWHERE)
