from array import array
from collections.abc import Sequence
from typing import Final, Protocol, final, type_check_only

from mist.core.demuxer import Demuxer
from mist.core.mp4_track import SourceTrack
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_TRACKS: Final[int]
MAX_MOOV_BYTES: Final[int]
MAX_MOOF_BYTES: Final[int]
MAX_SAMPLE_BYTES: Final[int]

@type_check_only
class Movie(Protocol):
    @property
    def timescale(self) -> int: ...
    @property
    def tracks(self) -> Sequence[SourceTrack]: ...
    @property
    def fragmented(self) -> bool: ...

@type_check_only
class Reader(Protocol):
    def movie(self, moov: bytes, offset: int, /) -> Movie: ...
    def complete(self, info: TrackInfo, payload: bytes, /) -> TrackInfo: ...

@final
class Mp4Demuxer(Demuxer):
    def __init__(self, reader: Reader) -> None: ...
    def index_into(self, sink: Muxer) -> None: ...
    def keys(self, track: int, distance_us: int = 0) -> array[int]: ...
    def share(self) -> Mp4Demuxer: ...
    @property
    def sizes_are_exact(self) -> bool: ...
