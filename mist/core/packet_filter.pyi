from collections.abc import Callable, Collection, Sequence
from typing import Final, final

from mist.core.muxer import Muxer

KEEP_TIMES: Final[int]
NO_NEGATIVE_TIMES: Final[int]
TIMES_FROM_ZERO: Final[int]
MAX_GOP_BYTES: Final[int]

@final
class PacketFilter(Muxer):
    origin_us: int
    shift_us: int
    position_us: int
    packets: int
    done: bool
    def __init__(self, on_first: Callable[[], None]) -> None: ...
    def open(
        self,
        sink: Muxer,
        places: Sequence[int],
        *,
        main: int = -1,
        start_us: int | None = None,
        stop_us: int | None = None,
        times: int = ...,
        sparse: Collection[int] = (),
        leads: Sequence[int] | None = None,
    ) -> None: ...
    @property
    def passing(self) -> bool: ...
    def go_on(self, origin_us: int, shift_us: int) -> None: ...
    def release(self) -> None: ...
    def add_track(self, place: int) -> None: ...
    def refuse(self, track: int, reason: str) -> None: ...
