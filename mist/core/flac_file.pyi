from collections.abc import Callable, Sequence
from typing import Final, final

from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_METADATA_BLOCKS: Final[int]
MAX_COMMENT_BYTES: Final[int]

@final
class FlacDemuxer(Demuxer):
    def __init__(self, describe: Callable[[bytes, bytes], TrackInfo]) -> None: ...

@final
class FlacMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo]) -> None: ...
    def finish(self) -> None: ...
    def patches(self) -> list[tuple[int, bytes]]: ...
