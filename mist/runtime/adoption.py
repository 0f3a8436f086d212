"""How a worker goes on with the connections of another one that has ended.

The guardian has a duplicate of every socket and of the memory of every group of viewers. It gives them to another worker in
messages `{"do": "adopt", "pids": [...], ...}` with `"arenas": [number]`, then with `"connections": [[number, host]]`, each with as
many descriptors, and `"last": true` in the last one. With connections come `"visits": {number: state}`, what the handlers of
triggers were told of them, and with the last order `"ended": [state]` of those that have ended. What the former worker wrote down
is in its table of connections. The first of the pids is the former worker; it may have ended before it had taken over everything
from those after it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from mist.core.checkpoint import Record
from mist.core.kernel_counts import received_bytes
from mist.errors import MistError
from mist.runtime.channel import Message, close_all
from mist.runtime.instance import Instance
from mist.runtime.leftovers import open_records, records_name

log = logging.getLogger(__name__)

PER_MESSAGE: Final = 100  # descriptors
UNCLAIMED_SECONDS: Final = 10.0

Visited = Sequence[Any]  # the state of a `mist.stream.visits.Visit`


def orders(
    pids: Sequence[int],
    arenas: Mapping[int, int],
    connections: Mapping[int, tuple[str, int]],
    visits: Mapping[int, Visited],
    ended: Sequence[Visited],
) -> Iterator[tuple[Message, tuple[int, ...]]]:
    """Return the messages that give a former worker's things away, with their descriptors.

    arenas: descriptors by number. connections: address and descriptor by number. visits: by the same number. ended: of connections
    that have ended.
    """
    for some in _pieces(tuple(arenas.items())):
        yield {"do": "adopt", "pids": [*pids], "arenas": [number for number, _ in some]}, tuple(fd for _, fd in some)
    for served in _pieces(tuple(connections.items())):
        listed = [[number, host] for number, (host, _) in served]
        known = {number: visits[number] for number, _ in served if number in visits}
        order = {"do": "adopt", "pids": [*pids], "connections": listed, **({"visits": known} if known else {})}
        yield order, tuple(fd for _, (_, fd) in served)
    yield {"do": "adopt", "pids": [*pids], "last": True, **({"ended": [*ended]} if ended else {})}, ()


def _pieces(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), PER_MESSAGE):
        yield things[start : start + PER_MESSAGE]


class Host(Protocol):
    """What the adopting worker does."""

    def serve(self, number: int, host: str, fd: int, visit: Visited | None = None) -> None: ...

    def resume(self, number: int, host: str, fd: int, former: Record, visit: Visited | None) -> None: ...

    def gone(self, number: int) -> None: ...

    def visit_ended(self, state: Visited) -> None: ...


class Adopter:
    """The worker's side."""

    def __init__(self, instance: Instance, host: Host, call_later: Callable[..., Any]) -> None:
        self._instance = instance
        self._host = host
        self._call_later = call_later
        self._tables: dict[int, dict[int, Record]] = {}  # by the former worker
        self._arenas: dict[int, int] = {}

    def take(self, message: Message, fds: list[int]) -> bool:
        """Do what an order says; return whether it was the last of its former worker."""
        pids = [int(pid) for pid in message["pids"]]
        for number, fd in zip(message.get("arenas", ()), fds, strict=False):
            self._arenas[number] = fd
        records = self._tables.get(pids[0])
        if records is None:
            records = self._tables[pids[0]] = self._records(pids)
        for (number, host), fd in zip(message.get("connections", ()), fds, strict=False):
            self._go_on(records.get(number), number, host, fd, message.get("visits", {}).get(str(number)))
        if not message.get("last"):
            return False
        for state in message.get("ended", ()):
            self._host.visit_ended(state)
        del self._tables[pids[0]]
        self._call_later(UNCLAIMED_SECONDS, self._drop_arenas)
        return True

    def _records(self, pids: Sequence[int]) -> dict[int, Record]:
        found: dict[int, Record] = {}
        for pid in reversed(pids):
            table = open_records(records_name(self._instance, pid))
            if table is not None:
                found.update(table.recoverable())
        return found

    def _go_on(self, former: Record | None, number: int, host: str, fd: int, visit: Visited | None) -> None:
        if (former is None and not touched(fd)) or (
            former is not None and former.recoverable and not former.progress()[3]
        ):
            self._host.serve(number, host, fd, visit)  # its former worker had not begun with it
            return
        if former is None or not former.recoverable:
            log.warning("A connection from %s ends: it cannot be continued in another process", host)
            os.close(fd)
            if visit is not None:
                self._host.visit_ended(visit)
            self._host.gone(number)
            return
        self._host.resume(number, host, fd, former, visit)

    def take_arena(self, number: int) -> int | None:
        """Return the descriptor of a group's memory, which is the caller's then, or None."""
        return self._arenas.pop(number, None)

    def _drop_arenas(self) -> None:
        close_all(tuple(self._arenas.values()))
        self._arenas.clear()


def touched(fd: int) -> bool:
    """Tell whether a worker has taken anything from a connection."""
    try:
        return received_bytes(fd) > 0
    except (MistError, OSError):
        return True
