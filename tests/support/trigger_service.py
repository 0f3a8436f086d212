"""An HTTP service that is told of triggers, and answers them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mist.stream.triggers import TRIGGERS, Answer

# Of value triggers, the line of the payload that is the value as it is without a handler.
VALUE_LINES: Mapping[str, int] = {
    "PUSH_REWRITE": 2, "RTMP_PUSH_REWRITE": 0, "PLAY_REWRITE": 0, "DEFAULT_STREAM": 0, "PUSH_OUT_START": 1
}  # fmt: skip


class Service:
    """An HTTP service that is told of triggers.

    headers: of the requests, in step with `events`. answers: what it answers instead of allowing, by trigger and a line of the
    payload. gates: it answers only when the event is set.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[tuple[str, str], str] = {}
        self.gates: dict[tuple[str, str], threading.Event] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one packet

            def do_POST(self) -> None:
                payload = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.headers.append(dict(self.headers))
                body = service.told(self.headers["X-Trigger"], payload.split("\n")).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, trigger: str, lines: list[str]) -> str:
        self.events.append((trigger, lines))
        for line in lines:
            if (trigger, line) in self.gates:
                self.gates[trigger, line].wait(60)
        usual = lines[VALUE_LINES[trigger]] if trigger in VALUE_LINES else "true"
        if trigger == "STREAM_SOURCE":
            usual = ""
        return next((self.answers[key] for key in ((trigger, line) for line in lines) if key in self.answers), usual)

    def names(self, start: int = 0) -> list[str]:
        """Return the triggers that were fired, without those that come at any time."""
        return [name for name, _ in self.events[start:] if name not in ("LIVE_BANDWIDTH", "USER_NEW", "USER_END")]

    def has(self, trigger: str, *lines: str) -> bool:
        """Tell whether a trigger was fired with these first lines."""
        return any(name == trigger and tuple(got[: len(lines)]) == lines for name, got in self.events)

    def count(self, trigger: str, *lines: str) -> int:
        """Return how often a trigger was fired with these first lines."""
        return sum(name == trigger and tuple(got[: len(lines)]) == lines for name, got in self.events)

    def handlers(self, **options: Any) -> dict[str, Any]:
        """Return a configuration that tells this service of everything, and waits where the answer counts."""
        return {
            name: [{"handler": self.url, "sync": one.answer is not Answer.NONE, **options}]
            for name, one in TRIGGERS.items()
        }

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.server.shutdown()
        self.server.server_close()
