from collections.abc import Sequence
from typing import Any, Final, Protocol, final

from mist.core.audio_frames import AudioFrameDemuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo

MAX_FORMAT_BYTES: Final[int]
MAX_CHUNKS: Final[int]

class FormatReader(Protocol):
    def parse_format(self, data: bytes) -> Any: ...
    def describe(self, form: str, frame: bytes) -> TrackInfo: ...

class FormatWriter(Protocol):
    def format_of(self, track: TrackInfo) -> Any: ...
    def build_header(self, track: TrackInfo) -> bytes: ...

@final
class RiffDemuxer(AudioFrameDemuxer):
    def __init__(self, reader: FormatReader) -> None: ...

@final
class RiffMuxer(Muxer):
    def __init__(self, tracks: Sequence[TrackInfo], format: FormatWriter) -> None: ...
    def finish(self) -> None: ...
    def patches(self) -> list[tuple[int, bytes]]: ...
