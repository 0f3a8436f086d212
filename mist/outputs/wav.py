"""WAV over HTTP: `/STREAM.wav`."""

from __future__ import annotations

from mist.core.muxer import Muxer
from mist.formats import riff
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import WAV


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of WAV whose sizes are unknown."""
    return riff.make_muxer(tracks)


OUTPUT = ProgressiveOutput(
    Capability(
        name="WAV",
        push_urls=("/*.wav",),
        friendly="WAV over HTTP",
        desc="Pseudostreaming in WAV format over HTTP",
        deps="HTTP",
        url_rel="/$.wav",
        url_match=("/$.wav",),
        codecs=((("PCM", "FLOAT", "ALAW", "ULAW", "MP3"),),),
        methods=({"handler": "http", "type": "html5/audio/wav", "hrn": "WAV progressive", "priority": 1},),
    ),
    "audio/wav",
    make_muxer,
    {".wav": WAV},
)
