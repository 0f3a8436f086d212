"""A page run in headless Chromium against a server of its own, and what the page found."""

from __future__ import annotations

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]

# Bytes to send and the second, from the start of the answer, before which they are not sent.
Media = Callable[[], Iterator[tuple[float, bytes]]]


def run_page(page: str, media: Mapping[str, tuple[str, Media]], timeout_s: float = 40) -> Any:
    """Show a page and return the first value that it gives to `report(value)`.

    media: what the page may fetch: by path, its content type and what to send. Raises TimeoutError.
    """
    assert CHROMIUM is not None
    reports: queue.Queue[Any] = queue.Queue()
    script = "<script>function report(v){fetch('/report',{method:'POST',body:JSON.stringify(v)})}</script>"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._send("text/html", iter([(0.0, f"<!doctype html>{script}{page}".encode())]))
            elif self.path in media:
                kind, make = media[self.path]
                self._send(kind, make())
            else:
                self.send_error(404)

        def _send(self, kind: str, pieces: Iterator[tuple[float, bytes]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            begin = time.monotonic()
            with suppress(OSError):
                for at_s, data in pieces:
                    time.sleep(max(0.0, begin + at_s - time.monotonic()))
                    self.wfile.write(data)

        def do_POST(self) -> None:
            reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The profile, and what the browser makes in the folder for temporary files and leaves there.
    with tempfile.TemporaryDirectory(prefix="mist-chromium-", ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", f"http://127.0.0.1:{server.server_port}/"]
        browser = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            return reports.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"the page reported nothing in {timeout_s:g} s") from None
        finally:
            browser.terminate()
            try:
                browser.wait(5)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait(5)
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)  # its helpers would write into the folder again
            server.shutdown()
            server.server_close()
