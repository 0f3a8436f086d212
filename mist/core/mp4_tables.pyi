from typing import final

@final
class SampleTable:
    count: int
    negative_ticks: int
    def __init__(
        self, moov: bytes, tables: dict[str, tuple[int, int]], base: int = 0, frame_bytes: int = 0
    ) -> None: ...
    @property
    def duration_ticks(self) -> int: ...
    def usual_ticks(self) -> int: ...
