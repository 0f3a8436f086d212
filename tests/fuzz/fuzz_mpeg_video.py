"""Fuzz target: MPEG video streams, and the headers of MPEG video and JPEG."""

from __future__ import annotations

from mist.errors import RemoteProtocolError
from mist.formats import jpeg, mpeg2
from mist.formats.video_files import MpegVideoDemuxer
from tests.fuzz.elementary_harness import check_pieces


def fuzz(data: bytes) -> None:
    """Read data as a stream and as headers."""
    check_pieces(MpegVideoDemuxer, data)
    mpeg2.is_keyframe(data)
    for parse in (mpeg2.parse_sequence, jpeg.parse_frame_header):
        try:
            parse(data)
        except RemoteProtocolError:
            continue
