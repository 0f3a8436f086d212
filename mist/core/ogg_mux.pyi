from collections.abc import Sequence
from typing import Any, Final, Protocol, final

from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_TRACKS: Final[int]

class HeaderWriter(Protocol):
    def header_packets(self, track: TrackInfo) -> list[bytes]: ...
    def timing(self, track: TrackInfo) -> Any: ...

@final
class OggMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], headers: HeaderWriter, page_us: int = 0) -> None: ...
    def comes_late(self, place: int) -> bool: ...
    def finish(self) -> None: ...
