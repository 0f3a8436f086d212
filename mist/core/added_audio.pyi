from collections.abc import Iterable
from typing import final

from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_FRAME_BYTES: int

@final
class AddedAudio(Muxer):
    def __init__(
        self, sink: Muxer, place: int, info: TrackInfo, frames: Iterable[bytes], samples: int = 1024
    ) -> None: ...
