"""Fuzz target: byte streams of H.264 and HEVC, read, written and read again."""

from __future__ import annotations

from mist.core.annexb import AnnexBMuxer
from mist.formats.video_files import H264Demuxer, HevcDemuxer
from tests.fuzz.elementary_harness import check_pieces


def fuzz(data: bytes) -> None:
    """Read data as both codecs."""
    for make in (H264Demuxer, HevcDemuxer):
        seen = check_pieces(make, data)
        if seen is None or not seen[0]:
            continue
        muxer = AnnexBMuxer(seen[0])
        for packet in seen[1]:
            muxer.write(packet)
        muxer.take_output()
