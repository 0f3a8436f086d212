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
    def table(self, name: str) -> list[bytes]: ...
    def sizes(self) -> list[bytes]: ...

@final
class ChunkPlaces:
    def __init__(self, tables: TrackTables, wide: bool) -> None: ...
    def __len__(self) -> int: ...
    def at(self, base: int) -> bytes: ...
