from typing import Final

AVAILABLE: Final[bool]

def make_immortal() -> int: ...
