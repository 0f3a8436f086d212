from collections.abc import Sequence
from typing import Final, final

from mist.core.flv_bodies import CHANNELS as CHANNELS
from mist.core.flv_bodies import END as END
from mist.core.flv_bodies import ENHANCED_CODECS as ENHANCED_CODECS
from mist.core.flv_bodies import FRAME as FRAME
from mist.core.flv_bodies import INIT as INIT
from mist.core.flv_bodies import LEGACY_CODECS as LEGACY_CODECS
from mist.core.flv_bodies import METADATA as METADATA
from mist.core.flv_bodies import TagPart as TagPart
from mist.core.flv_bodies import parse_audio_body as parse_audio_body
from mist.core.flv_bodies import parse_video_body as parse_video_body
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.tracks import TrackInfo

__all__: list[str]
MAX_TRACKS: Final[int]

@final
class FlvTag:
    tag_type: int
    time_ms: int
    body: bytes

def serialize_init(info: TrackInfo, number: int = 0, enhanced: bool = True) -> bytes: ...
def serialize_frame(info: TrackInfo, packet: Packet, number: int = 0, enhanced: bool = True) -> bytes: ...
def carries(info: TrackInfo, enhanced: bool = True) -> bool: ...

class TagMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], enhanced: bool = True, duration_us: int = 0) -> None: ...

@final
class FlvMuxer(TagMuxer): ...

@final
class FlvSizes(TagMuxer):
    total_bytes: int

@final
class FlvReader:
    def feed(self, data: bytes) -> list[FlvTag]: ...
    def end_of_input(self) -> None: ...
