from typing import final

from mist.core.access_units import UnitReader

@final
class NalReader(UnitReader):
    def __init__(self, hevc: bool) -> None: ...

@final
class Mpeg2Reader(UnitReader): ...
