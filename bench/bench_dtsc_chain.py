"""Delay of each hop of a chain origin -> edge -> edge, which pull from each other by DTSC.

One process publishes to the origin and plays all servers, by DTSC and on one thread, so that all ends read the same clock. A hop's
delay is the time between the last byte of a frame from one server and the last byte of the same frame from the next.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import live_file, report, server, spent
from bench.publisher import endless
from bench.rtmp import publishing_session
from mist.core.demuxer import PacketList
from mist.formats.dtsc_session import ReceivingSession

VIDEO = 9
WARM_UP_MS = 6000


class Probe:
    """Notes when each picture of a stream is complete."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.session = ReceivingSession.play("live", "bench", {"audio": "none", "waittrackcount": "1"})
        self.sock.sendall(self.session.take_output())
        self.packets = PacketList()
        self.session.demuxer.attach(self.packets)

    def read(self) -> list[int]:
        """Return the times, ms, of the pictures that are complete now."""
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError("a server closed the connection")
        self.session.feed(data, time.monotonic())
        return [packet.dts_us // 1000 for packet in self.packets.take()]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        chain = [stack.enter_context(server())]
        for _ in range(options.edges):
            chain.append(stack.enter_context(server((), sources={"live": f"dtsc://127.0.0.1:{chain[-1].dtsc}/live"})))
        sock, session = publishing_session(chain[0].rtmp, "live")
        began = time.monotonic()
        seen: list[dict[int, float]] = [{} for _ in chain]
        probes: dict[socket.socket, tuple[int, Probe]] = {}
        before: list[dict[int, float]] = []
        for kind, time_ms, body in endless(str(live_file())):
            due = began + time_ms / 1000
            while (left := due - time.monotonic()) > 0:
                for ready in select.select([*probes, sock], [], [], left)[0]:
                    now = time.monotonic()
                    if ready is sock:
                        session.feed(sock.recv(1 << 16), now)
                        continue
                    place, probe = probes[ready]
                    for one in probe.read():
                        seen[place].setdefault(one, now)
            session.send_media(kind, time_ms, body)
            sock.setblocking(True)
            sock.sendall(session.take_output())
            if time_ms > 3000 and not probes:
                for place, running in enumerate(chain):
                    probe = Probe(running.dtsc)
                    probes[probe.sock] = (place, probe)
                began = time.monotonic() - time_ms / 1000
            if time_ms > WARM_UP_MS and not before:
                before = [one.cpu_s() for one in chain]
            if time_ms > WARM_UP_MS + options.seconds * 1000:
                break
        cores = [spent(start, one.cpu_s()) / options.seconds for start, one in zip(before, chain, strict=True)]
    figures: dict[str, float] = {}
    for place in range(1, len(chain)):
        common = sorted(one for one in seen[0] if one > WARM_UP_MS and all(one in times for times in seen))
        delays = [(seen[place][one] - seen[place - 1][one]) * 1000 for one in common]
        figures[f"hop_{place}_median_ms"] = round(statistics.median(delays), 3)
        figures[f"hop_{place}_p99_ms"] = round(percentile(delays, 0.99), 3)
        figures[f"hop_{place}_frames"] = len(delays)
    report(**figures, cores=[round(one, 4) for one in cores])


if __name__ == "__main__":
    main()
