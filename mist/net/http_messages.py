"""HTTP messages without a socket: requests, targets, queries, ranges, tokens, proxies and reply heads."""

from __future__ import annotations

import ipaddress
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

import mist
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    MistError,
    RemoteProtocolError,
)

MAX_TARGET_BYTES: Final = 8192  # RFC 9112 section 3 recommends at least 8000
MAX_HEADER_BYTES: Final = 32768  # all header lines of one request together
MAX_HEADER_COUNT: Final = 100
MAX_BODY_BYTES: Final = 1 << 20
MAX_QUERY_FIELDS: Final = 128
MAX_PIPELINED: Final = 64  # requests that wait behind one that is being answered
HEADER_TIMEOUT_S: Final = 10.0  # from the first byte of a request to the end of its header
BODY_TIMEOUT_S: Final = 30.0
# Without a request, on a connection that is kept. Long: ffmpeg keeps a second one for when it falls behind, and complains if it is gone.
IDLE_TIMEOUT_S: Final = 360.0
STALL_TIMEOUT_S: Final = 60.0  # without the peer taking one byte of a reply
MAX_KNOWN_HEADS: Final = 1024  # of whole requests, by their bytes, that need not be read again
MAX_KNOWN_HEAD_BYTES: Final = 1024
LINGER_S: Final = 2.0  # how long what a refused peer still sends is dropped, so that it can read the refusal

TOKEN_FROM_URL: Final = 1
TOKEN_FROM_COOKIE: Final = 2
TOKEN_TO_URL: Final = 4
TOKEN_TO_COOKIE: Final = 8
TOKEN_MODE_DEFAULT: Final = 15
TOKEN_MAX_AGE_S: Final = 600
MAX_TOKEN_CHARACTERS: Final = 4096

SERVER: Final = f"mist/{getattr(mist, '__version__', '0')}"

REASONS: Final[Mapping[int, str]] = {
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

CORS_HEADERS: Final = (
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Allow-Credentials: true\r\n"
    "Access-Control-Expose-Headers: *\r\n"
    "Access-Control-Max-Age: 600\r\n"
    "Access-Control-Allow-Methods: GET, POST, OPTIONS, HEAD\r\n"
    "Access-Control-Allow-Headers: *\r\n"
    "Access-Control-Request-Method: GET\r\n"
    "Access-Control-Request-Headers: *\r\n"
)
NO_CACHE_HEADERS: Final = "Cache-Control: no-cache, no-store, must-revalidate\r\nPragma: no-cache\r\nExpires: 0\r\n"

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_BAD_IN_PATH = re.compile(r"[\x00-\x1f\x7f]")
_BASE_URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]@%/+-]{1,1024}")
_HOST = re.compile(r"(?:[A-Za-z0-9._~%-]{1,255}|\[[0-9A-Fa-f:.%]{2,64}\])(?::[0-9]{1,5})?")
_TOKEN = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # cookie-octet, RFC 6265 section 4.1.1


class RequestRefused(RemoteProtocolError):
    """A request that gets an error reply and the end of its connection; status: the reply's code."""

    def __init__(self, status: int, message: str, *, spec: str = "") -> None:
        super().__init__(message, spec=spec)
        self.status = status


class HeadAnswered(MistError):
    """The request was a HEAD: its header is sent and no media is wanted. Not a failure, handlers only clean up."""

    reason = "CLEAN_EOF"


class RangeNotSatisfiable(MistError):
    """A Range header that names nothing of the document; size: of the document in bytes."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


def percent_decode(raw: bytes) -> str:
    """Decode %XX and then UTF-8; a broken escape stays as it is, a broken sequence becomes U+FFFD."""
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")


def split_target(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a request target into (authority, path, query), all still encoded.

    Origin form has an empty authority; absolute form loses its scheme; the asterisk form stays b"*".
    Raises RequestRefused (400) for anything else. Spec: RFC 9112 section 3.2.
    """
    authority = b""
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if separator and scheme.lower() in (b"http", b"https"):
            authority, slash, path = rest.partition(b"/")
            target = slash + path if slash else b"/"
        elif target != b"*":
            raise RequestRefused(400, "the request target is no path", spec="RFC 9112 section 3.2")
    target = target.partition(b"#")[0]
    path, _, query = target.partition(b"?")
    return authority, path, query


