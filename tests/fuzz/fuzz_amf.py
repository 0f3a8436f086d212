"""Fuzz target: AMF 0 and AMF 3 values."""

from __future__ import annotations

from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats import amf


def fuzz(data: bytes) -> None:
    """Read it as values of both versions; what was read from AMF 0 must survive writing, unless it is cyclic or too deep."""
    try:
        amf.decode3(data)
    except RemoteProtocolError:
        pass
    try:
        values = amf.decode_all(data)
    except RemoteProtocolError:
        return
    try:
        written = amf.encode(*values)
    except LocalProtocolError:
        return
    except UnicodeEncodeError as error:
        raise RuntimeError("text that cannot be written") from error
    if len(written) < 1 << 20 and len(amf.decode_all(written)) != len(values):
        raise RuntimeError("other values come back")
