"""Requests out of bytes: httptools with the limits that keep a peer from costing memory. No socket, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httptools

from mist.net.http_messages import HEADER_NAME, MAX_KNOWN_HEAD_BYTES, HttpSettings, Request, RequestRefused

HEAD_END = b"\r\n\r\n"


class LineEnds:
    """Ends lines of heads that end in a bare LF with CR LF, the only end that parsers read.   Spec: RFC 9112 section 2.2."""

    def __init__(self) -> None:
        self._in_end = False  # the last byte was a CR

    def pieces(self, data: bytes, in_head: Callable[[], bool]) -> Iterator[bytes]:
        """Yield the bytes in pieces for the parser. in_head: whether the next byte belongs to a head, asked before each piece."""
        in_end, self._in_end = self._in_end, data.endswith(b"\r")
        begin = 0
        if data.count(b"\n") != data.count(b"\r\n"):
            while in_head() and (end := data.find(b"\n", begin)) >= 0:
                whole = data[end - 1 : end] == b"\r" if end else in_end
                yield data[begin : end + 1] if whole else data[begin:end] + b"\r\n"
                begin = end + 1
        if begin < len(data):
            yield data[begin:]


class RequestReader:
    """Reads the requests of one connection.

    phase: what the next bytes belong to: "idle" between requests, "head", "body". wants_continue: the peer waits for "100
    Continue" before it sends the body; whoever sends that resets it. refusal: set when the bytes became unreadable or
    broke a limit; nothing is read after that.
    """

    def __init__(self, settings: HttpSettings, peer: str = "", salt: str = "") -> None:
        """Make a reader. peer, salt: see `Request`."""
        self.phase = "idle"
        self.wants_continue = False
        self.refusal: RequestRefused | None = None
        self._settings = settings
        self._peer = peer
        self._salt = salt
        self._parser: Any = httptools.HttpRequestParser(self)
        self._line_ends = LineEnds()
        self._done: list[Request] = []
        self._between = True  # all that was fed are whole requests
        self._last = False  # a request that ends the connection was read
        self._unfinished_bytes = 0
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._header_count = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._method = ""
        self._http10 = False

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes from the peer, any split, and return the requests they complete; then look at `refusal`."""
        if self.refusal is not None or self._last:
            return []
        between = self._between
        if between:
            known = self._settings.known.get(data)
            if known is not None:
                return [known.again(self._peer, self._salt)]
        try:
            for piece in self._line_ends.pieces(data, lambda: self.phase != "body"):
                self._parse(piece)
            if self.phase == "head":
                self._bound_unfinished(len(data))
        except RequestRefused as refusal:
            self.refusal = self.refusal or refusal
        done, self._done = self._done, []
        self._between = self.phase == "idle" and data.endswith(HEAD_END)
        if between and self._between and len(done) == 1 and len(data) <= MAX_KNOWN_HEAD_BYTES:
            self._remember(data, done[0])
        return done

    def _remember(self, data: bytes, request: Request) -> None:
        """Keep a request that was all of these bytes; what is the last of its connection must be noted anew each time."""
        if request.keep_alive and not request.upgrade and not request.body and self.refusal is None:
            self._settings.remember(data, request)

    def close(self) -> None:
        """Let go of the parser, which holds on to us."""
        self._last = True
        self._parser = None

    def _parse(self, data: bytes) -> None:
        """Run the parser; an Upgrade is served as the plain request it also is, and what follows is read as requests."""
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._last:
                    return
                offset = int(upgrade.args[0])
                self._parser = httptools.HttpRequestParser(self)
                data = data[offset:] if offset > 0 else b""
            except httptools.HttpParserCallbackError as error:
                if self.refusal is not None:
                    return
                raise error.__context__ or error from None
            except httptools.HttpParserError as error:
                if self._last:
                    return  # bytes behind a last request are nobody's error
                raise RequestRefused(400, f"the request is malformed: {error}") from None

    def _bound_unfinished(self, size: int) -> None:
        """Bound what the parser keeps of a header line that has not ended; `on_header` bounds those that have."""
        self._unfinished_bytes += size
        settings = self._settings
        if self._unfinished_bytes - size > settings.max_target_bytes + settings.max_header_bytes:
            raise RequestRefused(431, f"the header is over {settings.max_header_bytes} bytes")

    # What the parser calls. It swallows what is raised here, so a refusal is noted first.

    def _refuse(self, status: int, text: str, *, spec: str = "") -> RequestRefused:
        """Note why reading ends, and return it to be raised: that stops the parser."""
        self.refusal = RequestRefused(status, text, spec=spec)
        return self.refusal

    def on_message_begin(self) -> None:
        """Expect a request line."""
        self.phase = "head"
        self.wants_continue = False
        self._unfinished_bytes = 0
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._header_count = 0
        if self._body_bytes:
            self._body = []
            self._body_bytes = 0

    def on_url(self, data: bytes) -> None:
        """Take a piece of the request target."""
        self._target += data
        if len(self._target) > self._settings.max_target_bytes:
            raise self._refuse(414, f"the request target is over {self._settings.max_target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header line, or count and drop a trailer."""
        settings = self._settings
        self._header_count += 1
        self._header_bytes += len(name) + len(value) + 4
        if self._header_count > settings.max_header_count:
            raise self._refuse(431, f"more than {settings.max_header_count} header lines")
        if self._header_bytes > settings.max_header_bytes:
            raise self._refuse(431, f"the header is over {settings.max_header_bytes} bytes")
        if self.phase != "head":
            return
        key = name.decode("latin-1").lower()
        if HEADER_NAME.fullmatch(key) is None:  # older parsers let spaces pass
            raise self._refuse(400, "a header's name is malformed", spec="RFC 9110 section 5.1")
        text = value.decode("latin-1").strip()
        known = self._headers.get(key)
        if known is not None:
            if key in ("host", "content-length"):
                raise self._refuse(400, f"a second {key} header", spec="RFC 9112 section 3.2")
            text = f"{known}; {text}" if key == "cookie" else f"{known}, {text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        """Refuse what need not be read to its end."""
        headers = self._headers
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        self._http10 = version == "1.0"
        if not self._http10 and "host" not in headers:
            raise self._refuse(400, "the Host header is missing", spec="RFC 9112 section 3.2")
        self._method = self._parser.get_method().decode("latin-1")
        if self._method not in self._settings.methods:
            raise self._refuse(405, f"the method {self._method} is not allowed")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._settings.max_body_bytes:
            raise self._refuse(413, f"the body is over {self._settings.max_body_bytes} bytes")
        self.phase = "body"
        self.wants_continue = headers.get("expect", "").lower() == "100-continue" and not self._http10

    def on_body(self, data: bytes) -> None:
        """Collect the body, up to its limit."""
        self.wants_continue = False
        self._body_bytes += len(data)
        if self._body_bytes > self._settings.max_body_bytes:
            raise self._refuse(413, f"the body is over {self._settings.max_body_bytes} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Put the request together."""
        self.phase = "idle"
        self.wants_continue = False
        if self._last:
            return
        headers = self._headers
        try:
            request = Request(self._method, self._target, headers, self._settings, self._peer, self._salt)
        except RequestRefused as refusal:
            self.refusal = refusal
            raise
        request.http10 = self._http10
        request.keep_alive = self._parser.should_keep_alive()
        if "upgrade" in headers and self._parser.should_upgrade():
            request.upgrade = True
            request.keep_alive = not self._http10 and "close" not in headers.get("connection", "").lower()
        if self._body_bytes:
            request.body = b"".join(self._body)
        self._last = not request.keep_alive
        self._done.append(request)
