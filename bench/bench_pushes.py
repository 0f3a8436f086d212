"""Automatic pushes of one live stream to an RTMP server (nginx), at several counts: what each costs, and what becomes of them when the
server is away for a while, or when some of the targets are never there."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import (
    Server,
    free_port,
    live_file,
    publisher,
    report,
    server,
    spent,
    thin_file,
    wait_for,
)

MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
START_SECONDS = 120
AWAY_SECONDS = 5


def ask(running: Server, **command: Any) -> dict[str, Any]:
    """Call the API."""
    address = f"http://127.0.0.1:{running.api}/api2"
    post = urllib.request.Request(address, json.dumps(command).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(post, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


class Sink:
    """nginx with its RTMP module."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._command = ["nginx", "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]
        Path(folder, "nginx.conf").write_text(
            f"load_module {MODULE}; daemon off; pid {folder}/pid; error_log {folder}/log crit;\n"
            "worker_rlimit_nofile 16384; events { worker_connections 8192; }\n"
            f"rtmp {{ access_log off; server {{ listen 127.0.0.1:{self.port}; "
            "application live { live on; } } }\n"
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def nginx() -> Iterator[Sink]:
    """Run a sink."""
    with tempfile.TemporaryDirectory(prefix="mist-bench-nginx-") as folder:
        sink = Sink(Path(folder))
        try:
            yield sink
        finally:
            sink.stop()


def descriptors(running: Server) -> int:
    """Return the open descriptors of the main process and the controller, the first two."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in running.pids()[:2])


def pushing(running: Server) -> int:
    """Return how many pushes have sent something."""
    time.sleep(1)  # a list of a thousand pushes costs the controller more than what is to be measured
    rows = ask(running, push_list=1).get("push_list") or []
    return sum(len(row) > 5 and row[5].get("bytes", 0) > 0 for row in rows)


def measure(running: Server, seconds: float) -> tuple[float, float]:
    """Return cores used, and memory in MB."""
    before, began = running.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return spent(before, running.cpu_s()) / (time.monotonic() - began), running.pss_kb() / 1024


def outage(running: Server, sink: Sink, count: int) -> float:
    """Let the server be away for a while; returns the seconds from its return until everything is pushed again."""
    sink.stop()
    wait_for(lambda: pushing(running) == 0, START_SECONDS)
    time.sleep(AWAY_SECONDS)
    began = time.monotonic()
    sink.start()
    wait_for(lambda: pushing(running) == count, START_SECONDS)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--failing", type=int, default=0, help="targets, of the greatest count, that are never there")
    parser.add_argument("--thin", action="store_true", help="a stream of 110 kbit/s in place of 2.5 Mbit/s")
    parser.add_argument("--outage", action="store_true", help="have the server away for a while at the greatest count")
    options = parser.parse_args()
    file = thin_file() if options.thin else live_file()
    with nginx() as sink, server() as running, publisher(running, file=file):
        time.sleep(3)
        cores, memory_mb = measure(running, options.seconds)
        before = {"processes": len(running.pids()), "descriptors": descriptors(running), "mb": round(memory_mb)}
        for count in options.counts:
            rules = {
                f"r{n}": {
                    "stream": "live",
                    "target": f"rtmp://127.0.0.1:{1 if n < options.failing else sink.port}/live/s{n}",
                }
                for n in range(count)
            }
            good = count - options.failing
            began = time.monotonic()
            ask(running, push_settings={"wait": 1}, push_auto_add=rules)
            wait_for(lambda good=good: pushing(running) == good, START_SECONDS)
            start_s = time.monotonic() - began
            time.sleep(2)
            now_cores, now_mb = measure(running, options.seconds)
            report(
                pushes=count,
                failing=options.failing,
                start_s=round(start_s, 1),
                ms_of_a_core_each=round((now_cores - cores) / count * 1000, 2),
                mb_each=round((now_mb - memory_mb) / count, 3),
                cores=round(now_cores, 3),
                processes=len(running.pids()) - before["processes"],
            )
        if options.outage:
            report(back_s=round(outage(running, sink, good), 1))
        began = time.monotonic()
        ask(running, push_auto_remove=list(rules), push_stop="live")
        wait_for(lambda: not ask(running, push_list=1).get("push_list"), 60)
        report(stop_s=round(time.monotonic() - began, 1))
        wait_for(lambda: len(running.pids()) <= before["processes"], 40)
        time.sleep(2)
        _, memory_mb = measure(running, 1)
        after = {"processes": len(running.pids()), "descriptors": descriptors(running), "mb": round(memory_mb)}
        report(before=before, after=after)


if __name__ == "__main__":
    main()
