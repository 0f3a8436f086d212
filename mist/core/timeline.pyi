from typing import Final, final

MAX_TIMELINE_TRACKS: Final[int]

@final
class Timeline:
    jumped: bool
    moved_us: int
    shift_us: int
    newest_us: int
    def placed(self, track: int, dts_us: int) -> int: ...
    def followed(self, track: int, dts_us: int) -> int: ...
    def resumed(self, dts_us: int, bases: tuple[int, ...] = ()) -> None: ...
