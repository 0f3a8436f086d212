"""FLV over HTTP: `/STREAM.flv`."""

from __future__ import annotations

from mist.core.flv import FlvMuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import FLV


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of plain FLV for the codecs that have it, enhanced FLV for the others."""
    return FlvMuxer(tracks)


OUTPUT = ProgressiveOutput(
    Capability(
        name="FLV",
        push_urls=("/*.flv",),
        friendly="Flash progressive over HTTP (FLV)",
        desc="Pseudostreaming in Adobe Flash FLV format over HTTP",
        deps="HTTP",
        url_rel="/$.flv",
        url_match=("/$.flv",),
        codecs=((("H264", "HEVC", "AV1", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3"), ("JSON",)),),
        methods=(
            {
                "handler": "http",
                "type": "flash/7",
                "hrn": "FLV progressive",
                "priority": 5,
                "player_url": "/oldflashplayer.swf",
            },
        ),
    ),
    "video/x-flv",
    make_muxer,
    {".flv": FLV},
)
