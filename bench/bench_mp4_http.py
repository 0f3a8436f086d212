"""A whole 40 MB MP4 over HTTP, 16 connections, against nginx with sendfile: bytes a second, and CPU seconds for each gigabyte.

The same load generator (wrk) asks both servers in turn, several rounds; ratios are of one round.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.bench_hls import nginx, requests_a_second
from bench.harness import CACHE, cpu_s, report, server, spent

SECONDS_OF_MEDIA = 120


def make_file(path: Path) -> None:
    """Write an MP4 of 120 s and 40 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size=1280x720:rate=30:duration={SECONDS_OF_MEDIA}"
    tone = f"sine=frequency=440:sample_rate=48000:duration={SECONDS_OF_MEDIA}"
    rate = (
        "-b:v",
        "2500k",
        "-minrate",
        "2500k",
        "-maxrate",
        "2500k",
        "-bufsize",
        "2500k",
        "-x264-params",
        "nal-hrd=cbr",
    )
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-pix_fmt", "yuv420p", *rate)
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone)
    subprocess.run(
        ["ffmpeg", "-v", "error", *inputs, *video, "-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart", str(path)],
        check=True,
    )


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def nginx_cpu(folder: Path) -> dict[int, float]:
    """Return the CPU seconds of nginx's workers."""
    return {pid: cpu_s(pid) for pid in children(int((folder / "nginx.pid").read_text()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file", type=Path, default=CACHE / "film-40mb.mp4")
    options = parser.parse_args()
    if not options.file.exists():
        make_file(options.file)
    with server((), sources={"film": str(options.file)}) as running:
        url = f"http://127.0.0.1:{running.http}/film.mp4"
        with urllib.request.urlopen(url, timeout=60) as reply:
            size = len(reply.read())
        files = running.folder / "files"
        files.mkdir()
        running.folder.chmod(0o755)
        for temporary in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (running.folder / temporary).mkdir()
        (files / "film.mp4").write_bytes(options.file.read_bytes())
        rates: list[float] = []
        costs: list[float] = []
        gigabytes: list[float] = []
        with nginx(running.folder) as port:
            time.sleep(1)
            for _ in range(options.rounds):
                before = nginx_cpu(running.folder)
                theirs = (
                    requests_a_second(f"http://127.0.0.1:{port}/film.mp4", options.seconds)
                    * options.file.stat().st_size
                )
                their_cost = spent(before, nginx_cpu(running.folder)) / (theirs * options.seconds)
                before = running.cpu_s()
                ours = requests_a_second(url, options.seconds) * size
                our_cost = spent(before, running.cpu_s()) / (ours * options.seconds)
                rates.append(ours / theirs)
                costs.append(our_cost / their_cost)
                gigabytes.append(ours / 1e9)
        report(
            bench="mp4_http",
            bytes_ratio=round(statistics.median(rates), 2),
            bytes_ratios=[round(one, 2) for one in rates],
            cpu_ratio=round(statistics.median(costs), 2),
            cpu_ratios=[round(one, 2) for one in costs],
            gigabytes_a_second=round(statistics.median(gigabytes), 2),
        )


if __name__ == "__main__":
    main()
