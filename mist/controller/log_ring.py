"""The last lines of every process's log, as they arrive on the runtime's log socket."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

KEPT_LINES = 100
HISTORY_CHARACTERS = 1024 * 1024
ROW_CHARACTERS = 64  # a row without its texts
MAX_DATAGRAM_BYTES = 65536
MAX_READS_AT_ONCE = 64
NAMES = ("stream", "connector", "host", "token")
ConnectionNames = tuple[str, str, str, str]
LogRow = list[Any]  # [unix seconds, kind, message, stream, process id, program, "file:line"]


def parse_object(datagram: bytes) -> dict[str, Any] | None:
    """Return what a datagram says (a JSON object), None when it says nothing."""
    try:
        value = json.loads(datagram)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def row_of(line: dict[str, Any]) -> LogRow:
    """Return the row of a line as the processes write it."""
    time, pid = line.get("time"), line.get("pid")
    return [
        int(time) if isinstance(time, int | float) and abs(time) < 2**53 else 0,
        str(line.get("kind", "INFO")),
        str(line.get("message", "")),
        str(line.get("stream", "")),
        pid if isinstance(pid, int) else 0,
        str(line.get("program", "")),
        str(line.get("where", "")),
    ]


class History:
    """Keeps about a mebibyte of rows, whose first member is their unix second, and tells listeners of new ones."""

    def __init__(self) -> None:
        self._rows: deque[tuple[list[Any], int]] = deque()
        self._characters = 0
        self._listeners: set[Callable[[list[Any]], None]] = set()

    def add(self, row: list[Any]) -> None:
        """Append a row, dropping the oldest when there are too many."""
        size = ROW_CHARACTERS + sum(len(part) for part in row if isinstance(part, str))
        self._rows.append((row, size))
        self._characters += size
        while self._characters > HISTORY_CHARACTERS:
            self._characters -= self._rows.popleft()[1]
        for listener in tuple(self._listeners):
            listener(row)

    def last(self, count: int) -> list[list[Any]]:
        """Return the newest rows, oldest first."""
        return [row for row, _ in itertools.islice(self._rows, max(len(self._rows) - count, 0), None)]

    def since(self, time: int) -> list[list[Any]]:
        """Return the rows of a unix second and later."""
        return [row for row, _ in self._rows if row[0] >= time]

    def listen(self, listener: Callable[[list[Any]], None]) -> Callable[[], None]:
        """Call a listener with each new row; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)


class LogRing:
    """Keeps the last lines for the API's `log`. total: lines since the start, kept or not. history: more, for `/ws`."""

    def __init__(self) -> None:
        self._lines: deque[LogRow] = deque(maxlen=KEPT_LINES)
        self.history = History()
        self.total = 0

    def add(self, row: LogRow) -> None:
        """Append a line, dropping the oldest when there are too many."""
        self._lines.append(row)
        self.history.add(row)
        self.total += 1

    def rows(self) -> list[LogRow]:
        """Return the kept lines, oldest first."""
        return list(self._lines)

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()


class LogReceiver:
    """Reads datagrams from the log socket into a ring, as long as it is open; those that give a session a tag go elsewhere."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log_socket: socket.socket,
        ring: LogRing,
        tag: Callable[[ConnectionNames, str], None],
    ) -> None:
        """tag: called with the names of a connection (stream, connector, host, token) and the tag of its session."""
        self._loop = loop
        self._socket = log_socket
        self._ring = ring
        self._tag = tag
        log_socket.setblocking(False)
        loop.add_reader(log_socket, self._readable)

    def _readable(self) -> None:
        for _ in range(MAX_READS_AT_ONCE):
            try:
                datagram = self._socket.recv(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            line = parse_object(datagram)
            if line is None:
                continue
            if "tag" not in line:
                self._ring.add(row_of(line))
            elif isinstance(names := line.get("session"), list) and len(names) == len(NAMES):
                stream, connector, host, token = map(str, names)
                self._tag((stream, connector, host, token), str(line["tag"]))

    def close(self) -> None:
        """Stop reading; the socket stays open and belongs to whoever made it."""
        self._loop.remove_reader(self._socket)
