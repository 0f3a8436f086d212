from typing import final

from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

@final
class SideTracks(Demuxer):
    media: Demuxer
    def __init__(self, media: Demuxer, infos: list[TrackInfo], texts: list[tuple[int, int, bytes]]) -> None: ...
    def index_into(self, sink: Muxer) -> None: ...
    @property
    def sizes_are_exact(self) -> bool: ...
