from collections.abc import Mapping, Sequence
from mmap import mmap
from typing import Any, Final

MAX_DEPTH: Final[int]
MAX_VALUES: Final[int]
MAX_NAME_BYTES: Final[int]

def parse_object(
    data: bytes | bytearray | memoryview | mmap, offset: int = 0, long_bytes: int = 0
) -> dict[str, Any]: ...
def serialize_object(members: Mapping[str, Any]) -> bytes: ...
def serialize_value(value: Mapping[str, Any] | Sequence[Any] | str | bytes | int | float | None) -> bytes: ...
