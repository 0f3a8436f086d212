"""What the codecs of Xiph.org share: header packets laced into one block, and comments.

Spec: Matroska codec specifications, "Xiph lacing" (RFC 9559 section 10.3.2); Vorbis I section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError
from mist.formats.languages import UNDETERMINED, canonical

VENDOR: Final = b"mist"
MAX_LACED_PACKETS: Final = 256
MAX_COMMENTS: Final = 10_000
LONG_COMMENTS_BYTES: Final = 8192  # a comment header beyond this holds a picture

_LACING_SPEC: Final = "RFC 9559 section 10.3.2"
_COMMENT_SPEC: Final = "Vorbis I section 5.2.1"


def lace(packets: Sequence[bytes]) -> bytes:
    """Return packets (1 to 256) as one block: their number less one, the sizes of all but the last, the packets."""
    if not 1 <= len(packets) <= MAX_LACED_PACKETS:
        raise LocalProtocolError(f"{len(packets)} packets cannot be laced")
    sizes = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets[:-1])
    return bytes((len(packets) - 1,)) + sizes + b"".join(packets)


def unlace(data: bytes) -> list[bytes]:
    """Return the packets of a block that `lace` makes; raise RemoteProtocolError."""
    if not data:
        raise TruncatedError("an empty laced block", offset=0, spec=_LACING_SPEC)
    place, sizes = 1, []
    for _ in range(data[0]):
        size = 0
        while True:
            if place >= len(data):
                raise TruncatedError("a laced block ends in its sizes", offset=place, spec=_LACING_SPEC)
            size += data[place]
            place += 1
            if data[place - 1] != 255:
                break
        sizes.append(size)
    if place + sum(sizes) > len(data):
        raise TruncatedError("a laced block is shorter than its sizes say", offset=place, spec=_LACING_SPEC)
    packets = []
    for size in sizes:
        packets.append(data[place : place + size])
        place += size
    return [*packets, data[place:]]


def parse_comments(data: bytes) -> tuple[bytes, dict[str, str]]:
    """Return vendor and comments (names in capitals, the first of each name) of a comment header without its magic.

    Raises RemoteProtocolError.   Spec: Vorbis I section 5.2.1.
    """
    vendor, place = _string(data, 0)
    count, place = _length(data, place)
    comments: dict[str, str] = {}
    for _ in range(min(count, MAX_COMMENTS)):
        entry, place = _string(data, place)
        name, _, value = entry.decode("utf-8", "replace").partition("=")
        comments.setdefault(name.upper(), value)
    return vendor, comments


def _length(data: bytes, place: int) -> tuple[int, int]:
    if place + 4 > len(data):
        raise TruncatedError("a comment header ends in a length", offset=place, spec=_COMMENT_SPEC)
    return int.from_bytes(data[place : place + 4], "little"), place + 4


def _string(data: bytes, place: int) -> tuple[bytes, int]:
    size, place = _length(data, place)
    if size > len(data) - place:
        raise TruncatedError("a comment is longer than its header", offset=place, spec=_COMMENT_SPEC)
    return data[place : place + size], place + size


def build_comments(vendor: bytes = VENDOR, comments: Mapping[str, str] | None = None) -> bytes:
    """Return a comment header without magic and framing bit."""
    entries = [f"{name}={value}".encode() for name, value in (comments or {}).items()]
    packed = b"".join(len(entry).to_bytes(4, "little") + entry for entry in entries)
    return len(vendor).to_bytes(4, "little") + vendor + len(entries).to_bytes(4, "little") + packed


def language_of(data: bytes) -> str:
    """Return the language that a comment header without its magic names, ISO 639-2; "und" where it names none or is broken."""
    try:
        _, comments = parse_comments(data)
    except RemoteProtocolError:
        return UNDETERMINED
    return canonical(comments.get("LANGUAGE", ""))
