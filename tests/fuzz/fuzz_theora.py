"""Theora headers."""

from __future__ import annotations

from mist.formats import theora
from mist.formats.tracks import THEORA, VIDEO
from tests.fuzz.codec_harness import ask_everything


def fuzz(data: bytes) -> None:
    """Parse data as everything that Theora has."""
    ask_everything(VIDEO, THEORA, data, (theora.describe, theora.parse_identification, theora.is_keyframe))
