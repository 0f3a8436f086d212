"""Script data of FLV and RTMP written: onMetaData, and the documents of JSON tracks as AMF 0 values.

Spec: Adobe AMF 0; FLV E.4.4 and E.5.
"""

import json
import struct

METADATA = "onMetaData"
UNNAMED = "onJSON"              # the name of a document that is no list with a name in front
# Messages that are about the connection or describe the other tracks.
ABOUT_THE_STREAM = frozenset((METADATA, "@setDataFrame", "@clearDataFrame", "|RtmpSampleAccess", "onStatus", "onPlayStatus"))
MAX_SCRIPT_BYTES = 1 << 20      # of one message, as receivers bound them

cdef enum:
    MAX_DEPTH = 32
    MAX_SHORT = 0xFFFF


def amf_value(value, int depth=0):
    """Return what JSON knows as an AMF 0 value. Raises ValueError for what is nested too deeply, RecursionError."""
    if value is None:
        return b"\x05"
    if isinstance(value, bool):
        return b"\x01\x01" if value else b"\x01\x00"
    if isinstance(value, (int, float)):
        return struct.pack(">Bd", 0, float(value))
    if isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        return struct.pack(">BH", 2, len(raw)) + raw if len(raw) <= MAX_SHORT else struct.pack(">BI", 12, len(raw)) + raw
    if depth >= MAX_DEPTH:
        raise ValueError(f"a document nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        return b"\x03" + properties(value, depth)
    return struct.pack(">BI", 10, len(value)) + b"".join([amf_value(item, depth + 1) for item in value])


cdef bytes properties(dict values, int depth):
    """Return names, values and the end mark of an object; what has no name, or too long a one, is left out."""
    cdef list parts = []
    for name, value in values.items():
        raw = name.encode("utf-8", "replace")
        if 0 < len(raw) <= MAX_SHORT:
            parts += (struct.pack(">H", len(raw)), raw, amf_value(value, depth + 1))
    parts.append(b"\x00\x00\x09")
    return b"".join(parts)


def metadata_body(dict values not None):
    """Return the body of an onMetaData tag or message."""
    return amf_value(METADATA) + struct.pack(">BI", 8, len(values)) + properties(values, 0)


def script_body(bytes document not None):
    """Return a JSON document as the values of script data: a list that begins with a name as they are, anything else named onJSON.

    Text that is no JSON is taken for a string. Returns b"" for what has no form in AMF, or too long a one.
    """
    try:
        text = document.decode("utf-8", "replace")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        named = isinstance(value, list) and value and isinstance(value[0], str) and value[0] not in ABOUT_THE_STREAM
        values = value if named else [UNNAMED, value]
        body = b"".join([amf_value(one) for one in values])
    except (ValueError, RecursionError, OverflowError):
        return b""
    return body if len(body) <= MAX_SCRIPT_BYTES else b""
