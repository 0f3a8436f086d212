from typing import final

from mist.core.timeline import Timeline
from mist.core.ts_sections import StreamDescription
from mist.formats.tracks import TrackInfo

@final
class ProgramClock:
    timeline: Timeline

@final
class TsStream:
    pid: int
    role: int
    number: int
    description: StreamDescription | None
    info: TrackInfo | None
    track: int
    order: tuple[int, ...]
    def __init__(
        self,
        pid: int,
        role: int,
        clock: ProgramClock | None = None,
        description: StreamDescription | None = None,
        number: int = 0,
        order: tuple[int, ...] = (),
    ) -> None: ...
