"""How long to wait before something that failed is started again: 0, 1, 2 … seconds, forgotten after a good run."""

from __future__ import annotations

GOOD_RUN_SECONDS = 10.0
MAX_DELAY_SECONDS = 30


class Backoff:
    """The delays of one thing that is started again and again."""

    def __init__(self) -> None:
        self._failures = 0

    def next_delay(self, ran_seconds: float) -> float:
        """Return the seconds to wait after a failure. ran_seconds: how long it had worked."""
        if ran_seconds >= GOOD_RUN_SECONDS:
            self._failures = 0
        delay = min(self._failures, MAX_DELAY_SECONDS)
        self._failures += 1
        return float(delay)
