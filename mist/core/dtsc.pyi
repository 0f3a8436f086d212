from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_TRACKS: Final[int]
MAX_PACKET_BYTES: Final[int]
MAX_HEADER_BYTES: Final[int]
MAX_COMMAND_BYTES: Final[int]
MAX_HEADERS: Final[int]
MAX_TIME_MS: Final[int]
MAX_OFFSET_MS: Final[int]
DTSH_VERSION: Final[int]

class DtscReader(Demuxer):
    unix_zero_ms: int | None
    on_header: Callable[[Mapping[str, Any]], None] | None
    on_command: Callable[[Mapping[str, Any]], None] | None
    live: bool
    vod: bool
    def __init__(self, seekable: bool = True, max_packet_bytes: int = ..., max_header_bytes: int = ...) -> None: ...
    @property
    def announced(self) -> list[int]: ...
    def describe(self, name: str, members: Mapping[str, Any]) -> TrackInfo: ...
    def end(self) -> None: ...
    def command(self, members: Mapping[str, Any]) -> None: ...
    def header(self, members: Mapping[str, Any]) -> None: ...
    def add_header(self, members: Mapping[str, Any]) -> None: ...
    def add_track(self, name: str, entry: Mapping[str, Any]) -> None: ...
    def free_number(self) -> int: ...

def track_name(info: TrackInfo, number: int) -> str: ...
def track_members(
    info: TrackInfo, first_ms: int, last_ms: int, rates: Sequence[int], measured_frame_rate_mhz: int
) -> dict[str, Any]: ...

@final
class DtscMuxer(Muxer):
    tracks: list[TrackInfo]
    def __init__(
        self,
        tracks: Sequence[TrackInfo],
        *,
        live: bool = True,
        unix_zero_us: Callable[[], int] | None = None,
        exact: bool = False,
    ) -> None: ...
    def adopt(self, tracks: list[TrackInfo]) -> None: ...
    def finish(self) -> None: ...
    def patches(self) -> list[tuple[int, bytes]]: ...

def packet_bytes(magic: bytes, body: bytes) -> bytes: ...
