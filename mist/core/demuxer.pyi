from array import array
from collections.abc import Callable
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.tracks import TrackInfo

READ_BYTES: Final[int]
MAX_HELD_BYTES: Final[int]
MAX_DAMAGE: Final[int]

class Demuxer:
    tracks: list[TrackInfo]
    left_out: list[str]
    damage: list[tuple[int, int, str]]
    damage_count: int
    on_tracks: Callable[[], None] | None
    ready: bool
    ended: bool
    position: int
    shift_us: int
    bases: tuple[int, ...]
    anchors: dict[int, array[int]]
    from_places: bool
    def want(self) -> tuple[int, int] | None: ...
    def feed(self, data: bytes | memoryview) -> None: ...
    def seek(self, dts_us: int, position: int) -> None: ...
    def put_packet(self, packet: Packet, position: int) -> None: ...
    def put_ready(self, tracks: list[TrackInfo]) -> None: ...
    def put_end(self) -> None: ...
    def foresee(self, infos: list[TrackInfo]) -> None: ...
    def attach(self, sink: Muxer | None) -> None: ...

@final
class PacketList(Muxer):
    def take(self) -> list[Packet]: ...

def demux(demuxer: Demuxer, data: bytes | memoryview) -> list[Packet]: ...
