from typing import Final, final

from mist.core.muxer import Muxer

MAX_REMARKS: Final[int]

@final
class TrackSurvey(Muxer):
    remarks: list[tuple[str, int, int, int]]
    newest_us: int
    def figures(self, track: int) -> dict[str, int]: ...
