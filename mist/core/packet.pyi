class Packet:
    track: int
    dts_us: int
    offset_us: int
    keyframe: bool
    payload: bytes
    def __init__(self, track: int, dts_us: int, offset_us: int, keyframe: bool, payload: bytes) -> None: ...
    @property
    def pts_us(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
