"""Replies of the statistics calls: clients, totals, active_streams and stats_streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from mist.controller.sessions import RATE_SECONDS, Row, Session, shown_address
from mist.controller.statistics import Series, ServerRow, Statistics
from mist.controller.streams import StreamWatch
from mist.stream.health import health
from mist.stream.names import base_name
from mist.stream.session_counts import COARSE_STEP_SECONDS, FINE_SECONDS, HISTORY_SECONDS
from mist.stream.session_identity import Kind
from mist.stream.state import StreamStatus

CLIENT_FIELDS = (
    "host", "stream", "protocol", "conntime", "position", "down", "up", "downbps", "upbps", "sessid", "pktcount",
    "pktlost", "pktretransmit",
)  # fmt: skip
TOTAL_FIELDS = ("clients", "inputs", "outputs", "downbps", "upbps", "perc_lost", "perc_retrans")
ACTIVE_FIELDS = (
    "status", "viewers", "inputs", "outputs", "tracks", "views", "viewseconds", "upbytes", "downbytes", "packsent",
    "packloss", "packretrans", "firstms", "lastms", "health", "pid", "tags",
)  # fmt: skip
STATUS_WORDS: dict[int, str] = {
    StreamStatus.OFF: "Offline",
    StreamStatus.INIT: "Initializing",
    StreamStatus.BOOT: "Input booting",
    StreamStatus.WAIT: "Waiting for data",
    StreamStatus.READY: "Online",
    StreamStatus.SHUTDOWN: "Shutting down",
}


def resolve_time(value: object, now: int, booted: int, default: int) -> int:
    """Return a time of a request as unix seconds.

    Negative values count back from now, values that are too small to be unix times count from the start of the system.
    """
    time = _integer(value)
    if time == 0:
        return default
    if time < 0:
        return now + time
    return time if time > now - HISTORY_SECONDS else booted + time


def _integer(value: object) -> int:
    """Return a number, or the number that a text begins with, as a 64-bit integer; 0 for anything else."""
    if isinstance(value, str):
        text = value.strip()
        digits = text[1:] if text[:1] in "+-" else text
        length = len(digits) - len(digits.lstrip("0123456789"))
        value = int(text[: length + len(text) - len(digits)]) if 0 < length < 20 else 0
    if isinstance(value, float):
        value = int(value) if abs(value) < 2**63 else 0
    return max(min(value, 2**63 - 1), -(2**63)) if isinstance(value, int) else 0


def words(value: object) -> list[str]:
    """Return the texts in a list or the values of an object; a lone text as a list of one."""
    if isinstance(value, str):
        return [value] if value else []
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [member for member in members if isinstance(member, str) and member]


def _filter(request: dict[str, Any]) -> Callable[[Session], bool]:
    """Return the test for the sessions that a request's `streams` and `protocols` ask for."""
    streams, protocols = frozenset(words(request.get("streams"))), frozenset(words(request.get("protocols")))

    def matches(session: Session) -> bool:
        if streams and session.stream not in streams and base_name(session.stream) not in streams:
            return False
        names = session.protocol.split(",")
        return not protocols or any(name in protocols or name.partition(":")[0] in protocols for name in names)

    return matches


def _chosen(request: dict[str, Any], order: Sequence[str]) -> list[str]:
    wanted = frozenset(words(request.get("fields")))
    return [name for name in order if name in wanted] or list(order)


