"""Run all benches and print their lines; with --short, a quick look that they work."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALL = (
    *(
        ("bench_viewers.py", "--kind", kind, "--viewers", str(count))
        for kind in ("flv", "ts", "rtmp")
        for count in (200, 500, 1000)
    ),
    ("bench_viewers.py", "--viewers", "500", "--merge-ms", "100"),
    ("bench_viewers.py", "--viewers", "100", "--processes", "0", "--rounds", "1"),
    ("bench_delay.py",),
    ("bench_dtsc_chain.py",),
    ("bench_join.py",),
    ("bench_join.py", "--kind", "rtmp"),
    ("bench_hls.py",),
    ("bench_hls_viewers.py", "--viewers", "500"),
    ("bench_hls_viewers.py", "--viewers", "1000"),
    ("bench_idle.py",),
    ("bench_streams.py",),
    ("bench_remux.py",),
    ("bench_api.py",),
)
SHORT = (
    ("bench_viewers.py", "--viewers", "20", "--rounds", "1", "--seconds", "2"),
    ("bench_delay.py", "--viewers", "5", "--seconds", "3"),
    ("bench_dtsc_chain.py", "--seconds", "3"),
    ("bench_join.py", "--viewers", "40"),
    ("bench_hls_viewers.py", "--viewers", "20", "--seconds", "5"),
    ("bench_idle.py", "--seconds", "3"),
    ("bench_streams.py", "--counts", "5", "10", "--seconds", "2"),
    ("bench_remux.py", "--rounds", "1", "flv:ts"),
    ("bench_api.py", "--seconds", "0.3", "--megabytes", "0.1", "--rounds", "2"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    failures = 0
    for command in SHORT if options.short else ALL:
        failures += subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=False).returncode != 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
