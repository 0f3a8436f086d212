from typing import Protocol, final, type_check_only

from mist.formats.tracks import TrackInfo

@type_check_only
class FileTiming(Protocol):
    @property
    def timescale(self) -> int: ...
    @property
    def default_ticks(self) -> int: ...
    @property
    def frame_ticks(self) -> int: ...
    @property
    def frame_bytes(self) -> int: ...

@final
class TrackTables:
    infos: list[TrackInfo]
    payload: bytes
    video: bool
    text: bool
    frame_bytes: int
    timescale: int
    samples: int
    first_ticks: int
    lowest_ticks: int
    end_ticks: int
    negative_offsets: bool
    late: bool
    def __init__(self, info: TrackInfo, timing: FileTiming) -> None: ...
    @property
    def info(self) -> TrackInfo: ...
    @property
    def duration_ticks(self) -> int: ...
    @property
    def all_sync(self) -> bool: ...
    def table(self, name: str) -> bytes: ...
    def sizes(self) -> bytes: ...
    def offsets(self, base: int, wide: bool) -> bytes: ...
