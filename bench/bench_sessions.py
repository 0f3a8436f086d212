"""What sessions cost the controller: processor time of one second's statistics, through real connection records.

python -m bench.bench_sessions [SESSIONS]
"""

from __future__ import annotations

import logging
import os
import sys
import time

from mist.controller.statistics import Statistics
from mist.core.checkpoint import CheckpointTable, Record, create_checkpoints
from mist.runtime.control import connection_snapshots
from mist.stream.state import ConnectionSnapshot

ROUNDS = 20
RECORDS = 4000  # of each table


def main() -> None:
    """Let all sessions receive bytes each second, and measure reading and counting."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    tables: list[CheckpointTable] = []
    records: list[Record] = []
    for number in range(count):
        if number % RECORDS == 0:
            tables.append(create_checkpoints(f"mist.bench{os.getpid()}.{len(tables)}", RECORDS))
        record = tables[-1].claim("HLS", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        record.set_stream(f"stream{number % 100}")
        record.set_token(str(number))
        records.append(record)
    statistics = Statistics(logging.getLogger("bench"))
    now = int(time.time())
    reading = counting = 0.0
    try:
        for turn in range(ROUNDS + 1):
            for record in records:
                record.add_bytes(1000, 10)
            begun = time.process_time()
            snapshots = [one for place, table in enumerate(tables) for one in told_apart(table, place)]
            read = time.process_time()
            statistics.tick(snapshots, now + turn)
            if turn:  # the first makes the sessions
                reading += read - begun
                counting += time.process_time() - read
    finally:
        for place in range(len(tables)):
            os.unlink(f"/dev/shm/mist.bench{os.getpid()}.{place}")
    for what, seconds in (("reading", reading), ("counting", counting), ("both", reading + counting)):
        sys.stdout.write(f"{len(statistics.live)} sessions, {what}: {seconds / ROUNDS * 100:.1f} % of a core\n")


def told_apart(table: CheckpointTable, place: int) -> list[ConnectionSnapshot]:
    """Return a table's connections; all tables are of this process, so that their numbers are made different."""
    found = connection_snapshots(table, 2**62)
    for one in found:
        one.record_id += place << 60
    return found


if __name__ == "__main__":
    main()
