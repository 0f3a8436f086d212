from typing import final

@final
class LatmReader:
    config: bytes
    changed: bool
    rate_hz: int
    samples: int
