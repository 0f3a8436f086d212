"""Many HLS viewers of one live stream: failed requests, stalls, and the server's CPU."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.bench_hls import media_playlist
from bench.harness import compiled, publisher, report, result, server, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with server() as running, publisher(running):
        time.sleep(10)
        path = media_playlist(f"http://127.0.0.1:{running.http}").partition(str(running.http))[2]
        viewers = subprocess.Popen(
            [compiled("hls_viewers"), str(running.http), str(options.viewers), str(options.seconds + 5), path],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert viewers.stdout is not None
        viewers.stdout.readline()
        time.sleep(4)
        before, began = running.cpu_s(), time.monotonic()
        time.sleep(options.seconds)
        cores = spent(before, running.cpu_s()) / (time.monotonic() - began)
        outcome = result(viewers)
    report(server_cores=round(cores, 3), **outcome)


if __name__ == "__main__":
    main()
