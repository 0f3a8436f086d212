"""Script data of FLV and data messages of RTMP, read: AMF values as JSON documents, one for each message.

What JSON has no form for becomes what comes nearest: a date the milliseconds since 1970, bytes base64, undefined and numbers without a
value null.   Spec: Adobe AMF 0 and 3, FLV E.4.4.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any, Final

from mist.core.script_data import UNNAMED
from mist.errors import LimitExceededError
from mist.formats.amf import MAX_VALUES, Date

MAX_DEPTH: Final = 64  # references can make a value that contains itself
MAX_DOCUMENT_BYTES: Final = 1 << 20


class _Count:
    """How many values a document has: references can name one value a million times."""

    def __init__(self) -> None:
        self.values = 0

    def take(self, depth: int) -> None:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise LimitExceededError(f"script data of over {MAX_VALUES} values or {MAX_DEPTH} levels", spec="FLV E.4.4")


def _plain(value: Any, count: _Count, depth: int = 0) -> Any:
    """Return an AMF value as JSON has it."""
    count.take(depth)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return (int(value) if value.is_integer() and abs(value) < 1 << 53 else value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(item, count, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, count, depth + 1) for item in value]
    if isinstance(value, Date):
        return _plain(value.unix_ms, count, depth)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else None


def document_of(values: Sequence[Any]) -> bytes:
    """Return the document that the values of a message are: the list of them, or what was sent as a document without a name.

    Raises LimitExceededError.
    """
    count = _Count()
    plain = [_plain(value, count) for value in values]
    found = plain[1] if len(plain) == 2 and plain[0] == UNNAMED else plain
    document = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    if len(document) > MAX_DOCUMENT_BYTES:
        raise LimitExceededError(f"script data of {len(document)} bytes as JSON", spec="FLV E.4.4")
    return document
