from collections.abc import Sequence
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.picture_stream import PictureStreamDemuxer
from mist.formats.tracks import TrackInfo

MAX_GARBAGE_BYTES: Final[int]
MAX_UNIT_BYTES: Final[int]

class AnnexBDemuxer(PictureStreamDemuxer):
    def sequence(self, unit: bytes) -> tuple[object, ...]: ...
    def picture_set(self, unit: bytes) -> tuple[object, ...]: ...
    def describe(self, sets: list[bytes], info: TrackInfo | None) -> TrackInfo | None: ...

class H264StreamDemuxer(AnnexBDemuxer): ...

class HevcStreamDemuxer(AnnexBDemuxer):
    def video_set(self, unit: bytes) -> int: ...

@final
class AnnexBMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], keys_only: bool = False) -> None: ...
