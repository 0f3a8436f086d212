from collections.abc import Callable, Iterable
from typing import Any, Final

from mist.core.muxer import Muxer

ARENA_BYTES: Final[int]
MAX_RETAINED_BYTES: Final[int]
MAX_LAG_US: Final[int]
LAG_CHECK_BYTES: Final[int]
PRIVATE_UNSENT_BYTES: Final[int]
EVENTS: Final[int]
DRAIN_BYTES: Final[int]
STAY_ROUNDS: Final[int]
STAY_MS: Final[int]
MERGE_STEP_US: Final[int]
MERGE_MAX_US: Final[int]
LOAD_INTERVAL_US: Final[int]
OUT_OF_BAND_LIMIT: Final[int]
SYNC_WAIT_US: Final[int]

class Arena:
    tail: int
    end: int

class Subscription:
    fd: int
    bytes_sent: int
    def send(self, data: bytes) -> None: ...
    def pause(self, paused: bool) -> None: ...
    def leave(self) -> int: ...
    def close(self, reason: str = "CLEAN_INTENDED_STOP") -> None: ...
    def detach(self) -> None: ...

class Group:
    key: Any
    def positions(self) -> list[int]: ...
    def finish(self, reason: str) -> None: ...

class Watch:
    reader: Any
    cookie: int
    def close(self) -> None: ...

class Fanout:
    fd: int
    merge_us: int
    wakeups: int
    def __init__(self, bell_folder: str, merge_ms: str | int = "auto") -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def __len__(self) -> int: ...
    def watch_for(self, reader: Any) -> Watch: ...
    def watch(self, reader: Any, callback: Callable[[], None]) -> Watch: ...
    def unwatch(self, watch: Watch, callback: Callable[[], None]) -> None: ...
    def unwatch_if_idle(self, watch: Watch) -> None: ...
    def join(
        self,
        reader: Any,
        indexes: Iterable[int],
        key: str,
        make_muxer: Callable[[list[Any]], Muxer],
        fd: int,
        head: bytes,
        *,
        start_us: int | None = None,
        stop_us: int | None = None,
        rate: float | None = None,
        ahead_us: int = 7_500_000,
        by_time: bool = False,
        reselect: Callable[[list[Any]], list[int]] | None = None,
        record: Any = None,
        on_close: Callable[[str], None],
        on_readable: Callable[[], None] | None = None,
    ) -> Subscription: ...
    def find_group(
        self,
        watch: Watch,
        key: Any,
        make_muxer: Callable[[list[Any]], Muxer],
        reselect: Any,
        start_us: int | None,
        private: bool,
    ) -> Group: ...
    def register(self, viewer: Subscription) -> None: ...
    def attach(self, loop_fd: int) -> None: ...
    def run(self) -> None: ...
    def socket_event(self, viewer: Subscription, happened: int) -> None: ...
    def has_news(self, watch: Watch) -> bool: ...
