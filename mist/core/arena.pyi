from typing import Final

ARENA_BYTES: Final[int]
LAYOUT_VERSION: Final[int]

class Arena:
    fd: int
    tail: int
    end: int
    number: int
    def __init__(self, number: int, stream_inode: int) -> None: ...

def adopt_arena(fd: int) -> Arena: ...
