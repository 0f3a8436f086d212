from collections.abc import Sequence
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.picture_stream import PictureStreamDemuxer
from mist.formats.tracks import TrackInfo

MAX_GARBAGE_BYTES: Final[int]
MAX_UNIT_BYTES: Final[int]

class MpegVideoStreamDemuxer(PictureStreamDemuxer):
    def describe(self, sequence: bytes, info: TrackInfo | None) -> tuple[TrackInfo, int, int, bool]: ...

@final
class MpegVideoMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo]) -> None: ...
