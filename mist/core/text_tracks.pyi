from collections.abc import Sequence
from typing import Final

from mist.core.byte_stream import ByteStreamDemuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_TEXT_BYTES: Final[int]

class TextDemuxer(ByteStreamDemuxer):
    def describe(self) -> TrackInfo: ...
    def packets(self, data: bytes) -> list[tuple[int, bytes]]: ...

class TextMuxer(Muxer):
    count: int
    def __init__(self, tracks: Sequence[TrackInfo]) -> None: ...
    def serialize(self, track: int, time_us: int, payload: bytes) -> bytes: ...
