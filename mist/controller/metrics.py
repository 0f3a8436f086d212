"""The server's figures at the passphrase path: as Prometheus scrapes them, and as JSON for load balancers.

Specification: Prometheus text exposition format 0.0.4. Names and labels are those that dashboards of compatible servers use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mist.controller.schema import DEFAULT_BANDWIDTH_LIMIT
from mist.controller.state import Controller
from mist.controller.statistics import Statistics, StreamTotals
from mist.stream.session_identity import Kind
from mist.stream.state import StreamStatus

TEXT_TYPE = "text/plain; version=0.0.4"
JSON_TYPE = "text/json"
REPLICATED = "replicated"
PACKETS = ("sent", "lost", "retrans")
# How sessions of each kind are called, in the order in which the samples stand.
WORDS = {Kind.VIEWER: "viewers", Kind.INPUT: "incoming", Kind.OUTPUT: "outgoing", Kind.UNSPECIFIED: "unspecified"}
DEFAULT_PORTS = {"http": 80, "https": 443, "rtmp": 1935, "dtsc": 4200}

Sample = tuple[Mapping[str, str], int]


class Metric(NamedTuple):
    """One metric with its samples. kind: its type, "" for one without a type line."""

    name: str
    kind: str
    text: str
    samples: list[Sample]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _lines(metric: Metric) -> Iterator[str]:
    if not metric.samples:
        return
    yield f"# HELP {metric.name} {metric.text}"
    if metric.kind:
        yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in metric.samples:
        shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{metric.name}{{{shown}}} {value}" if shown else f"{metric.name} {value}"


def _one(value: int) -> list[Sample]:
    return [({}, value)]


def _pair(up: int, down: int) -> list[Sample]:
    return [({"direction": "up"}, up), ({"direction": "down"}, down)]


def _kinds(counts: list[int]) -> list[Sample]:
    return [({"sessType": word}, counts[kind]) for kind, word in WORDS.items()]


def _packets(counters: Statistics | StreamTotals) -> list[int]:
    return [counters.packets, counters.lost, counters.resent]


def _current(statistics: Statistics) -> list[int]:
    counts = Counter(session.kind for session in statistics.live.values())
    return [counts[kind] for kind in Kind]


def _limit(controller: Controller) -> int:
    """Return the bytes a second that the server should be loaded with."""
    limit = controller.store.config.model.bandwidth.limit
    return DEFAULT_BANDWIDTH_LIMIT if limit is None else limit


def _viewers_by_connector(statistics: Statistics) -> Counter[str]:
    found = Counter(session.protocol for session in statistics.live.values() if session.kind is Kind.VIEWER)
    return Counter(dict(sorted(found.items())))


def text(controller: Controller, triggers: Mapping[str, Mapping[str, int]]) -> str:
    """Return all metrics as Prometheus reads them. triggers: count, ms and fails by name."""
    return "\n".join(line for metric in _metrics(controller, triggers) for line in _lines(metric)) + "\n"


def _metrics(controller: Controller, triggers: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    statistics, load = controller.statistics, controller.load
    sizes = load.sizes()
    now, outputs = _current(statistics), _viewers_by_connector(statistics)
    cached = len(statistics.live) + len(statistics.ended)
    limit = _limit(controller)
    packets = zip(PACKETS, _packets(statistics), strict=True)
    yield Metric("mist_logs", "counter", "Log lines since the start.", _one(controller.log_ring.total))
    yield Metric("mist_cpu", "gauge", "Processor use in tenths of a percent.", _one(load.cpu_permille))
    yield Metric("mist_mem_total", "gauge", "Memory in KiB.", _one(sizes["mem_total"]))
    yield Metric("mist_mem_used", "gauge", "Memory in use, in KiB.", _one(sizes["mem_used"]))
    yield Metric("mist_shm_total", "gauge", "Shared memory in KiB.", _one(sizes["shm_total"]))
    yield Metric("mist_shm_used", "gauge", "Shared memory in use, in KiB.", _one(sizes["shm_used"]))
    yield Metric("mist_viewseconds_total", "counter", "Seconds watched since the start.", _one(statistics.viewseconds))
    yield Metric("mist_sessions_count", "counter", "Sessions since the start.", _kinds(statistics.total))
    yield Metric("stat_bw_total", "", "Bytes on all network interfaces but the loopback.", _pair(*load.interfaces()))
    yield Metric("mist_bw_total", "counter", "Bytes of sessions.", _pair(statistics.up, statistics.down))
    yield Metric("mist_bw_other", "", "Bytes of excepted addresses.", _pair(statistics.other_up, statistics.other_down))
    yield Metric("mist_bw_limit", "", "Configured limit in bytes a second.", _one(limit))
    yield Metric("mist_packets_total", "counter", "Packets.", [({"pkttype": word}, count) for word, count in packets])
    viewing: list[Sample] = [({"output": name}, count) for name, count in outputs.items()]
    yield Metric("mist_outputs", "gauge", "Viewers of each output now.", viewing)
    sessions = [*_kinds(now), ({"sessType": "cached"}, cached)]
    yield Metric("mist_sessions_total", "gauge", "Sessions now, and those that are remembered.", sessions)
    yield from _stream_metrics(sorted(statistics.streams.items()))
    for suffix, key, what in (
        ("count", "count", "Calls of handlers"),
        ("time", "ms", "Milliseconds of calls"),
        ("fails", "fails", "Failed calls"),
    ):
        calls: list[Sample] = [({"trigger": name}, counts[key]) for name, counts in sorted(triggers.items())]
        yield Metric(f"mist_trigger_{suffix}", "", f"{what} of triggers.", calls)


def _stream_metrics(streams: Iterable[tuple[str, StreamTotals]]) -> Iterator[Metric]:
    sessions: list[Sample] = []
    views: list[Sample] = []
    seconds: list[Sample] = []
    transfer: list[Sample] = []
    packets: list[Sample] = []
    for name, totals in streams:
        of = {"stream": name}
        sessions += [({**of, **labels}, value) for labels, value in _kinds(totals.now)]
        views.append((of, totals.total[Kind.VIEWER]))
        seconds.append((of, totals.viewseconds))
        transfer += [({**of, **labels}, value) for labels, value in _pair(totals.up, totals.down)]
        packets += [
            ({**of, "pkttype": word}, value) for word, value in zip(PACKETS, _packets(totals), strict=True)
        ]  # fmt: skip
    yield Metric("mist_sessions", "", "Sessions of each stream now.", sessions)
    yield Metric("mist_viewcount", "counter", "Viewers since the stream began.", views)
    yield Metric("mist_viewseconds", "counter", "Seconds watched since the stream began.", seconds)
    yield Metric("mist_bw", "counter", "Bytes since the stream began.", transfer)
    yield Metric("mist_packets", "counter", "Packets since the stream began.", packets)


# -- JSON --------------------------------------------------------------------------------------------------------------


def document(controller: Controller, triggers: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return all figures as one object. triggers: count, ms and fails by name."""
    statistics, load = controller.statistics, controller.load
    server = controller.store.config.server()
    tags = controller.store.config.model.tags
    found: dict[str, Any] = {
        "cpu": load.cpu_permille,
        **load.sizes(),
        "logs": controller.log_ring.total,
        "curr": [*_current(statistics), len(statistics.live) + len(statistics.ended)],
        "tot": list(statistics.total),
        "st": list(load.interfaces()),
        "bw": [statistics.up, statistics.down],
        "obw": [statistics.other_up, statistics.other_down],
        "pkts": _packets(statistics),
        "bwlimit": _limit(controller),
        "streams": {name: _stream(controller, name, totals) for name, totals in sorted(statistics.streams.items())},
        "output_counts": dict(_viewers_by_connector(statistics)),
        "conf_streams": sorted(controller.watch.configured),
        "outputs": _outputs(controller, server.get("protocols") or ()),
    }
    if triggers:
        found["triggers"] = dict(triggers)
    place = server.get("location") or {}
    if place:
        found["loc"] = {key: place.get(key) for key in ("lat", "lon", "name") if place.get(key) is not None}
    if tags:
        found["tags"] = list(tags)
    return found


