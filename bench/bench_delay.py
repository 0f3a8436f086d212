"""Delay from the last byte of a frame sent in by RTMP to its last byte out by HTTP-FLV and RTMP, with other viewers on.

One process publishes and watches, on one thread, so that both ends read the same clock.
"""

from __future__ import annotations

import argparse
import select
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import live_file, report, run_viewers, server
from bench.publisher import endless
from bench.rtmp import publishing_session, started
from mist.formats.rtmp.messages import Media

VIDEO = 9


class FlvProbe:
    """Notes when each video tag of an HTTP-FLV reply is complete."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(b"GET /live.flv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        self.buffer = b""
        self.in_media = False

    def read(self) -> list[int]:
        """Return the times, ms, of the video tags that are complete now."""
        self.buffer += self.sock.recv(1 << 20)
        if not self.in_media:
            _head, mark, rest = self.buffer.partition(b"\r\n\r\nFLV")
            if not mark or len(rest) < 10:
                return []
            self.buffer, self.in_media = rest[10:], True
        times = []
        while len(self.buffer) >= 15:
            size = int.from_bytes(self.buffer[1:4], "big") + 15
            if len(self.buffer) < size:
                break
            if self.buffer[0] == VIDEO:
                times.append(int.from_bytes(self.buffer[4:7], "big") | self.buffer[7] << 24)
            self.buffer = self.buffer[size:]
        return times


class RtmpProbe:
    """Notes when each video message of an RTMP play connection is complete."""

    def __init__(self, port: int) -> None:
        self.sock, self.session, _ = started(port, "live", publish=False, app="play")

    def read(self) -> list[int]:
        events = self.session.feed(self.sock.recv(1 << 20), time.monotonic())
        output = self.session.take_output()
        if output:
            self.sock.sendall(output)
        return [event.time_ms for event in events if isinstance(event, Media) and event.type_id == VIDEO]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--processes", type=int, help="workers of each listener")
    options = parser.parse_args()
    protocol = {} if options.processes is None else {"processes": options.processes}
    with server(**protocol) as running:
        sock, session = publishing_session(running.rtmp, "live")
        source = endless(str(live_file()))
        began = time.monotonic()
        sent: dict[int, float] = {}
        delays: dict[str, list[float]] = {"flv": [], "rtmp": []}
        probes: dict[socket.socket, tuple[str, FlvProbe | RtmpProbe]] = {}
        others = None
        for kind, time_ms, body in source:
            due = began + time_ms / 1000
            while (left := due - time.monotonic()) > 0:
                for ready in select.select([*probes, sock], [], [], left)[0]:
                    if ready is sock:
                        session.feed(sock.recv(1 << 16), time.monotonic())
                        continue
                    name, probe = probes[ready]
                    times = probe.read()
                    now = time.monotonic()
                    delays[name] += [(now - sent[one]) * 1000 for one in times if one in sent and time_ms > 6000]
            session.send_media(kind, time_ms, body)
            data = session.take_output()
            sock.setblocking(True)
            sock.sendall(data)
            if kind == VIDEO:
                sent[time_ms] = time.monotonic()
            if time_ms > 3000 and not probes:
                others = run_viewers("flv", running, options.viewers, options.seconds + 5)
                for name, probe in (("flv", FlvProbe(running.http)), ("rtmp", RtmpProbe(running.rtmp))):
                    probes[probe.sock] = (name, probe)
                began = time.monotonic() - time_ms / 1000
            if time_ms > 6000 + options.seconds * 1000:
                break
        if others is not None:
            others.terminate()
            others.wait()
        figures = {}
        for name, values in delays.items():
            figures[f"{name}_median_ms"] = round(statistics.median(values), 3)
            figures[f"{name}_p99_ms"] = round(percentile(values, 0.99), 3)
            figures[f"{name}_frames"] = len(values)
        report(viewers=options.viewers, **figures)


if __name__ == "__main__":
    main()
