from typing import Final, final

@final
class SectionReader:
    def __init__(self, tables: bool) -> None: ...

UNTOLD: Final[str]

class StreamDescription:
    pid: int
    type: str
    codec: str
    language: str
    descriptors: bytes
    channel_code: int
    sections: bool
    def __init__(
        self,
        pid: int,
        type_: str,
        codec: str,
        language: str = "und",
        descriptors: bytes = b"",
        channel_code: int = -1,
        sections: bool = False,
    ) -> None: ...
    def told(self, payload: bytes) -> StreamDescription | None: ...
    def key(self) -> tuple[int, str, int]: ...

def parse_programs(section: bytes) -> tuple[int, int, dict[int, int]] | None: ...
def parse_streams(section: bytes) -> tuple[int, int, list[StreamDescription]] | None: ...
def parse_descriptors(data: bytes) -> list[tuple[int, bytes]]: ...
