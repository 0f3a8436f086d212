"""HLS requests a second, for one segment and for one playlist, against nginx serving the same bytes as files.

The same load generator (wrk, 16 keep-alive connections) asks both servers in turn, several rounds; ratios are of one round.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import free_port, publisher, report, server

NGINX = """
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def fetch(url: str) -> bytes:
    """Return the body of a URL."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return bytes(reply.read())


def requests_a_second(url: str, seconds: int) -> float:
    """Return what wrk gets. Raises RuntimeError for anything but 200."""
    out = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", url], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in out:
        raise RuntimeError(f"{url} was not always answered with 200:\n{out}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    if found is None:
        raise RuntimeError(out)
    return float(found.group(1))


@contextmanager
def nginx(folder: Path) -> Iterator[int]:
    """Serve folder/files with nginx; yields its port."""
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    )
    try:
        time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def media_playlist(base: str) -> str:
    """Return the address of the first quality's playlist."""
    master = fetch(f"{base}/hls/live/index.m3u8").decode()
    name = next(line for line in master.splitlines() if line and not line.startswith("#"))
    return f"{base}/hls/live/{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server() as running, publisher(running):
        base = f"http://127.0.0.1:{running.http}"
        time.sleep(14)
        playlist = media_playlist(base)
        text = fetch(playlist).decode()
        segment = [line for line in text.splitlines() if line and not line.startswith("#")][-1]
        segment_url = f"{playlist.rpartition('/')[0]}/{segment}"
        files = running.folder / "files"
        files.mkdir()
        for temporary in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (running.folder / temporary).mkdir()
        files.chmod(0o755)
        running.folder.chmod(0o755)
        (files / "playlist.m3u8").write_bytes(fetch(playlist))
        (files / "segment.ts").write_bytes(fetch(segment_url))
        ratios: dict[str, list[float]] = {"segment": [], "playlist": []}
        rates: dict[str, list[float]] = {"segment": [], "playlist": []}
        with nginx(running.folder) as port:
            for _ in range(options.rounds):
                for name, file, url in (
                    ("segment", "segment.ts", segment_url),
                    ("playlist", "playlist.m3u8", playlist),
                ):
                    theirs = requests_a_second(f"http://127.0.0.1:{port}/{file}", options.seconds)
                    ours = requests_a_second(url, options.seconds)
                    ratios[name].append(ours / theirs)
                    rates[name].append(ours)
        report(
            segment_bytes=(files / "segment.ts").stat().st_size,
            segment_ratio=round(statistics.median(ratios["segment"]), 2),
            playlist_ratio=round(statistics.median(ratios["playlist"]), 2),
            segments_a_second=round(statistics.median(rates["segment"])),
            playlists_a_second=round(statistics.median(rates["playlist"])),
        )


if __name__ == "__main__":
    main()
