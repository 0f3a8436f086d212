from collections.abc import Sequence
from typing import Final, final

from mist.core.byte_stream import ByteStreamDemuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

CODECS: Final[dict[bytes, str]]
FOURCCS: Final[dict[str, bytes]]
MAX_FRAME_BYTES: Final[int]

class IvfStreamDemuxer(ByteStreamDemuxer):
    def describe(
        self, codec: str, width: int, height: int, frame: bytes, info: TrackInfo | None
    ) -> tuple[TrackInfo, bool, bytes]: ...

@final
class IvfMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo]) -> None: ...
    def finish(self) -> None: ...
    def patches(self) -> list[tuple[int, bytes]]: ...