def _stream(controller: Controller, name: str, totals: StreamTotals) -> dict[str, Any]:
    ready = controller.watch.status(name) == StreamStatus.READY
    inputs = totals.total[Kind.INPUT] if ready else 0
    found: dict[str, Any] = {
        "tot": [totals.total[Kind.VIEWER], inputs, totals.total[Kind.OUTPUT]],
        "bw": [totals.up, totals.down],
        "curr": list(totals.now),
        "pkts": _packets(totals),
    }
    if REPLICATED in controller.reports.tags(name):
        found["rep"] = True
    return found


def _outputs(controller: Controller, entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the URL of each output that runs, with HOST for the server's name and $ for the stream's."""
    from mist.controller.protocols import online

    connectors = controller.services.capabilities.get("connectors") or {}
    states = controller.services.listener_states()
    found: dict[str, str] = {}
    for entry in entries:
        name = str(entry.get("connector") or "")
        about = connectors.get(name) or {}
        if online(entry, connectors, states) != 1:
            continue
        scheme = name.lower() if not about.get("provides") else "https" if entry.get("cert") else "http"
        base = _base(entry, about, scheme)
        if about.get("url_rel") and not about.get("provides"):
            found[name] = base + about["url_rel"]
        if not about.get("provides"):
            continue
        for other, document in connectors.items():
            if document.get("deps") == about["provides"] and document.get("url_rel"):
                found[other] = base + document["url_rel"]
    return found


def _base(entry: Mapping[str, Any], about: Mapping[str, Any], scheme: str) -> str:
    """Return the beginning of an entry's URLs: its public address, or the port that it listens on."""
    public = entry.get("pubaddr")
    first = public[0] if isinstance(public, list) and public else public
    if isinstance(first, str) and first:
        return (first if "://" in first else f"{scheme}://{first}").rstrip("/")
    known = ((about.get("optional") or {}).get("port") or {}).get("default")
    port = entry.get("port") or known or DEFAULT_PORTS.get(scheme)
    return f"{scheme}://HOST" if port == DEFAULT_PORTS.get(scheme) else f"{scheme}://HOST:{port}"
