from typing import Final, final

from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer

MAX_REMARKS: Final[int]
MAX_DAMAGE: Final[int]
LOOKS: Final[dict[str, int]]

@final
class TrackSurvey(Muxer):
    remarks: list[tuple[str, int, int, int]]
    newest_us: int
    damage: list[tuple[int, int, str]]
    damage_count: int
    def __init__(self, demuxer: Demuxer | None = None) -> None: ...
    def figures(self, track: int) -> dict[str, int]: ...
