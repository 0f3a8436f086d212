from collections.abc import Sequence
from typing import Final

RULES: Final[dict[str, int]]

def serialize_pages(
    packets: Sequence[bytes], serial: int, number: int = 0, flags: int = 0, granule: int = 0
) -> tuple[bytes, int]: ...