class Reports:
    """Answers the statistics calls. booted: unix second at which the system started."""

    def __init__(self, statistics: Statistics, watch: StreamWatch, booted: int) -> None:
        self.statistics = statistics
        self.watch = watch
        self.booted = booted

    def _sessions(self) -> Iterator[Session]:
        yield from self.statistics.ended
        yield from self.statistics.live.values()

    # -- clients -------------------------------------------------------------------------------------------------------

    def clients(self, request: dict[str, Any], now: int) -> dict[str, Any]:
        """Return one row for each session that went on at the time asked for, by default now."""
        time = min(resolve_time(request.get("time"), now, self.booted, now), now)
        fields = _chosen(request, CLIENT_FIELDS)
        matches = _filter(request)
        found = [session for session in self._sessions() if session.alive_at(time) and matches(session)]
        rows = []
        for session in sorted(found, key=lambda session: session.id):
            row = session.at(time)
            if row is not None:
                values = self._client(session, row, time)
                rows.append([values[name] for name in fields])
        return {"time": time, "fields": fields, "data": rows or None}

    @staticmethod
    def _client(session: Session, row: Row, time: int) -> dict[str, Any]:
        up, down = session.rates(time)
        return {
            "host": shown_address(session.host),
            "stream": session.stream,
            "protocol": session.protocol,
            "conntime": row.connected_s,
            "position": row.position_ms // 1000,
            "down": row.down,
            "up": row.up,
            "downbps": int(down),
            "upbps": int(up),
            "sessid": session.id,
            "pktcount": session.packets,
            "pktlost": session.lost,
            "pktretransmit": session.resent,
        }

    # -- totals --------------------------------------------------------------------------------------------------------

    def totals(self, request: dict[str, Any], now: int) -> dict[str, Any]:
        """Return the sums over time of all sessions, or of those that the request asks for."""
        start = resolve_time(request.get("start"), now, self.booted, now - HISTORY_SECONDS)
        end = min(resolve_time(request.get("end"), now, self.booted, now), now)
        fields = _chosen(request, TOTAL_FIELDS)
        if words(request.get("streams")) or words(request.get("protocols")):
            points = self._filtered_points(request, start, end)
        else:
            points = self._server_points(start, end)
        if not points:
            return {"fields": fields, "start": None, "end": None, "data": None, "interval": None}
        indexes = [TOTAL_FIELDS.index(name) for name in fields]
        return {
            "fields": fields,
            "start": points[0][0],
            "end": points[-1][0],
            "data": [[values[index] for index in indexes] for _time, values in points],
            "interval": _gaps([time for time, _values in points]) or None,
        }

    def _server_points(self, start: int, end: int) -> list[tuple[int, list[int]]]:
        history = list(self.statistics.history)
        points = []
        for place, row in enumerate(history):
            if start <= row.time <= end:
                before = history[max(place - RATE_SECONDS, 0)]
                points.append((row.time, _server_values(row, before)))
        return points

    def _filtered_points(self, request: dict[str, Any], start: int, end: int) -> list[tuple[int, list[int]]]:
        """Return points of the series that a request asks for: each second at the end, each tenth second before."""
        found = [series for series in self._series(request) if series.started <= end]
        times = [row.time for row in self.statistics.history if start <= row.time <= end]
        if not found or not times:
            return []
        first = min(series.started for series in found)
        fine_from = self.statistics.history[-1].time - FINE_SECONDS + RATE_SECONDS
        chosen = [time for time in times if time >= first and (time >= fine_from or time % COARSE_STEP_SECONDS == 0)]
        return [(time, _summed(found, time)) for time in chosen]

    def _series(self, request: dict[str, Any]) -> Iterator[Series]:
        streams, protocols = frozenset(words(request.get("streams"))), frozenset(words(request.get("protocols")))
        for name, totals in self.statistics.streams.items():
            if not streams or name in streams or base_name(name) in streams:
                for connector, series in totals.series.items():
                    if not protocols or connector in protocols or connector.partition(":")[0] in protocols:
                        yield series

    # -- streams -------------------------------------------------------------------------------------------------------

    def active_streams(self, request: object) -> Any:
        """Return names, or values by stream, of the streams with at least one session that goes on."""
        if isinstance(request, list):
            found = {name: [self._value(name, field) for field in request] for name in self._active()}
            return found or None
        if not isinstance(request, dict):
            return self._active() or None
        fields = words(request.get("fields")) or list(ACTIVE_FIELDS)
        wanted = [*words(request.get("streams")), *words(request.get("stream"))]
        names = [name for name in self._active() if not wanted or _is_wanted(name, wanted)]
        if request.get("longform"):
            return {name: {field: self._value(name, field) for field in fields} for name in names} or None
        data = {name: [self._value(name, field) for field in fields] for name in names}
        return {"fields": fields, "data": data or None}

    def stats_streams(self, request: object) -> Any:
        """Return the streams that sessions of the last ten minutes refer to, with viewers and newest time if asked for."""
        names = sorted(self.statistics.streams)
        if not isinstance(request, list):
            return names or None
        found = {name: [self._cached_value(name, field) for field in request] for name in names}
        return found or None

    def _cached_value(self, name: str, field: object) -> Any:
        if field == "lastms":
            tracks = self.watch.tracks(name)
            return max((track.last_us for track in tracks), default=-1000) // 1000
        if field == "clients":
            return sum(session.home == name and session.kind is Kind.VIEWER for session in self._sessions())
        return None

    def _active(self) -> list[str]:
        return sorted(name for name, totals in self.statistics.streams.items() if any(totals.now))

    def _value(self, name: str, field: object) -> Any:
        """Return one field of active_streams; None for a field that does not exist."""
        reader = _FIELDS.get(field) if isinstance(field, str) else None
        return reader(self, name) if reader is not None else None

    def _counter(self, name: str, attribute: str) -> int:
        value: int = getattr(self.statistics.streams[name], attribute)
        return value

    def _times(self, name: str, *, newest: bool) -> int:
        tracks = self.watch.tracks(name)
        if newest:
            return max((track.last_us for track in tracks), default=0) // 1000
        return min((track.first_us for track in tracks), default=0) // 1000

    def tags(self, name: str) -> list[str]:
        """Return the tags of a stream: those of its configuration, and those given and taken while it is active."""
        totals = self.statistics.streams.get(name)
        configured = self.watch.configured_tags(name)
        return sorted(configured if totals is None else (configured | totals.tags) - totals.untagged)

    def changed_tags(self) -> dict[str, list[str]]:
        """Return the tags of the active streams that were given or lost any."""
        changed = [name for name, totals in self.statistics.streams.items() if totals.tags or totals.untagged]
        return {name: self.tags(name) for name in changed}


