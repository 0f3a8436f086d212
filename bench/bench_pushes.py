"""Cost of pushes of one live stream to an RTMP server (nginx), at several counts; or of pushes that fail and are started again."""

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

from bench.harness import Server, free_port, publisher, report, server, spent, wait_for

MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"


def ask(running: Server, **command: Any) -> dict[str, Any]:
    """Call the API."""
    address = f"http://127.0.0.1:{running.api}/api2"
    post = urllib.request.Request(address, json.dumps(command).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(post, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def nginx() -> Iterator[int]:
    """Run nginx with its RTMP module; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mist-bench-nginx-") as folder:
        config = Path(folder, "nginx.conf")
        application = "application live { live on; }"
        config.write_text(
            f"load_module {MODULE}; daemon off; pid {folder}/pid; error_log {folder}/log warn;\n"
            "events { worker_connections 8192; }\n"
            f"rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; {application} }} }}\n"
        )
        process = subprocess.Popen(["nginx", "-e", f"{folder}/log", "-c", str(config)])
        try:
            yield port
        finally:
            process.terminate()
            process.wait()


def descriptors(running: Server) -> int:
    """Return the open descriptors of the main process and the controller, the first two."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in running.pids()[:2])


def pushing(running: Server) -> int:
    return len(ask(running, push_list=1).get("push_list") or [])


def measure(running: Server, seconds: float) -> tuple[float, float]:
    """Return cores used, and memory in MB."""
    before, began = running.cpu_s(), time.monotonic()
    time.sleep(seconds)
    return spent(before, running.cpu_s()) / (time.monotonic() - began), running.pss_kb() / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--failing", action="store_true", help="the server is not there")
    options = parser.parse_args()
    with nginx() as port, server() as running, publisher(running):
        time.sleep(3)
        cores, memory_mb = measure(running, options.seconds)
        before = {"processes": len(running.pids()), "descriptors": descriptors(running)}
        for count in options.counts:
            where = f"127.0.0.1:{1 if options.failing else port}"
            rules = {f"r{n}": {"stream": "live", "target": f"rtmp://{where}/live/s{n}"} for n in range(count)}
            began = time.monotonic()
            ask(running, push_settings={"wait": 1}, push_auto_add=rules)
            if not options.failing:
                wait_for(lambda count=count: pushing(running) == count, 60)
            start_s = time.monotonic() - began
            time.sleep(2)
            now_cores, now_mb = measure(running, options.seconds)
            report(
                pushes=count,
                start_s=round(start_s, 1),
                ms_of_a_core_each=round((now_cores - cores) / count * 1000, 2),
                mb_each=round((now_mb - memory_mb) / count, 2),
                cores=round(now_cores, 3),
                processes_each=round((len(running.pids()) - before["processes"]) / count, 2),
            )
        ask(running, push_auto_remove=list(rules), push_stop="live")
        wait_for(lambda: not pushing(running), 40)
        wait_for(lambda: len(running.pids()) <= before["processes"], 20)
        report(before=before, after={"processes": len(running.pids()), "descriptors": descriptors(running)})


if __name__ == "__main__":
    main()
