"""Viewer sessions: which connections count as one user, and what such a session adds up to.

In the API "up" is what the server sent and "down" what it received, as users of compatible servers know it.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

from mist.stream.session_counts import History, SessionCounts, StreamCounts, restored_counts
from mist.stream.session_identity import (
    INFO_CONNECTOR,
    Kind,
    packed_address,
)

UNKNOWN_HOST = "::"

RATE_SECONDS = 5
MAX_TAGS = 64
MAX_TAG_CHARACTERS = 128
_NOT_IN_TAG = re.compile(r"[\[\]\x00-\x1f\x7f]+")
MAX_NAMES = 64  # of streams, protocols and addresses whose seconds a session counts

# Seconds a session goes on without a connection: viewers that fetch segments come back, the others do not.
LINGER_SECONDS = {Kind.VIEWER: 15, Kind.INPUT: 1, Kind.OUTPUT: 1, Kind.UNSPECIFIED: 15}


@lru_cache(maxsize=4096)
def shown_address(host: str) -> str:
    """Return an address as replies show it: IPv4 dotted, IPv6 as eight full groups, "::" when unknown."""
    packed = packed_address(host)
    if not any(packed):
        return UNKNOWN_HOST
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return ".".join(str(byte) for byte in packed[12:])
    return ipaddress.IPv6Address(packed).exploded


class Row(NamedTuple):
    """What a session had done by one second: bytes sent and received, media position, seconds connected."""

    time: int
    up: int
    down: int
    position_ms: int
    connected_s: int


def clean_tag(text: str) -> str:
    """Return a tag as the access log and USER_END can show it, between brackets and on one line: it may have spaces."""
    return _NOT_IN_TAG.sub(" ", text).strip()[:MAX_TAG_CHARACTERS]


class Session(SessionCounts):
    """What is counted as one user: counters since its start, and its history.

    home, connector: the stream and protocol it began with; the only stream unless the session modes leave streams out.
    spent: seconds by stream, by connector and by host; protocols: the connectors that are connected now.
    ended: the second in which it ended, 0 while it goes on. counted: whether its bytes are the stream's.
    """

    __slots__ = (
        "connections", "connector", "connectors", "home", "host", "hosts", "id", "kind", "protocols", "spent", "started",
        "stream", "streams", "tags", "token",
    )  # fmt: skip
    KEPT: ClassVar = (
        *__slots__, "up", "down", "packets", "lost", "resent", "position_ms", "connected_s", "unspent_s", "touched", "seen",
        "linger_s", "ended", "counted", "watches", "history", "home_totals",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        kind: Kind,
        token: str,
        home: str,
        connector: str,
        started: int,
        now: int,
        *,
        counted: bool,
        totals: StreamCounts | None = None,
    ) -> None:
        """Begin a session. counted: whether what it does is the stream's. totals: of the stream that it began with."""
        self.id = session_id
        self.kind = kind
        self.token = token
        self.home = home
        self.connector = connector
        self.started = started
        self.touched = now
        self.counted = counted
        self.watches = counted and kind is Kind.VIEWER
        self.linger_s = LINGER_SECONDS[kind]
        self.home_totals = totals
        self.stream, self.host = home, ""
        self.streams: dict[str, int] = {}
        self.hosts: dict[str, int] = {}
        self.connectors: set[str] = set()
        self.protocols: dict[str, int] = {}
        self.spent: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        self.tags: set[str] = set()
        self.connections = 0
        self.connected_s = now - started
        self.history = History(len(Row._fields))

    def __reduce__(self) -> tuple[Any, ...]:
        return restored_counts, (Session, self.KEPT, _kept(self))

    def attach(self, stream: str, host: str, connector: str) -> None:
        """Take up a connection."""
        self._spend()
        self.connections += 1
        for names, name in zip(self._names(), (stream, connector, host), strict=True):
            names[name] = names.get(name, 0) + 1
        for seconds, name in zip(self.spent, (stream, connector, host), strict=True):
            if len(seconds) < MAX_NAMES:
                seconds.setdefault(name, 0 if self.connections > 1 else self.connected_s)
        if connector != INFO_CONNECTOR:
            self.connectors.add(connector)
        self._name()

    def detach(self, stream: str, host: str, connector: str) -> None:
        """Let go of a connection; the last one leaves its names behind. One that is left when the session has ended had none."""
        self._spend()
        self.connections -= 1
        if self.ended:
            return
        if self.connections:
            for names, name in zip(self._names(), (stream, connector, host), strict=True):
                names[name] -= 1
                if not names[name]:
                    del names[name]
            self._name()
        else:
            self.streams.clear()
            self.hosts.clear()
            self.protocols.clear()

    def _spend(self) -> None:
        """Count the seconds since the names of what is connected changed last."""
        seconds, self.unspent_s = self.unspent_s, 0
        if not seconds:
            return
        for spent, names in zip(self.spent, self._names(), strict=True):
            for name in names:
                if name in spent:
                    spent[name] += seconds

    def end_lines(self) -> list[str]:
        """Return what USER_END says of it."""
        self._spend()
        streams, connectors, hosts = self.spent
        return [
            self.token,
            ",".join(streams),
            ",".join(connectors),
            ",".join(shown_address(host) for host in hosts),
            str(self.connected_s),
            str(self.up),
            str(self.down),
            self.tag_text,
            *(",".join(str(count) for count in seconds.values()) for seconds in (hosts, connectors, streams)),
            self.id,
        ]

    @property
    def tag_text(self) -> str:
        """The tags as the access log has them."""
        return "".join(f"[{tag}]" for tag in sorted(self.tags))

    def _names(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Return how many connections are to each stream, by each connector and from each host."""
        return self.streams, self.protocols, self.hosts

    def _name(self) -> None:
        self.stream = next(iter(self.streams)) if len(self.streams) == 1 else ""
        self.host = next(iter(self.hosts)) if len(self.hosts) == 1 else UNKNOWN_HOST

    @property
    def protocol(self) -> str:
        """The connectors that were used, joined by commas."""
        return ",".join(sorted(self.connectors)) if self.connectors else INFO_CONNECTOR

    def tag(self, tags: set[str]) -> None:
        """Give the session tags, up to a bound."""
        self.tags = set(sorted(self.tags | tags)[:MAX_TAGS])

    def end(self, now: int) -> None:
        """Close the session; records of connections that did nothing for long may still be attached."""
        self._spend()
        self.ended = now
        self.history.shrink()
        for names in self._names():
            names.clear()

    def alive_at(self, time: int) -> bool:
        """Return whether the session went on at a time."""
        return self.started <= time and (not self.ended or time < self.ended)

    def at(self, time: int) -> Row | None:
        """Return the newest row of the history that is not after time, None when that is too long ago."""
        row = self.history.at(time)
        return Row(*row) if row is not None else None

    def rates(self, time: int) -> tuple[float, float]:
        """Return the bytes a second sent and received, over the last seconds before a time at which it was alive."""
        last = self.at(time)
        if last is None:
            return 0.0, 0.0
        first = self.at(time - RATE_SECONDS) or Row(self.started - 1, 0, 0, 0, 0)
        seconds = max(time - first.time, 1)
        return (last.up - first.up) / seconds, (last.down - first.down) / seconds


_kept = attrgetter(*Session.KEPT)
