"""What the statistics do for every connection and session once a second, compiled (`mist.core.tally`)."""

from mist.core.tally import (
    COARSE_STEP_SECONDS,
    FINE_SECONDS,
    HISTORY_SECONDS,
    Connection,
    ConnectionSnapshot,
    Counted,
    History,
    SessionCounts,
    StreamCounts,
    age_sessions,
    count_connections,
    gone_connections,
    restored_counts,
)

__all__ = [
    "COARSE_STEP_SECONDS",
    "FINE_SECONDS",
    "HISTORY_SECONDS",
    "Connection",
    "ConnectionSnapshot",
    "Counted",
    "History",
    "SessionCounts",
    "StreamCounts",
    "age_sessions",
    "count_connections",
    "gone_connections",
    "restored_counts",
]
