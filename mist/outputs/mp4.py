"""MP4 over HTTP: `/STREAM.mp4`, fragmented for live streams, a plain file with a length for on-demand ones."""

from __future__ import annotations

from mist.core.mp4_mux import Mp4FragmentMuxer
from mist.core.muxer import Muxer
from mist.formats.mp4_boxes import LiveMovie
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.layouts import MP4, MP4_3GP


def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    """Return a muxer of one fragment a packet."""
    return Mp4FragmentMuxer(tracks, LiveMovie())


OUTPUT = ProgressiveOutput(
    Capability(
        name="MP4",
        push_urls=("/*.mp4", "/*.fmp4"),
        friendly="MP4 over HTTP",
        desc="Pseudostreaming in MP4 format over HTTP",
        deps="HTTP",
        url_rel="/$.mp4",
        url_match=("/$.mp4", "/$.3gp", "/$.fmp4"),
        codecs=(
            (
                ("H264", "HEVC", "AV1", "VP9"),
                ("AAC", "MP3", "AC3", "EAC-3", "opus", "FLAC"),
                ("+ID3", "+SCTE35", "+KLV"),
            ),
        ),
        methods=({"handler": "http", "type": "html5/video/mp4", "hrn": "MP4 progressive", "priority": 9},),
        exceptions={
            "live": (
                ("blacklist", ("iPad", "iPhone", "iPod", "Safari")),
                ("whitelist", ("Chrome", "Chromium")),
            ),
        },
    ),
    "video/mp4",
    make_muxer,
    {".mp4": MP4, ".3gp": MP4_3GP},
)
