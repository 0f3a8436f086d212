"""Files on http(s) servers, read by position with range requests; broken and stalled connections are made again."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

import mist
from mist.errors import ConnectTimeout, RemoteProtocolError, TransportError, UnsupportedError
from mist.net import s3
from mist.net.dial import client_context
from mist.net.remote_schemes import without_password
from mist.net.source_reader import SOURCE_CHANGED, SourceReader

MAX_REDIRECTS: Final = 6
TRIES: Final = 5  # without a byte between them
STALL_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.2  # before the second try; doubles
SKIP_BYTES: Final = 1 << 18  # so little is read and thrown away rather than asked for anew
READ_BYTES: Final = 1 << 18

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_WORTH_ANOTHER_TRY: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(?:(\d{1,18})|\*)")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_T = TypeVar("_T")


class HttpStatus(TransportError):
    """The server answers with something else than the file. status: of HTTP."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, reason=f"HTTP_{status}")
        self.status = status


class _TryAgain(Exception):
    """A failure that another connection may mend."""


class HttpReader(SourceReader):
    """One file on a server. A file that becomes another while it is read is an error; ETag, Last-Modified and length tell.

    Reading on is one open request. After a jump only what is wanted is asked for, so that the connection can be kept.
    """

    def __init__(
        self,
        url: str,
        *,
        stall_s: float = STALL_S,
        tries: int = TRIES,
        pause: Callable[[float], object] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take a URL, in which user and password may stand, and ask for its first byte. A URL of S3 is signed with the keys in it.

        stall_s: a server that is silent for so long is asked again. tries: without a byte between them.
        pause: waits before another try. headers: more to send.
        Raises TransportError, whose reason is "HTTP_" and the status for what the server answered.
        """
        self.name = without_password(url)
        self._sign: Callable[[str, str], Mapping[str, str]] | None = None
        if s3.is_s3(url):
            url, keys = s3.split_source(url)
            self._sign = None if keys is None else keys.sign
        self._url = self.url = url  # url: where redirects led
        self._headers = headers
        self._stall_s = stall_s
        self._tries = tries
        self._stopped = threading.Event()
        self._pause = pause or self._stopped.wait
        self._connection: http.client.HTTPConnection | None = None
        self._connected_to: tuple[str, str] = ("", "")
        self._response: http.client.HTTPResponse | None = None
        self._at = 0
        self._bounded = False
        self._says_its_end = False
        self._identity: tuple[str, str] | None = None
        self._again(0, lambda: self._request(0, None))

    def read(self, position: int, count: int) -> bytes:
        """Return bytes from a position."""
        if self.size is not None and position >= self.size:
            return b""
        return self._again(position, lambda: self._read(position, count))

    @property
    def says_its_end(self) -> bool:
        """Whether the reply tells where it is complete, so that an end can be told from a broken connection."""
        return self._says_its_end

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def stop(self) -> None:
        """End what another thread reads, with an error there. The reader is of no use afterwards."""
        self._stopped.set()
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def position(self) -> int:
        """The byte that comes next without another request."""
        return self._at

    @property
    def validators(self) -> tuple[str, str]:
        """What tells this file from later ones: the headers ETag and Last-Modified, empty where the server has none."""
        return self._identity or ("", "")

    # -- reading -----------------------------------------------------------------------------------------------------

    def _again(self, position: int, action: Callable[[], _T]) -> _T:
        """Do something until it works, or has failed as often as it may."""
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(self._tries)):
            try:
                return action()
            except TransportError:
                self._drop()
                raise
            except (_TryAgain, OSError, http.client.HTTPException) as error:
                self._drop()
                if isinstance(error, ssl.SSLCertVerificationError) or not left or self._stopped.is_set():
                    kind = ConnectTimeout if isinstance(error, TimeoutError) else TransportError
                    raise kind(f"{self.name}: byte {position}: {self._words(error)}") from error
            self._pause(pause_s)
            pause_s *= 2
        raise AssertionError("the last try returns or raises")

    def _words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"the server was silent for {self._stall_s:g} s, {self._tries} times"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the server's certificate is not to be trusted: {error.verify_message}"
        if isinstance(error, OSError):
            return error.strerror or str(error) or type(error).__name__
        return str(error) or type(error).__name__

    def _read(self, position: int, count: int) -> bytes:
        if self._response is not None and 0 < position - self._at <= SKIP_BYTES:
            self._skip(position)
        if self._response is None or position != self._at:
            self._jump(position, count)
        if self._response is None:  # there are no bytes from this position on
            return b""
        data = self._response.read1(count)
        if data:
            self._at += len(data)
            return data
        return self._end(position, count)

    def _end(self, position: int, count: int) -> bytes:
        """Go on after a reply that is over: it was as long as it should be, or the connection broke, or the file ends."""
        self._response = None
        if self.size is None:
            self.size = position
        if position >= self.size:
            return b""
        if not self._bounded:
            raise _TryAgain(f"the server closed the connection, {self.size - position} bytes before the end")
        self._request(position, None)
        return self._read(position, count)

    def _jump(self, position: int, count: int) -> None:
        """Ask for a position; where the server knows no ranges, read up to it."""
        if not self.can_jump and position < self._at:
            raise UnsupportedError(
                f"byte {position} is needed after byte {self._at}, and the server answers no ranges", offset=position
            )
        fresh = self._response is None and position == self._at
        if self._response is not None and not self.can_jump:
            self._skip(position)
            return
        self._request(position, None if fresh else max(count, READ_BYTES))
        if self._response is not None and self._at < position:
            self._skip(position)

    def _skip(self, position: int) -> None:
        assert self._response is not None
        while self._at < position:
            data = self._response.read1(min(position - self._at, READ_BYTES))
            if not data:
                self._response = None
                return
            self._at += len(data)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _request(self, position: int, count: int | None) -> None:
        """Ask for bytes from a position, all or so many, and set what the reply says; follows redirects."""
        if self._response is not None:
            self._drop()
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._ask(url, position, count)
            if response.status not in _REDIRECTS:
                self.url = url
                self._take(response, position, count)
                return
            self._drop()
            url = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme not in _DEFAULT_PORTS:
                raise TransportError(f"{self.name}: the server redirects to {without_password(url)}")
        raise TransportError(f"{self.name}: more than {MAX_REDIRECTS} redirects")

    def _ask(self, url: str, position: int, count: int | None) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        last = "" if count is None else str(position + count - 1)
        headers = {
            "User-Agent": f"mist/{mist.__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Range": f"bytes={position}-{last}",
        }
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode("ascii")
        headers.update(self._headers)
        if self._sign is not None:
            headers.update(self._sign("GET", url))
        proxy = _proxy(parts)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        if proxy is not None and parts.scheme == "http":
            target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
        connection = self._connect(parts, proxy)
        connection.request("GET", target, headers=headers)
        return connection.getresponse()

    def _connect(self, parts: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
        """Return a connection to a server, the open one if it is to the same."""
        where = (parts.scheme, parts.netloc)
        if self._connection is not None and self._connected_to == where:
            return self._connection
        self._drop()
        if not parts.hostname:
            raise TransportError(f"{self.name}: there is no host in this address")
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        host, at = (parts.hostname, port) if proxy is None else (proxy.hostname or "", proxy.port or 3128)
        if parts.scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, at, timeout=self._stall_s, context=client_context(True)
            )
            if proxy is not None:
                made.set_tunnel(parts.hostname, port)
        else:
            made = http.client.HTTPConnection(host, at, timeout=self._stall_s)
        self._connection, self._connected_to = made, where
        return made

    def _take(self, response: http.client.HTTPResponse, position: int, count: int | None) -> None:
        """Look at a reply that is no redirect."""
        if response.status in _WORTH_ANOTHER_TRY:
            raise _TryAgain(f"the server answers {response.status} {response.reason}")
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 416 and (self.size is None or position >= self.size):
            self._drop()
            self.size = int(found[2]) if found and found[2] else position
            return
        if response.status == 416:
            self._drop()
            text = f"the file ends before this byte now; it had {self.size} bytes"
            raise RemoteProtocolError(text, offset=position, reason=SOURCE_CHANGED)
        if response.status not in (200, 206):
            said = s3.error_text(response.read(s3.MAX_ERROR_BYTES))
            self._drop()
            text = f"the server answers {response.status} {response.reason}" + (f" ({said})" if said else "")
            place = f"byte {position}: " if position else ""
            raise HttpStatus(f"{self.name}: {place}{text}", response.status)
        ranged = response.status == 206
        if ranged and (found is None or found[1] is None or int(found[1]) != position):
            raise _TryAgain("the server answers with other bytes than those asked for")
        total = found[2] if ranged and found else response.headers.get("Content-Length")
        self._compare(response, int(total) if total and total.isdecimal() else None, position)
        self.can_jump = ranged
        self._at = position if ranged else 0
        self._bounded = ranged and count is not None
        self._says_its_end = response.chunked or self.size is not None
        self._response = response

    def _compare(self, response: http.client.HTTPResponse, total: int | None, position: int) -> None:
        """Notice that the file is not the one whose first bytes were read."""
        identity = (response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
        if self._identity is None:
            self._identity, self.size = identity, total
            return
        tag, modified = self._identity
        other_tag = tag and identity[0] and tag != identity[0]
        other_time = not (tag and identity[0]) and modified and identity[1] and modified != identity[1]
        other_size = self.size is not None and total is not None and total != self.size
        if other_tag or other_time or other_size:
            self._drop()
            raise RemoteProtocolError(
                "the file changed on the server while it was read", offset=position, reason=SOURCE_CHANGED
            )

    def _drop(self) -> None:
        self._response = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment sets for a server."""
    from urllib.request import getproxies, proxy_bypass  # with much that nothing else needs

    found = getproxies().get(parts.scheme)
    if not found or proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")
