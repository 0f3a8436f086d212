"""A web server that takes files by PUT and gives them back: Python's own, so that it shares no code with mist."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.ports import free_port


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        sink = self.server.sink
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        sink.requests.append(("PUT", self.path, "chunked" if chunked else self.headers["Content-Length"]))
        if sink.status or (sink.needs_length and chunked):
            self.close_connection = True
            self._answer(sink.status or 411)
            return
        data = self._chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        sink.files[self.path] = data
        sink.headers[self.path] = dict(self.headers)
        self._answer(201)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def do_GET(self) -> None:
        data = self.server.sink.files.get(self.path)
        self._answer(404 if data is None else 200, data or b"")

    def do_DELETE(self) -> None:
        self.server.sink.requests.append(("DELETE", self.path, ""))
        self._answer(204 if self.server.sink.files.pop(self.path, None) is not None else 404)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sink: PutSink

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients break connections on purpose."""


class PutSink:
    """files: what was put, by path. status: to answer PUT with instead. needs_length: refuses HTTP chunks. Start and stop it at will."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.status = 0
        self.needs_length = False
        self._server: _Server | None = None

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.sink = self
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> PutSink:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
