"""Recordings: pushes of live streams into files, in every format that can be written."""

from __future__ import annotations

from typing import Final

from mist.outputs.base.recording_push import RecordingPush

# Connectors of outputs, and the formats of the files that they write.
_CONNECTORS: Final = ("AAC", "EBML", "FLAC", "FLV", "H264", "MP3", "MP4", "OGG", "SRT", "HTTPTS", "WAV")

PUSH: Final = tuple(RecordingPush(connector) for connector in _CONNECTORS)
