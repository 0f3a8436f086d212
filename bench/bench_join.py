"""Time from connect to the first media byte of new live viewers that join at a steady rate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import publisher, report, result, run_viewers, server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("flv", "ts", "rtmp"), default="flv")
    parser.add_argument("--viewers", type=int, default=600)
    parser.add_argument("--rate", type=int, default=200, help="joins a second")
    options = parser.parse_args()
    with server() as running, publisher(running):
        outcome = result(run_viewers(options.kind, running, options.viewers, 2, options.rate))
    report(
        kind=options.kind,
        joins_a_second=options.rate,
        viewers=options.viewers,
        answered=outcome["answered"],
        median_ms=outcome["first_us_median"] / 1000,
        p95_ms=outcome["first_us_p95"] / 1000,
        max_ms=outcome["first_us_max"] / 1000,
    )


if __name__ == "__main__":
    main()
