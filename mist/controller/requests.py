"""Commands in HTTP requests: the forms in which they come, and the text of a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from mist.errors import RemoteProtocolError
from mist.formats.json_text import dumps, loads_lenient

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_LENIENT_CHARACTERS = 1024 * 1024
MAX_FORM_FIELDS = 100
CALLBACK_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,127}")
_INT64 = 2**63


def parse_command(text: str | bytes) -> Any:
    """Return the value of a command's text, None when it has none: strict JSON first, which is fast, then the lenient form."""
    try:
        return json.loads(text, parse_int=_bounded_int, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _lenient_value(text)


def _lenient_value(text: str | bytes) -> Any:
    try:
        return loads_lenient(text, max_characters=MAX_LENIENT_CHARACTERS)
    except RemoteProtocolError:
        return None


def _bounded_int(digits: str) -> int:
    return max(min(int(digits), _INT64 - 1), -_INT64)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def read_body(request: Request) -> bytes | None:
    """Return the body of a request, None when it is too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def find_command(request: Request, body: bytes) -> tuple[dict[str, str], Any]:
    """Return the variables of a request (of its URL and its form), and the value of its command."""
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


def reply_text(reply: dict[str, Any], variables: Mapping[str, str]) -> str:
    """Return the text of a reply, as the argument of a function where a variable names one."""
    callback = variables.get("jsonp") or variables.get("callback") or ""
    text = dumps(reply)
    return f"{callback}({text});\n\n" if CALLBACK_NAME.fullmatch(callback) else f"{text}\n\n"
