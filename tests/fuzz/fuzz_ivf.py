"""Fuzz target: IVF files."""

from __future__ import annotations

from mist.core.ivf import IvfMuxer
from mist.errors import RemoteProtocolError
from mist.formats.video_files import IvfDemuxer
from tests.support.elementary import feed_pieces


def fuzz(data: bytes) -> None:
    """Read data whole and in pieces, and write what was read."""
    results = []
    for step in (max(1, len(data)), 13):
        demuxer = IvfDemuxer()
        try:
            results.append((feed_pieces(demuxer, data, step), demuxer.tracks))
        except RemoteProtocolError:
            results.append(([], []))
    if results[0] != results[1]:
        raise RuntimeError("pieces give something else")
    packets, tracks = results[0]
    if tracks:
        muxer = IvfMuxer(tracks)
        for packet in packets:
            muxer.write(packet)
        muxer.take_output()
