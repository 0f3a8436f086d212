from typing import Final

SEGMENT_MODE: Final[int]

class Segment:
    size: int
    allocated: int
    name: str

def create_segment(name: str, size: int, reserve: int) -> Segment: ...
def open_segment(name: str, writable: bool = False) -> Segment: ...
def unlink_segment(name: str) -> None: ...
