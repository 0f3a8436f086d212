"""Viewer sessions: which connections count as one user, and what such a session adds up to.

In the API "up" is what the server sent and "down" what it received, as users of compatible servers know it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from mist.controller.history import History

STREAM_BIT, ADDRESS_BIT, TOKEN_BIT, CONNECTOR_BIT = 8, 4, 2, 1
INFO_AS_VIEWER, INFO_AS_OUTPUT, INFO_AS_NOTHING, INFO_AS_UNSPECIFIED = 1, 2, 3, 4
INFO_CONNECTOR = "HTTP"
UNKNOWN_HOST = "::"

RATE_SECONDS = 5
MAX_TAGS = 64


class Kind(IntEnum):
    """What a session is; the order is that of the counters in replies."""

    VIEWER = 0
    INPUT = 1
    OUTPUT = 2
    UNSPECIFIED = 3


_PREFIX = {Kind.VIEWER: "", Kind.INPUT: "I", Kind.OUTPUT: "O", Kind.UNSPECIFIED: "U"}
# Seconds a session goes on without a connection: viewers that fetch segments come back, the others do not.
LINGER_SECONDS = {Kind.VIEWER: 15, Kind.INPUT: 1, Kind.OUTPUT: 1, Kind.UNSPECIFIED: 15}


class SessionModes(NamedTuple):
    """The settings that say what a session is: for each kind which parts of a connection make its identifier."""

    viewer: int = 14
    input: int = 15
    output: int = 15
    unspecified: int = 0
    stream_info: int = INFO_AS_VIEWER

    @classmethod
    def from_config(cls, server: Mapping[str, Any]) -> SessionModes:
        """Return the modes in the member `config` of a snapshot."""
        return cls(
            server.get("sessionViewerMode", 14),
            server.get("sessionInputMode", 15),
            server.get("sessionOutputMode", 15),
            server.get("sessionUnspecifiedMode", 0),
            server.get("sessionStreamInfoMode", INFO_AS_VIEWER),
        )

    def kind_of(self, connector: str) -> Kind | None:
        """Return what kind of session a connection with this connector belongs to, None for none at all."""
        if connector.startswith("INPUT:"):
            return Kind.INPUT
        if connector.startswith("OUTPUT:"):
            return Kind.OUTPUT
        if connector != INFO_CONNECTOR:
            return Kind.VIEWER
        return {
            INFO_AS_OUTPUT: Kind.OUTPUT,
            INFO_AS_NOTHING: None,
            INFO_AS_UNSPECIFIED: Kind.UNSPECIFIED,
        }.get(self.stream_info, Kind.VIEWER)


def identify(kind: Kind, modes: SessionModes, stream: str, host: str, token: str, connector: str) -> str:
    """Return the identifier of the session that a connection belongs to."""
    mode = modes[kind]
    digest = hashlib.sha256()
    if mode & STREAM_BIT:
        digest.update(stream.encode("utf-8", "replace"))
    if mode & ADDRESS_BIT:
        digest.update(packed_address(host))
    if mode & TOKEN_BIT:
        digest.update(token.encode("utf-8", "replace"))
    if mode & CONNECTOR_BIT:
        digest.update(connector.encode("utf-8", "replace"))
    return _PREFIX[kind] + digest.hexdigest()


@lru_cache(maxsize=4096)
def packed_address(host: str) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped into IPv6; zeros for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return bytes(16)
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


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


class Session:
    """What is counted as one user: counters since its start, and its history.

    home, connector: the stream and protocol it began with; the only stream unless the session modes leave streams out.
    up, down: bytes sent and received. connected_s: seconds with at least one active connection.
    touched: the last second with an active connection; seen: the number of the statistics' tick at that time.
    ended: the second in which it ended, 0 while it goes on. counted: whether its bytes are the stream's.
    """

    __slots__ = (
        "connected_s", "connections", "connector", "connectors", "counted", "down", "ended", "history", "home", "host", "hosts", "id",
        "kind", "lost", "packets", "position_ms", "resent", "seen", "started", "stream", "streams", "tags", "token", "touched",
        "up",
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
    ) -> None:
        self.id = session_id
        self.kind = kind
        self.token = token
        self.home = home
        self.connector = connector
        self.started = started
        self.touched = now
        self.ended = 0
        self.counted = counted
        self.stream, self.host = home, ""
        self.streams: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.connectors: set[str] = set()
        self.tags: set[str] = set()
        self.connections = self.seen = 0
        self.up = self.down = self.packets = self.lost = self.resent = 0
        self.position_ms = 0
        self.connected_s = now - started
        self.history = History(len(Row._fields))

    def attach(self, stream: str, host: str, connector: str) -> None:
        """Take up a connection."""
        self.connections += 1
        self.streams[stream] += 1
        self.hosts[host] += 1
        if connector != INFO_CONNECTOR:
            self.connectors.add(connector)
        self._name()

    def detach(self, stream: str, host: str) -> None:
        """Let go of a connection; the last one leaves its names behind."""
        self.connections -= 1
        if self.connections:
            self.streams[stream] -= 1
            self.hosts[host] -= 1
            self.streams, self.hosts = +self.streams, +self.hosts
            self._name()
        else:
            self.streams.clear()
            self.hosts.clear()

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

    def record(self, now: int) -> None:
        """Append this second to the history."""
        self.history.record((now, self.up, self.down, self.position_ms, self.connected_s))

    def end(self, now: int) -> None:
        """Close the session."""
        self.ended = now
        self.history.shrink()
        self.streams.clear()
        self.hosts.clear()

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
