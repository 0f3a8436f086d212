"""Ogg over HTTP: `/STREAM.ogg`."""

from __future__ import annotations

from mist.core.muxer import Muxer
from mist.formats import ogg
from mist.formats.tracks import VIDEO, TrackInfo
from mist.outputs.base import Capability, Choice, ProgressiveOutput


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of one page a packet."""
    return ogg.make_muxer(tracks, page_us=0)


class OggOutput(ProgressiveOutput):
    """Ogg, called audio where there is no video: players of sound ask for that."""

    def media_type(self, choice: Choice) -> str:
        """Return the content type of the chosen tracks."""
        has_video = any(choice.reader.track(index).info.type == VIDEO for index in choice.indexes)
        return "video/ogg" if has_video else "audio/ogg"


OUTPUT = OggOutput(
    Capability(
        name="OGG",
        push_urls=("/*.ogg", "/*.opus", "/*.oga", "/*.ogv"),
        friendly="OGG over HTTP",
        desc="Pseudostreaming in OGG format over HTTP",
        deps="HTTP",
        url_rel="/$.ogg",
        url_match=("/$.ogg",),
        codecs=((("theora",), ("vorbis", "opus", "FLAC", "Speex")),),
        methods=({"handler": "http", "type": "html5/video/ogg", "hrn": "OGG progressive", "priority": 8},),
    ),
    "application/ogg",
    make_muxer,
)