def decode_path(raw: bytes) -> str:
    """Decode a path; raises RequestRefused (400) when control characters are hidden in it."""
    path = percent_decode(raw)
    if _BAD_IN_PATH.search(path):
        raise RequestRefused(400, "the path has control characters")
    return path


def parse_query(raw: bytes) -> dict[str, str]:
    """Return the fields of a query string; the last of equal names wins, a name alone has the value "".

    Raises LimitExceededError over MAX_QUERY_FIELDS fields.
    """
    fields: dict[str, str] = {}
    if not raw:
        return fields
    pairs = raw.split(b"&", MAX_QUERY_FIELDS)
    if len(pairs) > MAX_QUERY_FIELDS:
        raise LimitExceededError(f"the query has more than {MAX_QUERY_FIELDS} fields")
    for pair in pairs:
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            fields[percent_decode(name)] = percent_decode(value)
    return fields


def parse_cookies(header: str) -> dict[str, str]:
    """Return the cookies of a Cookie header; the first of equal names wins (RFC 6265 section 5.4)."""
    cookies: dict[str, str] = {}
    for pair in header.split(";"):
        name, separator, value = pair.strip().partition("=")
        if separator:
            cookies.setdefault(name.strip(), value.strip().strip('"'))
    return cookies


def session_token(mode: int, query: Mapping[str, str], cookie: str, authorization: str) -> str:
    """Return the session token that a request carries, or "".

    mode: bits of `tknMode`. A bearer token always counts and wins; then the URL (jwt, tkn, sid, sessId), then cookies (jwt, tkn).
    A token that could not stand in a cookie or URL is ignored.
    """
    if not (query or cookie or authorization):
        return ""
    candidates: list[str] = []
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        candidates.append(credentials.strip())
    if mode & TOKEN_FROM_URL:
        candidates.extend(query.get(name, "") for name in ("jwt", "tkn", "sid", "sessId"))
    if mode & TOKEN_FROM_COOKIE and cookie:
        cookies = parse_cookies(cookie)
        candidates.extend(cookies.get(name, "") for name in ("jwt", "tkn"))
    for candidate in candidates:
        if candidate and len(candidate) <= MAX_TOKEN_CHARACTERS and _TOKEN.fullmatch(candidate):
            return candidate
    return ""


@lru_cache(1024)
def generated_token(user_agent: str, salt: str) -> str:
    """Return the decimal token of a viewer that brought none; salt: what differs between connections."""
    return str(zlib.crc32((user_agent + salt).encode("utf-8", "replace")))


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (start, end), end exclusive, of the one range a Range header asks for, or None for the whole document.

    size: bytes of the document. Several ranges are answered with the whole (RFC 9110 section 14.2 allows it).
    Raises RangeNotSatisfiable for another unit, a malformed range or one that lies outside.
    """
    if not header:
        return None
    unit, _, ranges = header.partition("=")
    if unit.strip().lower() != "bytes":
        raise RangeNotSatisfiable(f"no such range unit: only bytes, not {unit.strip()[:20]!r}", size)
    if "," in ranges:
        return None
    first, dash, last = ranges.strip().partition("-")
    if not dash or not (first + last).isascii() or not (first + last).isdigit() or len(first + last) > 40:
        raise RangeNotSatisfiable("malformed range", size)
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise RangeNotSatisfiable("the range is empty", size)
        return size - length, size
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    if start >= end:
        raise RangeNotSatisfiable("the range lies outside the document", size)
    return start, end


def asked_range(headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """Return the range that a request asks for, as `parse_range` does; headers: by lower-case name.

    With If-Range it wants the rest of a version that it has a part of. Documents made here have no validators, so that cannot
    be known to be this one, and it gets the whole (RFC 9110 section 13.1.5).   Raises RangeNotSatisfiable.
    """
    return None if headers.get("if-range") else parse_range(headers.get("range", ""), size)


def normalise_address(text: str) -> str:
    """Return an address as the statistics show it: IPv4-mapped IPv6 as dotted IPv4, no brackets, zone or port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped if mapped is not None else address)


