"""FLAC stream information and frame headers."""

from __future__ import annotations

from mist.formats import flac
from mist.formats.tracks import AUDIO
from tests.fuzz.codec_harness import ask_everything, attempt


def fuzz(data: bytes) -> None:
    """Parse data as everything that FLAC has; with a right checksum too."""
    ask_everything(AUDIO, "FLAC", data, (flac.parse_stream_info, flac.parse_frame_header))
    for size in range(5, 16):
        attempt(flac.parse_frame_header, data[:size] + bytes((flac.crc8(data[:size]),)))
    info = attempt(flac.parse_stream_info, data[2:])
    if info is not None:
        assert flac.build_stream_info(info) == data[2:36]
