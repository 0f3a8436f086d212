"""Round after round of many automatic pushes: begun, failing, tried again after an outage, stopped. Shows what stays behind in memory.

Each round has other targets. A line for each, with the memory and the descriptors of every kind of process while all pushes run, and
when all are stopped; the last line says what a round costs, as the slope of the second half of the rounds. "private" is what a
process does not share, among it each page that it had from the process that forked it and has written into; "rss" is all that it
has in memory, and grows only with new memory. A push into a file goes on through all rounds, so that the guardian does too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.bench_pushes import Sink, ask, nginx
from bench.harness import LIVE_SECONDS, Server, made_file, publisher, report, server, wait_for

ROLES = {
    "main": "mist: server",
    "controller": "mist: controller",
    "guardian": "mist: guardian pushes",
    "workers": "mist: push",
}
OUTAGE_SECONDS = 4

Figures = dict[str, dict[str, float]]


def rounds_pushes(running: Server) -> list[list[Any]]:
    """Return the rows of the pushes of this round."""
    time.sleep(1)  # a list of a thousand pushes costs the controller more than what is to be measured
    rows = ask(running, push_list=1).get("push_list") or []
    return [row for row in rows if row[2].startswith("rtmp:")]


def pushing(running: Server) -> int:
    """Return how many of them have sent something."""
    return sum(len(row) > 5 and row[5].get("bytes", 0) > 0 for row in rounds_pushes(running))


def faint_file() -> Path:
    """Return 20 s of 64x36 at 2 fps as FLV, made once: what a push costs is not what is looked at."""
    x264 = "-c:v libx264 -preset veryfast -tune zerolatency -g 2"
    return made_file("faint.flv", f"-f lavfi -i testsrc2=size=64x36:rate=2 -t {LIVE_SECONDS} {x264}")


def look(running: Server) -> Figures:
    """Return memory in MB and descriptors of each kind of process."""
    found: Figures = defaultdict(lambda: defaultdict(float))
    for pid in running.pids():
        folder = Path(f"/proc/{pid}")
        try:
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            rollup = (folder / "smaps_rollup").read_text()
            descriptors = len(list((folder / "fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            continue
        role = next((role for role, begin in ROLES.items() if title.startswith(begin)), "others")
        kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in rollup.splitlines()[1:])}
        for name, key in (("pss", "Pss"), ("rss", "Rss"), ("private", "Private_Dirty")):
            found[role][name] += round(kb[key] / 1024, 2)
        found[role]["fds"] += descriptors
        found[role]["processes"] += 1
    return {role: {name: round(value, 2) for name, value in sorted(row.items())} for role, row in sorted(found.items())}


def one_round(
    running: Server, sink: Sink, number: int, count: int, failing: int, seconds: float
) -> tuple[Figures, Figures]:
    """Begin pushes, let their server be away for a while, stop them; returns the figures with all of them, and with none."""
    rules = {
        f"r{number}-{n}": {
            "stream": "live",
            "target": f"rtmp://127.0.0.1:{1 if n < failing else sink.port}/live/r{number}s{n}?waittrackcount=1",
        }
        for n in range(count)
    }
    ask(running, push_auto_add=rules)
    wait_for(lambda: pushing(running) == count - failing, seconds)
    sink.stop()
    wait_for(lambda: pushing(running) == 0, seconds)
    time.sleep(OUTAGE_SECONDS)
    sink.start()
    wait_for(lambda: pushing(running) == count - failing, seconds)
    busy = look(running)
    ask(running, push_auto_remove=list(rules))
    ask(running, push_stop=[row[0] for row in rounds_pushes(running)])
    wait_for(lambda: not rounds_pushes(running), seconds)
    time.sleep(1)
    return busy, look(running)


def slope(values: list[float]) -> float:
    """Return by how much a value grows from one round to the next, in the second half of the rounds."""
    half = values[len(values) // 2 :]
    return round(statistics.linear_regression(range(len(half)), half).slope, 3) if len(half) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--failing", type=int, default=100, help="targets of each round that are never there")
    parser.add_argument("--seconds", type=float, default=240, help="that one step of a round may take")
    parser.add_argument("--wait", type=int, default=3, help="seconds until a push that has ended is tried again")
    options = parser.parse_args()
    history: list[Figures] = []
    with nginx() as sink, server() as running, publisher(running, file=faint_file()):
        time.sleep(3)
        report(before=look(running))
        ask(running, push_settings={"wait": options.wait}, push_start=["live", f"{running.folder}/stays.ts"])
        for number in range(options.rounds):
            began = time.monotonic()
            busy, idle = one_round(running, sink, number, options.count, options.failing, options.seconds)
            history.append(idle)
            report(round=number + 1, seconds=round(time.monotonic() - began), busy=busy, idle=idle)
        time.sleep(75)  # what is kept for a minute goes, and the guardian with its workers
        report(a_minute_later=look(running))
    roles = [role for role in history[0] if all(role in one for one in history)]
    report(
        mb_a_round={role: slope([one[role]["rss"] for one in history]) for role in roles},
        private_mb_a_round={role: slope([one[role]["private"] for one in history]) for role in roles},
        descriptors_a_round={role: slope([one[role]["fds"] for one in history]) for role in roles},
    )


if __name__ == "__main__":
    main()
