from typing import Final

from mist.core.demuxer import Demuxer
from mist.core.ts_sections import StreamDescription
from mist.formats.tracks import TrackInfo

MAX_PES_BYTES: Final[int]
MAX_HELD_BYTES: Final[int]
MAX_STREAMS: Final[int]
MAX_GARBAGE_BYTES: Final[int]
EVERY_PROGRAM: Final[int]

class TsDemuxer(Demuxer):
    stride: int
    def __init__(self, program: int = 0) -> None: ...
    def describe(self, description: StreamDescription, sample: bytes) -> TrackInfo | None: ...
    def refresh(self, description: StreamDescription, info: TrackInfo, sample: bytes) -> TrackInfo | None: ...
    def slice_coding(self, sps: bytes) -> tuple[bool, int, bool, int]: ...
    def reordering(self, info: TrackInfo) -> int: ...
    def open_stream(self, description: StreamDescription, clock: object, order: tuple[int, ...]) -> None: ...
