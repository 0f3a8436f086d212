"""What `mist status` shows: listeners, streams, connections and processes of a running server."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from mist.errors import NotFound
from mist.runtime.instance import Instance
from mist.runtime.leftovers import all_records, open_records
from mist.runtime.process import descendants
from mist.stream.publisher import memory_used
from mist.stream.reader import StreamReader, list_streams
from mist.stream.state import TrackState


def collect(instance: Instance, status: dict[str, Any]) -> dict[str, Any]:
    """Return the whole report as JSON-able values. status: the spawner's answer."""
    connections = _connections(instance)
    used, bound = memory_used(instance.name)
    return {
        "instance": instance.name,
        "version": status["version"],
        "build": status["build"],
        "upgrade_failure": status["upgrade_failure"],
        "bad_file": status["bad_file"],
        "pid": status["pid"],
        "uptime_s": round(time.time() - status["started"]),
        "memory": {"streams_bytes": used, "bound_bytes": bound},
        "listeners": [{**one["entry"], "port": one["port"], "state": one["state"]} for one in status["listeners"]],
        "api_port": status["controller"]["port"],
        "streams": [_stream(instance, name, connections) for name in list_streams(instance.name)],
        "processes": [_process(pid) for pid in [status["pid"], *descendants(status["pid"])] if _process(pid)],
    }


def _connections(instance: Instance) -> list[tuple[str, str]]:
    """Return (stream, connector) of all active connections."""
    found: list[tuple[str, str]] = []
    for name, _ in all_records(instance).values():
        records = open_records(name)
        if records is not None:
            found.extend((row[4], row[3]) for row in records.snapshot() if row[15])
    return found


def _stream(instance: Instance, name: str, connections: list[tuple[str, str]]) -> dict[str, Any]:
    try:
        reader = StreamReader(instance.name, name)
        tracks = reader.tracks()
    except NotFound:
        return {"name": name, "state": "OFF", "tracks": [], "connections": {}}
    return {
        "name": name,
        "state": reader.status().name,
        "tracks": [_track(track) for track in tracks],
        "buffer_s": round(max((track.last_us - track.first_us for track in tracks), default=0) / 1e6, 1),
        "connections": dict(Counter(connector for stream, connector in connections if stream == name)),
    }


def _track(track: TrackState) -> str:
    info = track.info
    rate = track.bytes_per_second * 8 // 1000
    if info.type == "video":
        frames = (track.measured_frame_rate_mhz or info.frame_rate_mhz) / 1000
        return f"{info.codec} {info.width}x{info.height} {frames:.3g} fps {rate} kbit/s"
    return f"{info.codec} {info.sample_rate_hz} Hz {info.channels} ch {rate} kbit/s"


def _process(pid: int) -> dict[str, Any]:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pss = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return {"pid": pid, "title": title, "pss_kb": pss}


def show(report: dict[str, Any]) -> str:
    """Return the report as text for people."""
    lines = [
        f"mist {report['version']}, instance {report['instance']}, process {report['pid']}, up {duration(report['uptime_s'])}",
        f"memory of streams: {report['memory']['streams_bytes'] / 1e6:.1f} MB",
        *([f"the last upgrade failed: {report['upgrade_failure']}"] if report["upgrade_failure"] else []),
        *([f"the configuration that ran last is used, because: {line}" for line in report["bad_file"].splitlines()]),
        "",
        "LISTENERS",
    ]
    for listener in report["listeners"]:
        state = "running" if listener["state"] == 1 else listener["state"]
        lines.append(f"  {listener['connector']:8} port {listener['port']:<8} {state}")
    lines.append(f"  {'API':8} port {report['api_port']:<8}")
    lines += ["", "STREAMS" if report["streams"] else "STREAMS  none is running"]
    for stream in report["streams"]:
        watched = ", ".join(f"{count} {name}" for name, count in sorted(stream["connections"].items())) or "nobody"
        lines.append(f"  {stream['name']:24} {stream['state']:8} {stream.get('buffer_s', 0):5} s buffered   {watched}")
        lines.extend(f"      {track}" for track in stream["tracks"])
    total = sum(process["pss_kb"] for process in report["processes"])
    lines += ["", f"PROCESSES  {len(report['processes'])}, {total / 1024:.1f} MB"]
    lines.extend(
        f"  {one['pid']:>8} {one['pss_kb'] / 1024:7.1f} MB  {one['title'][:80]}" for one in report["processes"]
    )
    return "\n".join(lines)


def duration(seconds: int) -> str:
    """Return a time span as people say it."""
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{days} d"] if days else []
    if hours or days:
        parts.append(f"{hours} h")
    if minutes or hours or days:
        parts.append(f"{minutes} min")
    return " ".join([*parts, f"{rest} s"]) if not days else " ".join(parts)
