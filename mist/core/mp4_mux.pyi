from collections.abc import Mapping, Sequence
from typing import Final, Protocol, final, type_check_only

from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_TRACKS: Final[int]
MAX_PACKET_BYTES: Final[int]

@type_check_only
class Timing(Protocol):
    @property
    def timescale(self) -> int: ...
    @property
    def default_ticks(self) -> int: ...
    @property
    def frame_ticks(self) -> int: ...

@type_check_only
class Movie(Protocol):
    def init_segment(self, tracks: Sequence[TrackInfo], payloads: Mapping[int, bytes] | None = None, /) -> bytes: ...
    def timing(self, track: TrackInfo, /) -> Timing: ...
    def parameter_sets(self, track: TrackInfo, /) -> bytes: ...
    def follows(self, old: TrackInfo, new: TrackInfo, /) -> bool: ...

@final
class Mp4FragmentMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], movie: Movie) -> None: ...
