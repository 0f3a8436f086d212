"""Fuzz target: audio elementary streams of every format, and the headers of DTS."""

from __future__ import annotations

from mist.errors import RemoteProtocolError
from mist.formats import dts
from mist.formats.audio_files import Ac3Demuxer, AdtsDemuxer, DtsDemuxer, Mp3Demuxer
from tests.fuzz.elementary_harness import check_pieces


def fuzz(data: bytes) -> None:
    """Read data as each format."""
    for make in (Mp3Demuxer, AdtsDemuxer, Ac3Demuxer, DtsDemuxer):
        check_pieces(make, data)
    try:
        dts.parse_header(data)
    except RemoteProtocolError:
        return