class TrustedProxies:
    """Peers whose word about the viewer's address counts: the machine itself and what the operator lists."""

    def __init__(
        self,
        entries: Iterable[str] = (),
        resolve: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        """Take addresses, masks (`10.0.0.0/8`) and names; resolve turns a name into addresses, names are skipped without it."""
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [
            ipaddress.ip_network("127.0.0.0/8"),
            ipaddress.ip_network("::1/128"),
        ]
        self._answers: dict[str, bool] = {}
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                for address in resolve(entry) if resolve is not None else ():
                    self._networks.append(ipaddress.ip_network(address))

    def trusts(self, peer: str) -> bool:
        """Tell whether a normalised peer address may speak for others."""
        answer = self._answers.get(peer)
        if answer is None:
            try:
                address = ipaddress.ip_address(peer)
                answer = any(address in network for network in self._networks)
            except ValueError:
                answer = False
            if len(self._answers) >= 4096:
                self._answers.clear()
            self._answers[peer] = answer
        return answer


@dataclass(slots=True)
class HttpSettings:
    """What all connections of one listener share; the limits have names so that tests and operators can change them."""

    trusted: TrustedProxies = field(default_factory=TrustedProxies)
    token_mode: int = TOKEN_MODE_DEFAULT
    methods: frozenset[str] = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
    max_target_bytes: int = MAX_TARGET_BYTES
    max_header_bytes: int = MAX_HEADER_BYTES
    max_header_count: int = MAX_HEADER_COUNT
    max_body_bytes: int = MAX_BODY_BYTES
    max_pipelined: int = MAX_PIPELINED
    header_timeout_s: float = HEADER_TIMEOUT_S
    body_timeout_s: float = BODY_TIMEOUT_S
    idle_timeout_s: float = IDLE_TIMEOUT_S
    stall_timeout_s: float = STALL_TIMEOUT_S
    known: dict[bytes, Request] = field(
        default_factory=dict
    )  # requests that were read, by the bytes of their whole heads

    def remember(self, head: bytes, request: Request) -> None:
        """Keep a request without a body: who asks for a playlist again and again does so with the same bytes."""
        if len(self.known) >= MAX_KNOWN_HEADS:
            self.known.clear()
        self.known[head] = request.again(request.peer, "")


class Request:
    """One request as handlers see it.

    path: percent-decoded, without the query. headers: lower-case names; repeated ones joined by ", " (cookies by "; "); not to be
    changed.
    host: authority that the client used, checked, or "". peer: the viewer's address, behind trusted proxies too.
    stream: what matched the `$` of the pattern, as the client wrote it; rest: what follows a prefix match. named_token: the token
    that stood in place of the stream's name, or "". admitted: the stream that its viewer was found to be allowed to watch.
    """

    __slots__ = (
        "_forwarded", "_query", "_salt", "_settings", "_token", "admitted", "body", "headers", "host", "http10", "keep_alive", "method",
        "named_token", "path", "peer", "query_string", "rest", "stream", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: dict[str, str],
        settings: HttpSettings,
        peer: str = "",
        salt: str = "",
    ) -> None:
        """Check and take apart a request's target and headers; raises RequestRefused."""
        authority, path, self.query_string = split_target(target)
        self.method = method
        self.path = decode_path(path)
        self.headers = headers
        self.http10 = False
        self.keep_alive = True
        self.upgrade = False
        self.body = b""
        host = authority.decode("latin-1") if authority else headers.get("host", "")
        if host and _HOST.fullmatch(host) is None:
            raise RequestRefused(400, "the Host header is malformed", spec="RFC 9112 section 3.2")
        self.host = host
        self._forwarded = "x-real-ip" in headers or "x-forwarded-for" in headers
        self._settings = settings
        self._begin(peer, salt)

    def _begin(self, peer: str, salt: str) -> None:
        """Forget what handlers have found out."""
        self.peer = peer
        if self._forwarded and self._settings.trusted.trusts(peer):
            self.peer = _forwarded_peer(self.headers) or peer
        self._salt = salt
        self.stream = self.named_token = self.admitted = self.rest = ""
        self._query: dict[str, str] | None = None
        self._token: str | None = None

    def again(self, peer: str, salt: str) -> Request:
        """Return the request as it is when a connection brings the same bytes; for requests without a body."""
        one = Request.__new__(Request)
        one.method, one.path, one.query_string, one.headers = self.method, self.path, self.query_string, self.headers
        one.http10, one.keep_alive, one.upgrade, one.body = self.http10, self.keep_alive, self.upgrade, b""
        one.host, one._forwarded, one._settings = self.host, self._forwarded, self._settings
        one._begin(peer, salt)
        return one

    @property
    def query(self) -> dict[str, str]:
        """Return the fields of the query, last of equal names wins."""
        if self._query is None:
            self._query = parse_query(self.query_string)
        return self._query

    @property
    def token_mode(self) -> int:
        """Return the bits of `tknMode` that hold for this request."""
        return self._settings.token_mode

    @property
    def token(self) -> str:
        """Return the viewer's session token, made here when it brought none and the mode writes tokens."""
        if self._token is None:
            headers = self.headers
            mode = self._settings.token_mode
            token = session_token(
                mode,
                self.query,
                headers.get("cookie", ""),
                headers.get("authorization", ""),
            )
            if not token and mode > TOKEN_FROM_URL | TOKEN_FROM_COOKIE:
                token = generated_token(headers.get("user-agent", ""), self._salt)
            self._token = token
        return self._token

    @property
    def token_cookie(self) -> str:
        """Return the Set-Cookie value for a token that a handler asked for, or ""."""
        if not self._token or not self._settings.token_mode & TOKEN_TO_COOKIE:
            return ""
        return f"tkn={self._token}; Max-Age={TOKEN_MAX_AGE_S}"

    @property
    def public_base(self) -> str:
        """Return the server's public base URL as a proxy in front announced it (X-Mst-Path), without the last slash, or ""."""
        value = self.headers.get("x-mst-path", "")
        return value.rstrip("/") if _BASE_URL.fullmatch(value) else ""


def _forwarded_peer(headers: Mapping[str, str]) -> str:
    """Return the viewer's address from proxy headers or "": X-Forwarded-For's first entry, else X-Real-IP."""
    forwarded = normalise_address(headers.get("x-forwarded-for", "").partition(",")[0])
    return forwarded or normalise_address(headers.get("x-real-ip", ""))


def header_lines(headers: Mapping[str, str]) -> str:
    """Return header lines, to be sent as UTF-8; raises LocalProtocolError for a name or value that would break out of its line."""
    lines = []
    for name, value in headers.items():
        if HEADER_NAME.fullmatch(name) is None or _BAD_IN_VALUE.search(value):
            raise LocalProtocolError(f"illegal reply header {name!r}: {value!r}")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines)


_fixed_heads: dict[tuple[int, str, str | None, str], bytes] = {}


def fixed_head(status: int, content_type: str, cache: str | None, reason: str = "") -> bytes:
    """Return the part of a reply's head that repeats: status line, Server, CORS, Content-Type and caching.

    cache: None for never, else the Cache-Control value. Made once for equal arguments.
    """
    key = (status, content_type, cache, reason)
    head = _fixed_heads.get(key)
    if head is None:
        if _BAD_IN_VALUE.search(reason):
            raise LocalProtocolError(f"illegal reason phrase {reason!r}")
        text = f"HTTP/1.1 {status} {reason or REASONS.get(status, 'Status')}\r\nServer: {SERVER}\r\n{CORS_HEADERS}"
        text += NO_CACHE_HEADERS if cache is None else header_lines({"Cache-Control": cache})
        if content_type:
            text += header_lines({"Content-Type": content_type})
        head = text.encode("utf-8", "replace")
        if len(_fixed_heads) >= 512:
            _fixed_heads.clear()
        _fixed_heads[key] = head
    return head
