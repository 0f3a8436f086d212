from collections.abc import Sequence
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.tracks import TrackInfo

INIT: Final[str]
FRAME: Final[str]
END: Final[str]
METADATA: Final[str]
CHANNELS: Final[str]
MAX_TRACKS: Final[int]
LEGACY_CODECS: Final[frozenset[str]]
ENHANCED_CODECS: Final[frozenset[str]]

@final
class TagPart:
    kind: str
    type: str
    codec: str
    track_id: int
    keyframe: bool
    offset_us: int
    nano_offset_ns: int
    sample_rate_hz: int
    channels: int
    sample_bits: int
    payload: bytes

@final
class FlvTag:
    tag_type: int
    time_ms: int
    body: bytes

def parse_video_body(body: bytes) -> list[TagPart]: ...
def parse_audio_body(body: bytes) -> list[TagPart]: ...
def serialize_init(info: TrackInfo, number: int = 0, enhanced: bool = True) -> bytes: ...
def serialize_frame(info: TrackInfo, packet: Packet, number: int = 0, enhanced: bool = True) -> bytes: ...
def carries(info: TrackInfo, enhanced: bool = True) -> bool: ...

class TagMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], enhanced: bool = True) -> None: ...

@final
class FlvMuxer(TagMuxer): ...

@final
class FlvReader:
    def __init__(self) -> None: ...
    def feed(self, data: bytes) -> list[FlvTag]: ...
    def end_of_input(self) -> None: ...