_Reader = Callable[[Reports, str], Any]


def _now(kind: Kind) -> _Reader:
    return lambda reports, name: reports.statistics.streams[name].now[kind]


def _counted(attribute: str) -> _Reader:
    return lambda reports, name: reports._counter(name, attribute)


_FIELDS: dict[str, _Reader] = {
    "clients": lambda reports, name: sum(reports.statistics.streams[name].now[:3]),
    "viewers": _now(Kind.VIEWER),
    "inputs": _now(Kind.INPUT),
    "outputs": _now(Kind.OUTPUT),
    "unspecified": _now(Kind.UNSPECIFIED),
    "views": lambda reports, name: reports.statistics.streams[name].total[Kind.VIEWER],
    "viewseconds": _counted("viewseconds"),
    "upbytes": _counted("up"),
    "downbytes": _counted("down"),
    "packsent": _counted("packets"),
    "packloss": _counted("lost"),
    "packretrans": _counted("resent"),
    "tracks": lambda reports, name: len(reports.watch.tracks(name)),
    "firstms": lambda reports, name: reports._times(name, newest=False),
    "lastms": lambda reports, name: reports._times(name, newest=True),
    "zerounix": lambda reports, name: reports.watch.zero_unix(name),
    "health": lambda reports, name: health(reports.watch.reader(name)),
    "sourcepids": lambda reports, name: reports.watch.pids(name) or None,
    "pid": lambda reports, name: reports.watch.pids(name) or None,
    "status": lambda reports, name: STATUS_WORDS.get(reports.watch.status(name), "Invalid / Unknown"),
    "tags": lambda reports, name: reports.tags(name) or None,
}


def _is_wanted(name: str, wanted: list[str]) -> bool:
    return any(name == one or (one.endswith("+") and name.startswith(one)) for one in wanted)


def _percent(part: int, whole: int) -> int:
    return part * 100 // whole if whole else 0


def _server_values(row: ServerRow, before: ServerRow) -> list[int]:
    seconds = max(row.time - before.time, 1)
    up, down = (row.up - before.up) // seconds, (row.down - before.down) // seconds
    losses = [_percent(row.lost, row.packets), _percent(row.resent, row.packets)]
    return [row.viewers, row.inputs, row.outputs, down, up, *losses]


def _summed(found: list[Series], time: int) -> list[int]:
    """Return the sums of some series at one time, as `totals` shows them."""
    counts, packets, lost, resent, up, down = [0, 0, 0], 0, 0, 0, 0.0, 0.0
    for series in found:
        row, before = series.at(time), series.at(time - RATE_SECONDS)
        seconds = max(row.time - before.time, 1)
        counts = [one + more for one, more in zip(counts, row[1:4], strict=True)]
        packets, lost, resent = packets + row.packets, lost + row.lost, resent + row.resent
        up, down = up + (row.up - before.up) / seconds, down + (row.down - before.down) / seconds
    return [*counts, int(down), int(up), _percent(lost, packets), _percent(resent, packets)]


def _gaps(times: list[int]) -> list[list[int]]:
    """Return the gaps between times as [how many, seconds] pairs."""
    gaps: list[list[int]] = []
    for first, second in pairwise(times):
        if gaps and gaps[-1][1] == second - first:
            gaps[-1][0] += 1
        else:
            gaps.append([1, second - first])
    return gaps
