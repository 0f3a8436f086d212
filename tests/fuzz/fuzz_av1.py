"""AV1 records, OBUs and sequence headers."""

from __future__ import annotations

from mist.formats import av1
from mist.formats.tracks import VIDEO
from tests.fuzz.codec_harness import ask_everything, attempt

_PARSERS = (av1.parse_av1c, av1.iterate_obus, av1.find_sequence_header, av1.parse_sequence_header, av1.is_keyframe)


def fuzz(data: bytes) -> None:
    """Parse data as everything that AV1 has; what was stripped needs no stripping."""
    ask_everything(VIDEO, "AV1", data, _PARSERS)
    attempt(av1.parse_sequence_header, b"\x0a" + av1.leb128(len(data)) + data)
    stripped = attempt(av1.strip_temporal_delimiters, data)
    if stripped is not None:
        assert av1.strip_temporal_delimiters(stripped) == stripped
