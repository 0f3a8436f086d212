"""Cost of many active streams without viewers, 10 kbit/s each: descriptors, memory and CPU a stream at several counts."""

from __future__ import annotations

import argparse
import selectors
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import Server, report, server, spent
from bench.rtmp import publishing_session

AUDIO = 8
SEQUENCE_HEADER = bytes([0xAF, 0, 0x12, 0x10])
PACKET_BYTES = 123  # with 10 a second: 10 kbit/s
INTERVAL_S = 0.1
STARTS_BETWEEN = 20  # streams that start before those that run get their next packets


class Publishers:
    """Many publishers of a thin audio stream on one thread."""

    def __init__(self, running: Server) -> None:
        self.running = running
        self.selector = selectors.DefaultSelector()
        self.sessions: list[tuple[object, object]] = []
        self.began = time.monotonic()

    def grow(self, count: int) -> float:
        """Start streams until there are `count`, while those that run go on; returns milliseconds a start."""
        first = len(self.sessions)
        starting = 0.0
        for number in range(first, count):
            began = time.monotonic()
            sock, session = publishing_session(self.running.rtmp, f"s{number}")
            session.send_media(AUDIO, 0, SEQUENCE_HEADER)
            sock.sendall(session.take_output())
            self.sessions.append((sock, session))
            starting += time.monotonic() - began
            if number % STARTS_BETWEEN == 0:
                self.send()
        return starting / (count - first) * 1000

    def run(self, seconds: float) -> None:
        """Send to all, ten times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            tick = time.monotonic()
            self.send()
            time.sleep(max(0.0, INTERVAL_S - (time.monotonic() - tick)))

    def send(self) -> None:
        """Send one packet to each stream."""
        time_ms = int((time.monotonic() - self.began) * 1000)
        for sock, session in self.sessions:
            session.send_media(AUDIO, time_ms, b"\xaf\x01" + bytes(PACKET_BYTES))  # type: ignore[attr-defined]
            sock.sendall(session.take_output())  # type: ignore[attr-defined]


def descriptors(running: Server) -> int:
    """Return the open descriptors of all processes."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in running.pids())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--seconds", type=int, default=6)
    options = parser.parse_args()
    rows = []
    with server([f"s{number}" for number in range(max(options.counts))]) as running:
        time.sleep(1)
        base_kb, base_fds = running.pss_kb(), descriptors(running)
        publishers = Publishers(running)
        for count in options.counts:
            start_ms = publishers.grow(count)
            publishers.run(2)
            before, began = running.cpu_s(), time.monotonic()
            publishers.run(options.seconds)
            rows.append(
                {
                    "streams": count,
                    "start_ms": round(start_ms, 1),
                    "cpu_us_a_second_each": round(
                        spent(before, running.cpu_s()) / (time.monotonic() - began) / count * 1e6
                    ),
                    "pss_kb_each": round((running.pss_kb() - base_kb) / count),
                    "descriptors_each": round((descriptors(running) - base_fds) / count, 1),
                }
            )
    report(rows=rows)


if __name__ == "__main__":
    main()
