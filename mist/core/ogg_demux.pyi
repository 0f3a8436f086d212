from typing import Any, Final, Protocol, final

from mist.core.demuxer import Demuxer
from mist.formats.tracks import TrackInfo

MAX_STREAMS: Final[int]
MAX_LINKS: Final[int]
MAX_PACKET_BYTES: Final[int]
MAX_UNFINISHED_BYTES: Final[int]
MAX_JUNK_BYTES: Final[int]
MAX_HEADERS_BYTES: Final[int]

class HeaderReader(Protocol):
    def take(self, packet: bytes) -> bool: ...
    def is_whole(self) -> bool: ...
    def track(self) -> TrackInfo: ...
    def timing(self, track: TrackInfo) -> Any: ...

class Headers(Protocol):
    def identify(self, packet: bytes) -> HeaderReader | None: ...

@final
class OggDemuxer(Demuxer):
    def __init__(self, headers: Headers) -> None: ...
