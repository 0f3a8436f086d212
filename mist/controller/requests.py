"""Commands in HTTP requests: the forms in which they come, and the text of a reply."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mist.controller.turns import Turns
from mist.errors import Busy, LimitExceededError, RemoteProtocolError
from mist.formats.json_text import dumps_pieces, loads_lenient

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_STRANGER_BYTES = 1024 * 1024  # of a body whose sender is not logged in; a login and a command may come together
MAX_STRANGERS_BYTES = 32 * 1024 * 1024  # of all these bodies together, each counted from LARGE_BYTES on
MAX_LENIENT_CHARACTERS = 1024 * 1024
MAX_FORM_FIELDS = 100
CALLBACK_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,127}")
LARGE_BYTES = 64 * 1024  # of a request; it is read beside the event loop, which goes on
OUTER_LEVELS = 3  # of a command's text, whose members are read one by one
_INT64 = 2**63
_GAP = re.compile(r"[ \t\n\r]*")


def parse_command(text: str | bytes) -> Any:
    """Return the value of a command's text, None when it has none: strict JSON first, which is fast, then the lenient form."""
    try:
        if len(text) >= LARGE_BYTES:
            return _loads_by_members(text if isinstance(text, str) else str(text, json.detect_encoding(text)))
        return parse_strict(text)
    except (ValueError, RecursionError):
        return _lenient_value(text)


def parse_strict(text: str | bytes) -> Any:
    """Return the value of a JSON text, its numbers within the limits of clients. Raises ValueError, RecursionError."""
    return json.loads(text, parse_int=_bounded_int, parse_float=_finite, parse_constant=_no_constant)


def _loads_by_members(text: str) -> Any:
    """Do what `json.loads` does, which lets no other thread run until it is through. Raises ValueError."""
    value, end = _value(text, _gap(text, 0), OUTER_LEVELS)
    if _gap(text, end) != len(text):
        raise ValueError("something stands behind the value")
    return value


def _value(text: str, at: int, levels: int) -> tuple[Any, int]:
    """Return the value that begins at a place and where it ends. levels: of objects and lists that are read member by member."""
    opening = text[at : at + 1]
    if not levels or opening not in ("{", "["):
        return _DECODER.raw_decode(text, at)
    members: list[Any] = []
    keys: list[str] = []
    closing = "}" if opening == "{" else "]"
    at = _gap(text, at + 1)
    while text[at : at + 1] != closing or members:
        if opening == "{":
            if text[at : at + 1] != '"':
                raise ValueError("a member has no name")
            key, at = _DECODER.raw_decode(text, at)
            keys.append(key)
            at = _gap(text, _past(text, at, ":"))
        member, at = _value(text, at, levels - 1)
        members.append(member)
        at = _gap(text, at)
        if text[at : at + 1] == closing:
            break
        at = _gap(text, _past(text, at, ","))
    return (dict(zip(keys, members, strict=True)) if opening == "{" else members), at + 1


def _gap(text: str, at: int) -> int:
    """Return the place behind blanks."""
    found = _GAP.match(text, at)
    assert found is not None
    return found.end()


def _past(text: str, at: int, sign: str) -> int:
    """Return the place behind a sign that must come next, after blanks. Raises ValueError."""
    at = _gap(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign} is missing")
    return at + 1


def _lenient_value(text: str | bytes) -> Any:
    try:
        return loads_lenient(text, max_characters=MAX_LENIENT_CHARACTERS)
    except RemoteProtocolError:
        return None


def _bounded_int(digits: str) -> int:
    return max(min(int(digits), _INT64 - 1), -_INT64)


def _finite(text: str) -> float:
    """Return a number, the largest one for what is beyond it (`1e400`), as the lenient reader does."""
    value = float(text)
    return value if math.isfinite(value) else math.copysign(sys.float_info.max, value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_bounded_int, parse_float=_finite, parse_constant=_no_constant)


class BodyReader:
    """Reads the bodies of all requests. Those of strangers, who are not logged in, are short, and bounded all together."""

    def __init__(self) -> None:
        self._held_bytes = 0  # of strangers, what is over LARGE_BYTES in each body

    async def read(self, request: Request, *, known: bool) -> bytes:
        """Return the body of a request. Raises LimitExceededError for a long one, Busy when there are too many of strangers."""
        most = MAX_BODY_BYTES if known else MAX_STRANGER_BYTES
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > most:
            raise _too_long(known)
        body = bytearray()
        held = 0
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise _too_long(known)
                if not known:
                    more = max(0, len(body) - LARGE_BYTES) - held
                    held += more
                    self._held_bytes += more
                    if self._held_bytes > MAX_STRANGERS_BYTES:
                        raise Busy("Too many long commands at once from clients that are not logged in")
            return bytes(body)
        finally:
            self._held_bytes -= held


def _too_long(known: bool) -> LimitExceededError:
    if known:
        return LimitExceededError(f"A command may be {MAX_BODY_BYTES} bytes long")
    return LimitExceededError(f"A command may be {MAX_STRANGER_BYTES} bytes long on a connection that is not logged in")


async def find_command(request: Request, body: bytes) -> tuple[dict[str, str], Any]:
    """Return the variables of a request (of its URL and its form), and the value of its command."""
    if len(body) < LARGE_BYTES:
        return _find_command(request, body)
    return await asyncio.to_thread(_find_command, request, body)


def _find_command(request: Request, body: bytes) -> tuple[dict[str, str], Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    variables = _variables(request.url.query)
    if kind == "application/json":
        return variables, parse_command(body)
    if kind == "application/x-www-form-urlencoded":
        variables.update(_variables(body.decode("utf-8", "replace")))
    return variables, parse_command(variables.get("command", ""))


def _variables(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        return {}


def _reply_pieces(reply: dict[str, Any], variables: Mapping[str, str]) -> list[str]:
    """Return the text of a reply in pieces, as the argument of a function where a variable names one."""
    callback = variables.get("jsonp") or variables.get("callback") or ""
    pieces = dumps_pieces(reply)
    return [f"{callback}(", *pieces, ");\n\n"] if CALLBACK_NAME.fullmatch(callback) else [*pieces, "\n\n"]


class Reply(Response):
    """The reply to a command. A large one is sent in turns, and never copied as a whole."""

    def __init__(self, reply: dict[str, Any], variables: Mapping[str, str], headers: Mapping[str, str]) -> None:
        pieces = _reply_pieces(reply, variables)
        size = sum(map(len, pieces))  # it is all ASCII
        self._rest: list[str] = []
        if size < LARGE_BYTES:
            super().__init__("".join(pieces), 200, headers)
        else:
            super().__init__(None, 200, {**headers, "Content-Length": str(size)})
            self._rest = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._rest:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        turns = Turns()
        for body in _joined(self._rest):
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await turns()
        await send({"type": "http.response.body", "body": b""})


def _joined(pieces: list[str]) -> Iterator[bytes]:
    """Yield a text in pieces that are worth sending alone."""
    some: list[str] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= LARGE_BYTES:
            yield "".join(some).encode()
            some, size = [], 0
    yield "".join(some).encode()
