"""Vorbis headers."""

from __future__ import annotations

from mist.formats import vorbis, xiph
from mist.formats.tracks import AUDIO, VORBIS
from tests.fuzz.codec_harness import ask_everything, attempt


def _modes(data: bytes) -> tuple[bool, ...]:
    return vorbis.long_modes(data, 2)


def fuzz(data: bytes) -> None:
    """Parse data as everything that Vorbis has; as a setup header too, where it does not say so."""
    ask_everything(AUDIO, VORBIS, data, (vorbis.describe, vorbis.parse_identification, _modes, xiph.language_of))
    attempt(_modes, vorbis.SETUP + data)
