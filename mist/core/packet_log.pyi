from array import array
from typing import Final, final

from mist.core.muxer import Muxer
from mist.core.span_index import SpanIndex

MAX_LOGGED: Final[int]

@final
class PacketLog(Muxer):
    count: int
    whole: bool
    def pack(self) -> bytes: ...
    def lay_out(
        self, layout: Muxer, places: list[int], index: SpanIndex, from_us: int = ..., to_us: int = ...
    ) -> array[int]: ...

def unpack_log(data: bytes) -> PacketLog: ...

@final
class PayloadSink(Muxer): ...
