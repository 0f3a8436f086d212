"""Once a second: read all connection records, add them up to sessions, streams and the server, and keep ten minutes."""

from __future__ import annotations

import ipaddress
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from mist.controller.sessions import (
    MAX_TAGS,
    RATE_SECONDS,
    Row,
    Session,
    clean_tag,
    shown_address,
)
from mist.stream.session_counts import (
    HISTORY_SECONDS,
    Connection,
    ConnectionSnapshot,
    Counted,
    History,
    StreamCounts,
    age_sessions,
    count_connections,
    gone_connections,
    restored_counts,
)
from mist.stream.session_identity import Kind, SessionModes, identify, packed_address

MAX_ENDED_SESSIONS = 10_000
MAX_WAITING_STREAMS = 1000
TAG_WAIT_SECONDS = 60
MAX_WAITING_SESSIONS = 1000
SESSION_WAIT_SECONDS = 5  # until a session appears here whose tag came first


class SeriesRow(NamedTuple):
    """What one protocol does for one stream in one second; bytes and packets since the start."""

    time: int
    viewers: int = 0
    inputs: int = 0
    outputs: int = 0
    up: int = 0
    down: int = 0
    packets: int = 0
    lost: int = 0
    resent: int = 0


class Series(Counted):
    """Counters of one protocol of one stream, and their history. now: sessions that began with it, by kind."""

    __slots__ = ("history", "now", "started")
    KEPT: ClassVar = (*__slots__, "up", "down", "packets", "lost", "resent")

    def __init__(self, started: int) -> None:
        self.started = started
        self.now = [0, 0, 0, 0]
        self.history = History(len(SeriesRow._fields))

    def __reduce__(self) -> tuple[Any, ...]:
        return restored_counts, (Series, self.KEPT, tuple([getattr(self, name) for name in self.KEPT]))

    def record(self, now: int) -> None:
        """Append this second to the history."""
        viewers, inputs, outputs, _ = self.now
        counters = (self.up, self.down, self.packets, self.lost, self.resent)
        self.history.record((now, viewers, inputs, outputs, *counters))

    def at(self, time: int) -> SeriesRow:
        """Return the newest row that is not after time; zeros before the first."""
        row = self.history.at(time)
        return SeriesRow(*row) if row is not None else SeriesRow(self.started - 1)


class StreamTotals(StreamCounts):
    """Counters of one stream since its first session. sessions: how many sessions of it are remembered.

    now: viewers, inputs, outputs and unspecified sessions at this moment. total: the same since the start. series: by
    connector. tags, untagged: given and taken at run time, beside what the configuration says.
    """

    __slots__ = ("now", "series", "sessions", "tags", "total", "untagged")
    KEPT: ClassVar = (*__slots__, "up", "down", "packets", "lost", "resent", "viewseconds")

    def __init__(self) -> None:
        self.now = [0, 0, 0, 0]
        self.total = [0, 0, 0, 0]
        self.sessions = 0
        self.series: dict[str, Series] = {}
        self.tags: set[str] = set()
        self.untagged: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return restored_counts, (StreamTotals, self.KEPT, tuple([getattr(self, name) for name in self.KEPT]))


class ServerRow(NamedTuple):
    """The whole server in one second: sessions by kind; bytes (of excepted addresses, too) and packets since the start."""

    time: int
    viewers: int
    inputs: int
    outputs: int
    up: int
    down: int
    packets: int
    lost: int
    resent: int


# What the kept parts of `Statistics` are made of; a controller of another version compares.
LAYOUT = (
    *((one.__name__, one.KEPT) for one in (Session, Series, StreamTotals)),
    ("History", 1),
    ("Connection", 1),
    *((one.__name__, one._fields) for one in (Row, SeriesRow, ServerRow)),
)
KEPT = (
    "live", "ended", "streams", "history", "total", "up", "down", "other_up", "other_down", "packets", "lost", "resent",
    "viewseconds", "_connections", "_began",
)  # fmt: skip


