from collections.abc import Callable, Iterable
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.core.muxing import MuxGroup
from mist.core.poller import Poller
from mist.core.subscription import Subscription

MAX_RETAINED_BYTES: Final[int]
MAX_LAG_US: Final[int]
LAG_CHECK_BYTES: Final[int]
DRAIN_BYTES: Final[int]

class Group(MuxGroup):
    def __init__(self, fanout: Fanout, watch: Watch | None, reselect: Any) -> None: ...
    def add(self, viewer: Subscription, head: bytes) -> None: ...
    def remove(self, viewer: Subscription) -> None: ...

class Watch:
    reader: Any
    cookie: int
    def close(self) -> None: ...

class Fanout(Poller):
    arena_made: Callable[[int, int], None] | None
    arena_gone: Callable[[int], None] | None
    def __init__(self, bell_folder: str, merge_ms: str | int = "auto") -> None: ...
    def close(self) -> None: ...
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
        alone: bool = False,
        reselect: Callable[[list[Any]], list[int]] | None = None,
        record: Any = None,
        state: bytes | None = None,
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
        apart: bool,
    ) -> Group: ...
    def drop_group(self, group: Group) -> None: ...
    def adopt_arena(
        self,
        reader: Any,
        fd: int,
        key: str,
        indexes: Iterable[int],
        make_muxer: Callable[[list[Any]], Muxer],
        kind: type,
        reselect: Callable[[list[Any]], list[int]] | None,
    ) -> None: ...
    def has_adopted(self, number: int) -> bool: ...
    def adopt(
        self,
        fd: int,
        record: Any,
        *,
        on_close: Callable[[str], None],
        on_readable: Callable[[], None] | None = None,
    ) -> Subscription: ...
    def drop_unused(self) -> None: ...
    def has_news(self, watch: Watch) -> bool: ...
