"""MPEG audio frame headers."""

from __future__ import annotations

from mist.formats import mpeg_audio
from mist.formats.tracks import AUDIO
from tests.fuzz.codec_harness import ask_everything


def fuzz(data: bytes) -> None:
    """Parse data as layer II and III."""
    for codec in ("MP3", "MP2"):
        ask_everything(AUDIO, codec, data, (mpeg_audio.parse_header,))
