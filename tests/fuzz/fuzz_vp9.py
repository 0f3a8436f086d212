"""VP9 frames, superframes and vpcC; VP8 keyframes."""

from __future__ import annotations

from mist.formats import vp8, vp9
from mist.formats.tracks import VIDEO
from tests.fuzz.codec_harness import ask_everything

CORPORA = ("vp9", "vp8")
_PARSERS = (vp9.parse_frame_header, vp9.parse_vpcc, vp9.is_keyframe, vp8.parse_keyframe, vp8.is_keyframe)


def fuzz(data: bytes) -> None:
    """Parse data as everything that VP9 and VP8 have."""
    ask_everything(VIDEO, "VP9", data, _PARSERS)
    ask_everything(VIDEO, "VP8", data, ())
    frames = vp9.split_superframe(data)
    assert sum(len(frame) for frame in frames) <= len(data)
    assert len(frames) <= vp9.MAX_SUPERFRAME_FRAMES
