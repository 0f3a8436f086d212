"""Files on http servers: nginx, and servers that break connections, stall, refuse ranges and change the file."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mist.errors import MistError, RemoteProtocolError, TransportError, UnsupportedError
from mist.net.http_source import TRIES, HttpReader
from mist.net.source_reader import SourceReader
from mist.net.sources import open_source
from tests.support.nginx import Nginx

DATA = os.urandom(1 << 20)
Answer = Callable[["Handler"], None]


def read_all(reader: SourceReader, position: int = 0) -> bytes:
    found = bytearray()
    while data := reader.read(position + len(found), 100_000):
        found += data
    return bytes(found)


# --- nginx ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a b.bin").write_bytes(DATA)
    (tmp_path / "files" / "empty.bin").touch()
    (tmp_path / "users").write_text("mist:{PLAIN}se+cret\n")
    places = (
        f"root {tmp_path}/files; location /old/ {{ rewrite ^/old/(.*)$ /$1 redirect; }}"
        f' location /closed/ {{ auth_basic "x"; auth_basic_user_file {tmp_path}/users; alias {tmp_path}/files/; }}'
        " location /loop { return 302 /loop; } location /away { return 302 ftp://host/; }"
        f" location /plain/ {{ max_ranges 0; alias {tmp_path}/files/; }}"
    )
    with Nginx(tmp_path, http=places) as running:
        yield running


@pytest.mark.tools("nginx")
def test_a_file_of_nginx_is_read_anywhere(nginx: Nginx, no_leaks: None) -> None:
    with open_source(f"http://127.0.0.1:{nginx.http_port}/a%20b.bin?x=1") as reader:
        assert isinstance(reader, HttpReader)
        assert reader.size == len(DATA) and reader.can_jump
        assert read_all(reader) == DATA
        assert reader.read(len(DATA) - 5, 100) == DATA[-5:]
        assert reader.read(10, 7) == DATA[10:17]
        assert reader.read(5000, 7) == DATA[5000:5007]  # a little further: without another request
        assert reader.read(800_000, 7) == DATA[800_000:800_007]
        assert read_all(reader, 700_000) == DATA[700_000:]
        assert reader.read(len(DATA), 5) == b"" and reader.read(10**12, 5) == b""


@pytest.mark.tools("nginx")
def test_passwords_redirects_and_what_is_not_there(nginx: Nginx) -> None:
    host = f"127.0.0.1:{nginx.http_port}"
    for url in (f"http://{host}/old/a b.bin", f"http://mist:se%2Bcret@{host}/closed/a%20b.bin"):
        with HttpReader(url) as reader:
            assert read_all(reader) == DATA
            assert "cret" not in reader.name
    with HttpReader(f"http://{host}/empty.bin") as reader:
        assert reader.read(0, 10) == b"" and reader.size == 0
    for path, words in (
        ("/missing", "404 Not Found"),
        ("/closed/a%20b.bin", "401 Unauthorized"),
        ("/loop", "more than 6 redirects"),
        ("/away", "redirects to ftp://host/"),
    ):
        with pytest.raises(TransportError, match=words):
            HttpReader(f"http://{host}{path}")


@pytest.mark.tools("nginx")
def test_a_server_without_ranges_is_read_forwards_only(nginx: Nginx) -> None:
    with HttpReader(f"http://127.0.0.1:{nginx.http_port}/plain/a%20b.bin") as reader:
        assert not reader.can_jump and reader.size == len(DATA)
        assert reader.read(900_000, 5) == DATA[900_000:900_005]
        with pytest.raises(UnsupportedError, match="the server answers no ranges") as caught:
            reader.read(5, 5)
        assert caught.value.offset == 5


@pytest.mark.tools("nginx")
def test_a_file_that_is_replaced_is_an_error_that_says_where(nginx: Nginx, tmp_path: Path) -> None:
    with HttpReader(f"http://127.0.0.1:{nginx.http_port}/a%20b.bin") as reader:
        assert reader.read(0, 5) == DATA[:5]
        fresh = tmp_path / "fresh"
        fresh.write_bytes(DATA[::-1])
        os.utime(fresh, (1, 1))
        fresh.rename(tmp_path / "files" / "a b.bin")
        with pytest.raises(RemoteProtocolError, match="changed on the server") as caught:
            reader.read(900_000, 5)
        assert caught.value.offset == 900_000


# --- servers that misbehave -----------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the n-th request as the n-th script says, and all later ones as the last."""

    protocol_version = "HTTP/1.1"
    scripts: list[Answer]
    asked: list[int]

    def do_GET(self) -> None:
        self.asked.append(self.first())
        self.scripts[min(len(self.asked), len(self.scripts)) - 1](self)

    def first(self) -> int:
        return int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def range(self, count: int | None = None, **headers: str) -> None:
        """Answer the range that is asked for, but only so many bytes of what is announced."""
        first = self.first()
        self.head(206, len(DATA) - first, Content_Range=f"bytes {first}-{len(DATA) - 1}/{len(DATA)}", **headers)
        self.wfile.write(DATA[first:] if count is None else DATA[first : first + count])
        if count is not None:
            self.close_connection = True


