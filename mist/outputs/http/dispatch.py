"""From a URL to the output that answers it, and from an error to its reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mist.errors import (
    AccessDenied,
    Busy,
    LimitExceededError,
    LocalProtocolError,
    MistError,
    PeerClosed,
    RemoteProtocolError,
    SharedMemoryFull,
    StreamError,
)
from mist.net.http_messages import RangeNotSatisfiable, RequestRefused
from mist.outputs.base.refusal_text import refusal_text

# The first fitting row says how an error looks to a client: status code and, where it differs from the usual, the phrase.
ERROR_STATUS: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (Busy, 409, ""),
    (SharedMemoryFull, 503, ""),
    (StreamError, 404, "Error opening stream"),
    (AccessDenied, 403, ""),
    (RangeNotSatisfiable, 416, ""),
    (LimitExceededError, 400, ""),
    (RemoteProtocolError, 400, ""),
    (LocalProtocolError, 500, ""),
    (PeerClosed, 503, ""),
    (MistError, 500, ""),
)


MAX_KNOWN_PATHS: Final = 1024
MAX_KNOWN_PATH_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Route:
    """What a URL leads to. stream: what matched the `$`, as the client wrote it; rest: what follows a prefix."""

    output: Any
    stream: str = ""
    rest: str = ""


class Routes:
    """The URL patterns of all outputs, found by look-up: an exact path, a first folder, or the file's extension."""

    def __init__(self, outputs: Iterable[Any]) -> None:
        """Take the patterns from the capability documents; for equal patterns the first output in the order given wins."""
        self._exact: dict[str, Any] = {}
        self._folders: dict[str, list[tuple[str, str, bool, Any]]] = {}
        self._extensions: dict[str, list[tuple[str, str, Any]]] = {}
        self._known: dict[str, Route] = {}  # by path, of those that were asked for
        for output in outputs:
            for pattern in output.capability.url_match:
                self._add(pattern, False, output)
            for pattern in output.capability.url_prefix:
                self._add(pattern, True, output)
        for folder in self._folders.values():
            folder.sort(key=lambda entry: len(entry[0]) + len(entry[1]), reverse=True)
        for extension in self._extensions.values():
            extension.sort(key=lambda entry: len(entry[0]), reverse=True)

    def _add(self, pattern: str, prefix: bool, output: Any) -> None:
        front, dollar, back = pattern.partition("$")
        if not dollar:
            self._exact.setdefault(pattern, output)
        elif "/" in front[1:] or prefix:
            self._folders.setdefault(front[1:].partition("/")[0], []).append((front, back, prefix, output))
        else:
            self._extensions.setdefault(_extension(back), []).append((front, back, output))

    def find(self, path: str) -> Route | None:
        """Return what answers a decoded path, or None."""
        route = self._known.get(path)
        if route is None:
            route = self._look_up(path)
            if route is not None and len(path) <= MAX_KNOWN_PATH_CHARACTERS:
                if len(self._known) >= MAX_KNOWN_PATHS:
                    self._known.clear()
                self._known[path] = route
        return route

    def _look_up(self, path: str) -> Route | None:
        output = self._exact.get(path)
        if output is not None:
            return Route(output)
        folder, slash, _ = path[1:].partition("/")
        if slash:
            for front, back, prefix, output in self._folders.get(folder, ()):
                route = _match_folder(path, front, back, prefix, output)
                if route is not None:
                    return route
            return None
        for front, back, output in self._extensions.get(_extension(path), ()):
            if len(path) > len(front) + len(back) and path.startswith(front) and path.endswith(back):
                return Route(output, path[len(front) : len(path) - len(back)])
        return None


def _extension(path: str) -> str:
    return path[path.rfind(".") :] if "." in path else ""


def _match_folder(path: str, front: str, back: str, prefix: bool, output: Any) -> Route | None:
    """Match a path against `front$back`, where the `$` has no slash and a prefix may be followed by anything."""
    if not path.startswith(front):
        return None
    remaining = path[len(front) :]
    if prefix and back:
        stream, found, rest = remaining.partition(back)
        return Route(output, stream, rest) if found and stream and "/" not in stream else None
    if prefix:
        stream, _, rest = remaining.partition("/")
        return Route(output, stream, rest) if stream else None
    stream = remaining.removesuffix(back) if back else remaining
    if not stream or "/" in stream or not remaining.endswith(back):
        return None
    return Route(output, stream)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """How an error is told to a client."""

    status: int
    reason: str
    body: bytes
    headers: Mapping[str, str]


def error_reply(error: Exception) -> ErrorReply:
    """Return the reply for an error. What is no MistError is our defect and says nothing of its inside."""
    status, reason = 500, ""
    for kind, code, phrase in ERROR_STATUS:
        if isinstance(error, kind):
            status, reason = code, phrase
            break
    if isinstance(error, RequestRefused):
        status = error.status
    text = "Internal server error"
    if isinstance(error, RequestRefused):
        text = str(error)
    elif isinstance(error, MistError):
        text = refusal_text(error, error.reason)
    if isinstance(error, StreamError):
        text = f"Could not retrieve stream: {text}"
    headers = {"Content-Range": f"bytes */{error.size}"} if isinstance(error, RangeNotSatisfiable) else {}
    return ErrorReply(status, reason, f"{text}\n".encode("utf-8", "replace"), headers)
