"""What sessions cost the controller: processor time of one second's statistics, through real connection records.

python -m bench.bench_sessions [SESSIONS [STREAMS [SECONDS]]]

Each table of records belongs to a process of its own, as those of workers do. SECONDS are simulated, so that histories fill.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from collections.abc import Callable

from mist.controller.memory import Memory
from mist.controller.statistics import KEPT, LAYOUT, Statistics
from mist.core.checkpoint import create_checkpoints, open_checkpoints
from mist.runtime.process import fork

RECORDS = 4000  # of each table


def worker(name: str, first: int, count: int, streams: int, asked: int, done: int) -> None:
    """Be a worker: let all viewers receive bytes whenever a byte is read."""
    table = create_checkpoints(name, RECORDS)
    records = []
    for number in range(first, first + count):
        record = table.claim("HLS", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        record.set_stream(f"stream{number % streams}")
        record.set_token(str(number))
        records.append(record)
    while True:
        os.write(done, b".")
        if not os.read(asked, 1):
            os._exit(0)
        for record in records:
            record.add_bytes(1000, 10)


def start_worker(name: str, first: int, count: int, streams: int) -> Callable[[], None]:
    """Return what lets the worker's viewers receive bytes."""
    asked, ask = os.pipe()
    told, done = os.pipe()
    if os.fork() == 0:
        os.close(ask)
        worker(name, first, count, streams, asked, done)
    os.read(told, 1)

    def receive() -> None:
        os.write(ask, b".")
        os.read(told, 1)

    return receive


forked: list[int] = []


def beside(work: Callable[[], bytes], done: Callable[[bytes | None, float], None]) -> Callable[[], None]:
    """Do something in a forked process, as the controller has it done."""

    def role() -> int:
        os.nice(10)
        work()
        return 0

    forked.append(fork(role, keep=()))
    return lambda: None


def main() -> None:
    """Let all sessions receive bytes each second, and measure reading, counting and keeping."""
    count, streams, rounds = (int(text) for text in (*sys.argv[1:], *("20000", "1000", "20")[len(sys.argv) - 1 :]))
    names = [f"mist.bench{os.getpid()}.{place}" for place in range(-(-count // RECORDS))]
    kept: list[bytes] = []
    try:
        receivers = [
            start_worker(name, place * RECORDS, min(RECORDS, count - place * RECORDS), streams)
            for place, name in enumerate(names)
        ]
        tables = [open_checkpoints(name) for name in names]
        statistics = Statistics(logging.getLogger("bench"))
        memory = Memory(lambda: b"", kept.append, beside, logging.getLogger("bench"))
        memory.keep("statistics", statistics, KEPT, LAYOUT)
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        now = int(time.time())
        reading = counting = keeping = 0.0
        for turn in range(rounds + 1):
            for receive in receivers:
                receive()
            begun = time.process_time()
            snapshots = [one for table in tables for one in table.look(2**62)]
            read = time.process_time()
            statistics.tick(snapshots, now + turn)
            if turn:  # the first makes the sessions
                reading += read - begun
                counting += time.process_time() - read
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began
        begun = time.perf_counter()
        memory.write(0.0, much=True)
        stopped = time.perf_counter() - begun
        begun = time.perf_counter()
        for receive in receivers:
            receive()
        snapshots = [one for table in tables for one in table.look(2**62)]
        statistics.tick(snapshots, now + rounds + 1)
        beside_ms = (time.perf_counter() - begun) * 1000
        _, _, used = os.wait4(forked[0], 0)
        keeping = used.ru_utime + used.ru_stime
        memory.write(0.0, at_once=True)
    finally:
        for name in names:
            os.unlink(f"/dev/shm/{name}")
    both = reading + counting
    for what, seconds in (("reading", reading), ("counting", counting), ("both", both)):
        sys.stdout.write(f"{len(statistics.live)} sessions, {what}: {seconds / rounds * 100:.1f} % of a core\n")
    sys.stdout.write(
        f"memory: {grown / 1024:.0f} MiB; state: {len(kept[-1]) >> 20} MiB, written beside in {keeping * 1000:.0f} ms of a core; "
        f"the controller stood still for {stopped * 1000:.1f} ms, and the second meanwhile took {beside_ms:.0f} ms\n"
    )


if __name__ == "__main__":
    main()
