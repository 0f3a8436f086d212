"""Fuzz target: SubRip and WebVTT files, read, written and read again; what was read as JSON."""

from __future__ import annotations

from itertools import pairwise

from mist.errors import RemoteProtocolError
from mist.formats.json_tracks import JsonMuxer
from mist.formats.subtitles import MAX_OVERLAPPING, SubRipMuxer, SubtitleDemuxer, WebVttMuxer
from tests.support.elementary import feed_pieces


def fuzz(data: bytes) -> None:
    """Read data; what is written of it must be readable again."""
    demuxer = SubtitleDemuxer()
    try:
        packets = feed_pieces(demuxer, data, 64)
    except RemoteProtocolError:
        return
    if sum(len(packet.payload) for packet in packets) > 8 * (MAX_OVERLAPPING + 1) * (len(data) + 1):
        raise RuntimeError("more text than there are bytes")
    if any(b.dts_us <= a.dts_us for a, b in pairwise(packets)):
        raise RuntimeError("times do not rise")
    for kind in (SubRipMuxer, WebVttMuxer, JsonMuxer):
        muxer = kind(demuxer.tracks)
        for packet in packets:
            muxer.write(packet)
        muxer.finish()
        output = muxer.header() + muxer.take_output()
        if kind is not JsonMuxer:
            feed_pieces(SubtitleDemuxer(), output, 1 << 16)
