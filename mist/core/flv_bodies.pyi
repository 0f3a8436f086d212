from typing import Final, final

INIT: Final[str]
FRAME: Final[str]
END: Final[str]
METADATA: Final[str]
CHANNELS: Final[str]
VIDEO_FOURCCS: Final[dict[str, str]]
AUDIO_FOURCCS: Final[dict[str, str]]
VIDEO_IDS: Final[dict[str, int]]
AUDIO_IDS: Final[dict[str, int]]
RATES_HZ: Final[tuple[int, ...]]
LEGACY_CODECS: Final[frozenset[str]]
ENHANCED_CODECS: Final[frozenset[str]]

@final
class TagPart:
    kind: str
    type: str
    codec: str
    track_id: int
    keyframe: bool
    offset_us: int
    nano_offset_ns: int
    sample_rate_hz: int
    channels: int
    sample_bits: int
    payload: bytes

def fourcc_number(text: str) -> int: ...
def parse_video_body(body: bytes) -> list[TagPart]: ...
def parse_audio_body(body: bytes) -> list[TagPart]: ...
