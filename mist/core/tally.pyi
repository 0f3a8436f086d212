from collections.abc import Callable
from typing import Any

HISTORY_SECONDS: int
FINE_SECONDS: int
COARSE_STEP_SECONDS: int

class ConnectionSnapshot:
    def __init__(
        self,
        *,
        pid: int = 0,
        connector: str = "",
        stream: str = "",
        host: str = "",
        token: str = "",
        started_us: int = 0,
        updated_us: int = 0,
        down_bytes: int = 0,
        up_bytes: int = 0,
        position_us: int = 0,
        packets: int = 0,
        packets_lost: int = 0,
        packets_retransmitted: int = 0,
        active: bool = True,
        record_id: int = 0,
    ) -> None: ...
    record_id: int
    names: tuple[str, str, str, str]
    pid: int
    started_us: int
    updated_us: int
    down_bytes: int
    up_bytes: int
    position_us: int
    packets: int
    packets_lost: int
    packets_retransmitted: int
    active: bool
    @property
    def stream(self) -> str: ...
    @property
    def connector(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def token(self) -> str: ...

class History:
    width: int
    def __init__(self, width: int) -> None: ...
    def record(self, row: tuple[int, ...]) -> None: ...
    def shrink(self) -> None: ...
    def at(self, time: int) -> tuple[int, ...] | None: ...

class Counted:
    up: int
    down: int
    packets: int
    lost: int
    resent: int

class StreamCounts(Counted):
    viewseconds: int

class SessionCounts(Counted):
    position_ms: int
    connected_s: int
    unspent_s: int
    touched: int
    seen: int
    linger_s: int
    ended: int
    counted: bool
    watches: bool
    history: History
    home_totals: StreamCounts | None

class Connection:
    key: tuple[str, str, str, str] | None
    session: Any
    totals: Any
    series: Any
    sent: int
    received: int
    packets: int
    lost: int
    resent: int
    seen: int

def restored_history(width: int, fine: bytes, coarse: bytes) -> History: ...
def restored_connection(key: Any, session: Any, totals: Any, series: Any, numbers: Any) -> Connection: ...
def restored_counts(kind: type, names: tuple[str, ...], values: tuple[Any, ...]) -> Any: ...
def count_connections(
    connections: dict[int, Connection],
    snapshots: list[ConnectionSnapshot],
    tick: int,
    now: int,
    attach: Callable[[Connection, tuple[str, str, str, str], int, int], None],
) -> tuple[int, int, int, int, int, int, int]: ...
def age_sessions(live: dict[str, Any], tick: int, now: int, elapsed: int) -> tuple[list[Any], int]: ...
def gone_connections(connections: dict[int, Connection], tick: int) -> list[int]: ...
