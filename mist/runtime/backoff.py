"""How long to wait before something that failed is started again: 0, 1, 2 … seconds, forgotten after a good run."""

from __future__ import annotations

GOOD_RUN_SECONDS = 10.0
MAX_DELAY_SECONDS = 30
ONLY_ONE_SECONDS = 3  # the most for a process of which there is one, and on which others wait


class Backoff:
    """The delays of one thing that is started again and again, most_seconds at most."""

    def __init__(self, most_seconds: int = MAX_DELAY_SECONDS) -> None:
        self._most_seconds = most_seconds
        self._failures = 0

    def next_delay(self, ran_seconds: float) -> float:
        """Return the seconds to wait after a failure. ran_seconds: how long it had worked."""
        if ran_seconds >= GOOD_RUN_SECONDS:
            self._failures = 0
        delay = min(self._failures, self._most_seconds)
        self._failures += 1
        return float(delay)
