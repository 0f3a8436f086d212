"""AAC over HTTP: `/STREAM.aac`, with ADTS headers."""

from __future__ import annotations

from mist.core.muxer import Muxer
from mist.formats.audio_files import AdtsMuxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import AAC


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of ADTS frames."""
    return AdtsMuxer(tracks)


OUTPUT = ProgressiveOutput(
    Capability(
        name="AAC",
        push_urls=("/*.aac",),
        friendly="AAC over HTTP",
        desc="Pseudostreaming in AAC format over HTTP",
        deps="HTTP",
        url_rel="/$.aac",
        url_match=("/$.aac",),
        codecs=((("AAC",),),),
        methods=({"handler": "http", "type": "html5/audio/aac", "hrn": "AAC progressive", "priority": 8},),
    ),
    "audio/aac",
    make_muxer,
    {".aac": AAC},
)
