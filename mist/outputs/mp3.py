"""MP3 over HTTP: `/STREAM.mp3`."""

from __future__ import annotations

from mist.core.muxer import Muxer
from mist.formats.audio_files import Mp3Muxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import MP3


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of MP3 frames."""
    return Mp3Muxer(tracks)


OUTPUT = ProgressiveOutput(
    Capability(
        name="MP3",
        push_urls=("/*.mp3",),
        friendly="MP3 over HTTP",
        desc="Pseudostreaming in MP3 format over HTTP",
        deps="HTTP",
        url_rel="/$.mp3",
        url_match=("/$.mp3",),
        codecs=((("MP3",),),),
        methods=({"handler": "http", "type": "html5/audio/mp3", "hrn": "MP3 progressive", "priority": 8},),
    ),
    "audio/mpeg",
    make_muxer,
    {".mp3": MP3},
)