class Statistics:
    """Collates connections into sessions.

    live, ended: sessions that go on, and those of the last ten minutes that do not, by identifier and in order of their
    end. history: one row for each second in which any session was remembered. on_end is called with each session that
    ends, after its access log line.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.modes = SessionModes()
        self.access_log = "LOG"
        self.live: dict[str, Session] = {}
        self.ended: deque[Session] = deque()
        self.streams: dict[str, StreamTotals] = {}
        self.history: deque[ServerRow] = deque(maxlen=HISTORY_SECONDS)
        self.on_end: Callable[[Session], None] = lambda session: None
        self.on_stream_end: Callable[[str, StreamTotals], None] = lambda name, totals: None
        self.total = [0, 0, 0, 0]
        self.up = self.down = self.other_up = self.other_down = 0
        self.packets = self.lost = self.resent = self.viewseconds = 0
        self._connections: dict[int, Connection] = {}
        self._waiting_tags: dict[str, tuple[set[str], int]] = {}
        self._waiting_session_tags: dict[str, tuple[str, int]] = {}
        self._exceptions: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._last_tick = 0
        self._ticks = 0
        self._began = False
        self._access_lines: list[str] = []

    def configure(self, snapshot: Mapping[str, Any]) -> None:
        """Take the settings of a configuration snapshot. Connections that are there keep the session they are in."""
        server = snapshot["config"]
        self.modes = SessionModes.from_config(server)
        self._flush_access_log()
        self.access_log = server.get("accesslog", "LOG")
        self._exceptions = _networks(snapshot.get("bandwidth", {}).get("exceptions", ()))

    def tick(self, snapshots: list[ConnectionSnapshot], now: int) -> None:
        """Take the connection records of this second. now: unix seconds."""
        elapsed = min(max(now - self._last_tick, 0), RATE_SECONDS) if self._last_tick else 1
        self._last_tick = now
        self._ticks += 1
        self._read(snapshots, now)
        if not self._began:  # what ran before the first controller began is nobody's
            self._began = True
            self.up = self.down = self.other_up = self.other_down = 0
        self._forget_connections()
        self._forget_waiting_tags(now)
        if not self.live and not self.ended:
            return
        self._age_sessions(now, elapsed)
        self._flush_access_log()
        for totals in self.streams.values():
            for series in totals.series.values():
                series.record(now)
        self._purge(now)
        counts = [0, 0, 0, 0]
        for session in self.live.values():
            counts[session.kind] += 1
        up, down = self.up + self.other_up, self.down + self.other_down
        self.history.append(
            ServerRow(now, counts[0], counts[1], counts[2], up, down, self.packets, self.lost, self.resent)
        )

    # -- what the API does to streams and sessions ---------------------------------------------------------------------

    def tag_stream(self, name: str, tags: set[str]) -> None:
        """Give tags to a stream; one that is not active gets them when it appears within a minute."""
        totals = self.streams.get(name)
        if totals is not None:
            totals.tags |= tags
            totals.untagged -= tags
            if len(totals.tags) > MAX_TAGS:
                totals.tags = set(sorted(totals.tags)[:MAX_TAGS])
        elif len(self._waiting_tags) < MAX_WAITING_STREAMS:
            waiting = self._waiting_tags.get(name, (set(), 0))[0]
            self._waiting_tags[name] = (set(sorted(waiting | tags)[:MAX_TAGS]), self._last_tick + TAG_WAIT_SECONDS)

    def untag_stream(self, name: str, tags: set[str]) -> None:
        """Take tags from a stream."""
        totals = self.streams.get(name)
        if totals is not None:
            totals.tags -= tags
            totals.untagged = set(sorted(totals.untagged | tags)[:MAX_TAGS])
        elif name in self._waiting_tags:
            self._waiting_tags[name][0].difference_update(tags)

    def tag_session(self, key: tuple[str, str, str, str], tag: str) -> None:
        """Give a tag to the session of a connection, which may appear in a moment. key: stream, connector, host, token."""
        stream, connector, host, token = key
        kind = self.modes.kind_of(connector)
        text = sys.intern(clean_tag(tag))  # thousands of sessions have the same
        if kind is None or not text:
            return
        session_id = identify(kind, self.modes, stream, host, token, connector)
        if (session := self.live.get(session_id)) is not None:
            session.tag({text})
        elif len(self._waiting_session_tags) < MAX_WAITING_SESSIONS:
            self._waiting_session_tags[session_id] = text, self._last_tick + SESSION_WAIT_SECONDS

    def _forget_waiting_tags(self, now: int) -> None:
        if self._waiting_session_tags:
            waiting = self._waiting_session_tags.items()
            self._waiting_session_tags = {name: entry for name, entry in waiting if entry[1] > now}
        if self._waiting_tags:
            self._waiting_tags = {name: entry for name, entry in self._waiting_tags.items() if entry[1] > now}

    def stop(self, sessions: Iterable[Session]) -> list[int]:
        """Let sessions end as soon as they have no connection; returns the identifiers of the records of those they have."""
        wanted = {id(session) for session in sessions}
        for session in sessions:
            session.linger_s = 0
        return [
            number for number, one in self._connections.items() if one.session is not None and id(one.session) in wanted
        ]

    def _read(self, snapshots: list[ConnectionSnapshot], now: int) -> None:
        """Add what connections did since the last second, and mark the sessions that have an active one."""
        done = count_connections(self._connections, snapshots, self._ticks, now, self._attach)
        self.up += done[0]
        self.down += done[1]
        self.other_up += done[2]
        self.other_down += done[3]
        self.packets += done[4]
        self.lost += done[5]
        self.resent += done[6]

    def _attach(self, connection: Connection, key: tuple[str, str, str, str], now: int, started: int = 0) -> None:
        """Put a connection into the session that its names belong to, out of the one it was in.

        started: when a new connection began, unix seconds; one that only changes its names begins now.
        """
        self._detach(connection)
        connection.key = key
        stream, connector, host, token = key
        kind = self.modes.kind_of(connector) if stream and connector else None
        if kind is None:
            return
        session_id = identify(kind, self.modes, stream, host, token, connector)
        totals = self.streams.get(stream)
        if totals is None:
            totals = self.streams[stream] = StreamTotals()
            totals.tags |= self._waiting_tags.pop(stream, (set(), 0))[0]
        series = totals.series.get(connector)
        if series is None:
            series = totals.series[connector] = Series(now)
        session = self.live.get(session_id)
        if session is None:
            began = started if 0 < started <= now else now
            counted = not self._is_excepted(host)
            session = Session(session_id, kind, token, stream, connector, began, now, counted=counted, totals=totals)
            self.live[session_id] = session
            if waiting := self._waiting_session_tags.pop(session_id, None):
                session.tag({waiting[0]})
            self.total[kind] += 1
            totals.total[kind] += 1
            totals.now[kind] += 1
            series.now[kind] += 1
            totals.sessions += 1
            if kind is Kind.VIEWER and session.counted:
                totals.viewseconds += session.connected_s
                self.viewseconds += session.connected_s
        session.attach(stream, host, connector)
        connection.session, connection.totals, connection.series = session, totals, series

    def _detach(self, connection: Connection) -> None:
        if connection.session is not None and connection.key is not None:
            stream, connector, host, _ = connection.key
            connection.session.detach(stream, host, connector)
        connection.session = connection.totals = connection.series = None

    def _forget_connections(self) -> None:
        """Drop connections whose record is gone."""
        for number in gone_connections(self._connections, self._ticks):
            self._detach(self._connections.pop(number))

    def _age_sessions(self, now: int, elapsed: int) -> None:
        ending, watched = age_sessions(self.live, self._ticks, now, elapsed)
        self.viewseconds += watched
        for session in ending:
            self._end(session, now)

    def _end(self, session: Session, now: int) -> None:
        del self.live[session.id]
        session.end(now)
        self.ended.append(session)
        totals = self.streams.get(session.home)
        if totals is not None:
            totals.now[session.kind] -= 1
            totals.series[session.connector].now[session.kind] -= 1
        self._write_access_log(session)
        self.on_end(session)
        if totals is not None and not any(totals.now):
            self.on_stream_end(session.home, totals)

    def _purge(self, now: int) -> None:
        """Forget sessions that ended too long ago, and streams that no session refers to any more."""
        ended = self.ended
        while ended and (now - ended[0].ended > HISTORY_SECONDS or len(ended) > MAX_ENDED_SESSIONS):
            session = ended.popleft()
            totals = self.streams.get(session.home)
            if totals is not None:
                totals.sessions -= 1
                if totals.sessions <= 0:
                    del self.streams[session.home]

    def _is_excepted(self, host: str) -> bool:
        packed = packed_address(host)
        if not any(packed):
            return False
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(packed)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == network.version and address in network for network in self._exceptions)

    # -- access log ----------------------------------------------------------------------------------------------------

    def _write_access_log(self, session: Session) -> None:
        if not self.access_log:
            return
        seconds = session.connected_s
        up, down = (value // max(seconds, 1) // 1024 for value in (session.up, session.down))
        host = shown_address(session.host)
        tags = session.tag_text
        if self.access_log == "LOG":
            text = (
                f"Session {session.id} {session.stream} ({session.protocol}) from {host} ended after {seconds}s, "
                f"avg {up}KB/s up {down}KB/s down." + (f" Tags: {tags}" if tags else "")
            )
            self.log.info("%s", text, extra={"kind": "ACCS", "stream": session.stream})
            return
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.ended))
        row = (when, session.id, session.stream, session.protocol, host, seconds, up, down, tags)
        self._access_lines.append(", ".join(str(part) for part in row) + "\n")

    def _flush_access_log(self) -> None:
        """Append what ended in this second to the access log's file, opened anew so that it may be moved away."""
        if not self._access_lines:
            return
        lines, self._access_lines = self._access_lines, []
        try:
            with open(self.access_log, "a", encoding="utf-8", errors="replace") as file:
                file.writelines(lines)
        except OSError as error:
            self.log.error("The access log %s cannot be written: %s", self.access_log, error.strerror)


def _networks(texts: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks among some texts; host names are not looked up."""
    result = []
    for text in texts:
        try:
            result.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return result
