from collections.abc import Sequence
from typing import final

@final
class FragmentReader:
    queued: int
    queued_bytes: int
    def __init__(
        self,
        tracks: Sequence[tuple[int, tuple[int, int, int, int]]],
        others: Sequence[tuple[int, tuple[int, int, int, int]]] = (),
    ) -> None: ...