@contextmanager
def server(*scripts: Answer) -> Iterator[tuple[str, type[Handler]]]:
    """Run a server. Yields the address of a file, and the class that counts requests."""
    handler = type("Scripted", (Handler,), {"scripts": list(scripts), "asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/a.bin", handler
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def no_pause(_seconds: float) -> None:
    """Go on at once."""


def test_a_broken_connection_goes_on_where_it_broke() -> None:
    with server(lambda h: h.range(100_000), lambda h: h.range(50_000), lambda h: h.range()) as (url, handler):
        with HttpReader(url, pause=no_pause) as reader:
            assert read_all(reader) == DATA
        assert handler.asked == [0, 100_000, 150_000]


def test_a_server_that_stalls_is_asked_again() -> None:
    release = threading.Event()

    def stalled(handler: Handler) -> None:
        first = handler.first()
        handler.head(206, len(DATA) - first, Content_Range=f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")
        handler.wfile.write(DATA[first : first + 70_000])
        release.wait(10)
        handler.close_connection = True

    with server(stalled, lambda h: h.range()) as (url, handler):
        with HttpReader(url, stall_s=0.2, pause=no_pause) as reader:
            assert read_all(reader) == DATA
        assert handler.asked == [0, 70_000]
        release.set()


def test_errors_of_a_moment_are_tried_again_and_lasting_ones_are_told() -> None:
    waits: list[float] = []
    with server(lambda h: h.head(503, 0), lambda h: h.head(500, 0), lambda h: h.range()) as (url, _):
        with HttpReader(url, pause=waits.append) as reader:
            assert read_all(reader) == DATA
    assert waits == [0.2, 0.4]
    with server(lambda h: h.head(503, 0)) as (url, handler):
        with pytest.raises(TransportError, match="byte 0: the server answers 503 Service Unavailable"):
            HttpReader(url, pause=no_pause)
        assert len(handler.asked) == TRIES


def test_nobody_there() -> None:
    with server(lambda h: h.range()) as (url, _):
        closed = url
    with pytest.raises(TransportError, match="byte 0: Connection refused"):
        HttpReader(closed, pause=no_pause)


def test_a_server_that_answers_other_bytes() -> None:
    def wrong(handler: Handler) -> None:
        handler.head(206, 5, Content_Range=f"bytes 7-11/{len(DATA)}")
        handler.wfile.write(b"xxxxx")

    with server(wrong) as (url, _), pytest.raises(TransportError, match="other bytes than those asked for"):
        HttpReader(url, pause=no_pause)


def test_without_ranges_a_broken_connection_is_read_up_to_again() -> None:
    def plain(count: int | None) -> Answer:
        def answer(handler: Handler) -> None:
            handler.head(200, len(DATA))
            handler.wfile.write(DATA[:count])
            handler.close_connection = True

        return answer

    with server(plain(300_000), plain(None)) as (url, handler):
        with HttpReader(url, pause=no_pause) as reader:
            assert read_all(reader) == DATA
        assert len(handler.asked) == 2


def test_replies_without_length() -> None:
    def chunked(handler: Handler) -> None:
        handler.head(200, None, Transfer_Encoding="chunked")
        handler.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def until_close(handler: Handler) -> None:
        handler.head(200, None, Connection="close")
        handler.wfile.write(b"hello world")
        handler.close_connection = True

    for script in (chunked, until_close):
        with server(script) as (url, _), HttpReader(url, pause=no_pause) as reader:
            assert reader.size is None
            assert read_all(reader) == b"hello world"
            assert reader.size == 11


@pytest.mark.parametrize("header", ["ETag", "Last_Modified"])
def test_a_changed_file_is_told_by_its_headers(header: str) -> None:
    def version(text: str) -> Answer:
        return lambda handler: handler.range(100_000, **{header: text})

    with server(version("1"), version("2")) as (url, _), HttpReader(url, pause=no_pause) as reader:
        with pytest.raises(RemoteProtocolError, match="the file changed on the server while it was read") as caught:
            read_all(reader)
        assert caught.value.offset == 100_000


def test_the_address_must_make_sense() -> None:
    for url in ("http:///a", "http://127.0.0.1:1/x"):
        with pytest.raises(MistError):
            HttpReader(url, pause=no_pause)
