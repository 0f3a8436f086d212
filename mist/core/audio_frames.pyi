from collections.abc import Sequence
from typing import Final

from mist.core.byte_stream import ByteStreamDemuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

FORMATS: Final[dict[str, str]]
MAX_GARBAGE_BYTES: Final[int]
MAX_JOINED_FRAMES: Final[int]
MAX_PACKET_BYTES: Final[int]

class AudioFrameDemuxer(ByteStreamDemuxer):
    def __init__(self, format: str) -> None: ...
    def describe(self, frame: bytes) -> TrackInfo: ...

class FrameMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], codecs: tuple[str, ...]) -> None: ...

class AdtsFrameMuxer(FrameMuxer):
    def __init__(self, tracks: Sequence[TrackInfo]) -> None: ...
    def prefix(self, info: TrackInfo) -> bytes: ...
