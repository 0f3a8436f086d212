"""CPU of serving live viewers, against a bare C loop that sends the same packets; and memory a viewer.

The yardstick and the server run one after the other, several rounds, on one machine; each ratio is of one round, and the median is
reported. `server_cores` counts every process of the server, publisher's input included, less what it costs without viewers.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import (
    CACHE,
    Server,
    compiled,
    free_port,
    live_file,
    publisher,
    report,
    result,
    run_viewers,
    server,
    spent,
    wait_for,
)
from bench.publisher import tags

PACKETS = CACHE / "packets.txt"
TAG_OVERHEAD_BYTES = 15  # what FLV adds to a body


def write_packets() -> Path:
    """Write due times and sizes of the live file's packets for the yardstick."""
    media = [tag for tag in tags(str(live_file())) if tag[0] in (8, 9)]
    PACKETS.write_text("".join(f"{time_ms * 1000} {len(body) + TAG_OVERHEAD_BYTES}\n" for _, time_ms, body in media))
    return PACKETS


def yardstick(viewers: int, seconds: int, merge_ms: int) -> float:
    """Return the cores that the bare loop needs."""
    port = free_port()
    loop = subprocess.Popen(
        [compiled("send_loop"), str(port), str(viewers), str(seconds), str(merge_ms), str(write_packets())],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert loop.stdout is not None
    loop.stdout.readline()
    sink = subprocess.Popen(
        [compiled("viewers"), str(port), str(viewers), str(seconds + 1), "0", "/dev/null", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    cores = float(result(loop)["cores"])
    sink.terminate()
    sink.communicate()
    return cores


def serve(running: Server, kind: str, viewers: int, seconds: int) -> tuple[float, float]:
    """Return (cores above idle, kB of memory a viewer above idle)."""
    idle_kb = running.pss_kb()
    before, began = running.cpu_s(), time.monotonic()
    time.sleep(2)
    idle = spent(before, running.cpu_s()) / (time.monotonic() - began)
    watching = run_viewers(kind, running, viewers, seconds + 4)
    time.sleep(2)
    before, began = running.cpu_s(), time.monotonic()
    time.sleep(seconds)
    cores = spent(before, running.cpu_s()) / (time.monotonic() - began)
    memory_kb = (running.pss_kb() - idle_kb) / viewers
    outcome = result(watching)
    if outcome["closed"] or outcome["answered"] < viewers:
        raise RuntimeError(f"not every viewer was served: {outcome}\n{running.log()}")
    wait_for(lambda: True)
    time.sleep(1)
    return cores - idle, memory_kb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("flv", "ts", "rtmp"), default="flv")
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--merge-ms", type=int, default=0)
    parser.add_argument("--processes", type=int, help="workers of the listener (0: a process for each viewer)")
    options = parser.parse_args()
    protocol: dict[str, Any] = {"merge_ms": str(options.merge_ms)}
    if options.processes is not None:
        protocol["processes"] = options.processes
    rounds = []
    with server(**protocol) as running, publisher(running):
        for _ in range(options.rounds):
            bare = yardstick(options.viewers, options.seconds, options.merge_ms)
            cores, memory_kb = serve(running, options.kind, options.viewers, options.seconds)
            rounds.append((cores / bare, bare, cores, memory_kb))
    report(
        kind=options.kind,
        viewers=options.viewers,
        merge_ms=options.merge_ms,
        processes=options.processes,
        ratio=round(statistics.median(one[0] for one in rounds), 2),
        ratios=[round(one[0], 2) for one in rounds],
        yardstick_cores=round(statistics.median(one[1] for one in rounds), 3),
        server_cores=round(statistics.median(one[2] for one in rounds), 3),
        pss_kb_a_viewer=round(statistics.median(one[3] for one in rounds), 1),
    )


if __name__ == "__main__":
    main()
