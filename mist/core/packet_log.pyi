from array import array
from collections.abc import Callable
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.span_index import SpanIndex

MAX_LOGGED: Final[int]

@final
class PacketLog(Muxer):
    count: int
    whole: bool
    ordered: bool
    def pack(self) -> bytes: ...
    def lay_out(
        self,
        layout: Muxer,
        measure: Callable[[], int],
        places: list[int],
        index: SpanIndex,
        from_us: int = ...,
        to_us: int = ...,
    ) -> LayingOut: ...
    def span_ends(
        self,
        sizes: Muxer,
        measure: Callable[[], int],
        places: list[int],
        index: SpanIndex,
        from_us: int = ...,
        to_us: int = ...,
    ) -> array[int]: ...
    def unpack(self) -> None: ...

def packed_log(data: bytes | memoryview, ordered: bool = False) -> PacketLog: ...

@final
class LayingOut:
    ends: array[int]
    def step(self, packets: int = ...) -> bool: ...

@final
class PayloadSink(Muxer): ...

@final
class FrameSizes(Muxer):
    total_bytes: int
    def __init__(self, before: int = 0, frame_bytes: int = 1, most: int = 0) -> None: ...
