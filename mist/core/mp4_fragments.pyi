from collections.abc import Iterator, Sequence
from typing import final

def event_boxes(fd: int, most: int) -> Iterator[bytes]: ...

@final
class FragmentReader:
    queued: int
    queued_bytes: int
    def __init__(
        self,
        tracks: Sequence[tuple[int, tuple[int, int, int, int]]],
        others: Sequence[tuple[int, tuple[int, int, int, int]]] = (),
    ) -> None: ...
