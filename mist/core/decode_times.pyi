from collections.abc import Iterable
from typing import final

@final
class DecodeTimes:
    depth: int
    def __init__(self, depth: int, frame_us: int = 0) -> None: ...

def decode_times(presented_us: Iterable[int], depth: int = -1, frame_us: int = 0) -> list[int]: ...
