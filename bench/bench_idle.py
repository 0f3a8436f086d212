"""CPU and memory of a server without streams and connections."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import report, server, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    with server() as running:
        time.sleep(3)
        before, began = running.cpu_s(), time.monotonic()
        time.sleep(options.seconds)
        cores = spent(before, running.cpu_s()) / (time.monotonic() - began)
        report(cores=round(cores, 5), pss_mb=round(running.pss_kb() / 1024, 1), processes=len(running.pids()))


if __name__ == "__main__":
    main()
