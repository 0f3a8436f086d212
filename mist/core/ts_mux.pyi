from collections.abc import Sequence
from typing import Final, final

from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

TS_PACKET_BYTES: Final[int]
TABLE_INTERVAL_US: Final[int]
PCR_LEAD_US: Final[int]

@final
class TsMuxer(Muxer):
    def __init__(
        self,
        tracks: Sequence[TrackInfo],
        stream_name: str = "",
        start_counter: int = 0,
        repeat_tables: bool = True,
    ) -> None: ...
    def pad_counters(self) -> None: ...
