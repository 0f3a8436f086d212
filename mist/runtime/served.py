"""What a listener's worker holds: the sockets that it was given, and the streams that its connections share."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mist.core.fanout import Fanout
from mist.core.subscription import Subscription
from mist.runtime.program import Connection
from mist.runtime.span_link import SpanClient
from mist.stream.on_demand import OnDemandReader
from mist.stream.reader import StreamReader
from mist.stream.visits import Visit


class AcceptedSocket(socket.socket):
    """A socket that tells when it is closed or given away."""

    on_gone: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        self._tell()

    def detach(self) -> int:
        fd = super().detach()
        self._tell()
        return fd

    def _tell(self) -> None:
        callback, self.on_gone = self.on_gone, None
        if callback is not None:
            callback()


@dataclass(eq=False)
class Served:
    """One accepted connection. inode: identifies the socket; descriptors: numbers under which this process may have it."""

    number: int
    host: str
    inode: int
    descriptors: set[int]
    connection: Connection | None = None
    visit: Visit | None = None

    def is_open(self) -> bool:
        """Tell whether this process still has the socket."""
        return self.descriptor() is not None

    def descriptor(self) -> int | None:
        """Return a descriptor of the socket, None when it is closed; forgets numbers that have become something else."""
        for fd in tuple(self.descriptors):
            try:
                if os.fstat(fd).st_ino == self.inode:
                    return fd
            except OSError:
                pass
            self.descriptors.discard(fd)
        return None


@dataclass(eq=False)
class HeldStream:
    """A reader shared by this worker's connections, and the slot that shows the input that somebody watches."""

    reader: StreamReader
    slot: int
    users: int = 0
    release: asyncio.TimerHandle | None = field(default=None, repr=False)
    spans: SpanClient | None = None
    on_demand: OnDemandReader | None = None

    def close(self) -> None:
        """Stop showing that somebody watches."""
        self.reader.table.unsubscribe(self.slot)
        if self.spans is not None:
            self.spans.close()


class TrackedFanout:
    """The worker's fan-out, which also tells when a socket that it was given is closed."""

    def __init__(self, fanout: Fanout, joined: Callable[[int], Callable[[str], None]]) -> None:
        self._fanout = fanout
        self._joined = joined

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fanout, name)

    def __len__(self) -> int:
        return len(self._fanout)

    def join(
        self,
        reader: Any,
        indexes: Any,
        key: str,
        make_muxer: Any,
        fd: int,
        head: bytes,
        *,
        on_close: Callable[[str], None],
        **options: Any,
    ) -> Subscription:
        """Join as `Fanout.join` does."""
        gone = self._joined(fd)

        def closed(reason: str) -> None:
            on_close(reason)
            gone(reason)

        return self._fanout.join(reader, indexes, key, make_muxer, fd, head, on_close=closed, **options)

    def adopt(self, fd: int, record: Any, *, on_close: Callable[[str], None], **options: Any) -> Subscription:
        """Adopt as `Fanout.adopt` does."""
        gone = self._joined(fd)

        def closed(reason: str) -> None:
            on_close(reason)
            gone(reason)

        return self._fanout.adopt(fd, record, on_close=closed, **options)
