"""Speex headers."""

from __future__ import annotations

from mist.formats import speex
from mist.formats.tracks import AUDIO, SPEEX
from tests.fuzz.codec_harness import ask_everything


def fuzz(data: bytes) -> None:
    """Parse data as everything that Speex has."""
    ask_everything(AUDIO, SPEEX, data, (speex.parse_header,))
