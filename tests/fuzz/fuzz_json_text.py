"""Fuzz target: the reader and writer of the control API's JSON."""

from __future__ import annotations

import json

from mist.errors import RemoteProtocolError
from mist.formats.json_text import dumps, loads_lenient


def fuzz(data: bytes) -> None:
    """Read any bytes; what was read can be written, and reads the same again, by us and by a strict reader."""
    try:
        value = loads_lenient(data)
    except RemoteProtocolError:
        return
    text = dumps(value)
    if not text.isascii() or not text.isprintable():
        raise RuntimeError(f"not printable ASCII: {text!r}")
    if dumps(loads_lenient(text)) != text:
        raise RuntimeError(f"{text!r} does not read as it was written")
    json.loads(text)
