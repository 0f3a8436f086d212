from typing import final

from mist.core.buffer import ByteBuffer

class UnitReader:
    raw: ByteBuffer

@final
class WholeReader(UnitReader):
    def __init__(self, klv: bool = False) -> None: ...

@final
class Av1Reader(UnitReader): ...

class AudioReader(UnitReader):
    def __init__(self, form: str) -> None: ...

@final
class LatmStreamReader(AudioReader):
    def __init__(self) -> None: ...
