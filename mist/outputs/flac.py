"""FLAC over HTTP: `/STREAM.flac`."""

from __future__ import annotations

from mist.core.muxer import Muxer
from mist.formats import flac_file
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import FLAC


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of a FLAC stream."""
    return flac_file.make_muxer(tracks)


OUTPUT = ProgressiveOutput(
    Capability(
        name="FLAC",
        push_urls=("/*.flac",),
        friendly="FLAC over HTTP",
        desc="Pseudostreaming in FLAC format over HTTP",
        deps="HTTP",
        url_rel="/$.flac",
        url_match=("/$.flac",),
        codecs=((("FLAC",),),),
        methods=({"handler": "http", "type": "html5/audio/flac", "hrn": "FLAC progressive", "priority": 8},),
    ),
    "audio/flac",
    make_muxer,
    {".flac": FLAC},
)
