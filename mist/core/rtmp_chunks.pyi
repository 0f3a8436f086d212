from collections.abc import Sequence
from typing import Final, final

from mist.core.flv import TagMuxer
from mist.formats.tracks import TrackInfo

MAX_CHUNK_STREAMS: Final[int]
MAX_MEMORY_BYTES: Final[int]
MAX_MESSAGE_BYTES: Final[int]
PLAY_CHUNK_SIZE: Final[int]
DEFAULT_CHUNK_SIZE: Final[int]

@final
class Message:
    chunk_stream: int
    type_id: int
    message_stream: int
    time_ms: int
    payload: bytes
    def __init__(self, chunk_stream: int, type_id: int, message_stream: int, time_ms: int, payload: bytes) -> None: ...

@final
class ChunkReader:
    chunk_size: int
    discarded: int
    def __init__(self, max_message_bytes: int = ..., max_memory_bytes: int = ...) -> None: ...
    @property
    def memory_bytes(self) -> int: ...
    def set_limits(self, max_memory_bytes: int) -> None: ...
    def feed(self, data: bytes | memoryview) -> list[Message]: ...
    def export_state(self) -> bytes: ...
    def restore(self, state: bytes) -> None: ...

@final
class ChunkWriter:
    chunk_size: int
    def __init__(self, chunk_size: int = 128) -> None: ...
    def write(self, chunk_stream: int, type_id: int, message_stream: int, time_ms: int, payload: bytes) -> None: ...
    def write_chunk_size(self, chunk_size: int) -> None: ...
    def take_output(self) -> bytes: ...

@final
class RtmpPlayMuxer(TagMuxer): ...

@final
class RtmpPublishMuxer(TagMuxer):
    def __init__(
        self, tracks: Sequence[TrackInfo], enhanced: bool = True, message_stream: int = 1, keep_times: bool = False
    ) -> None: ...
