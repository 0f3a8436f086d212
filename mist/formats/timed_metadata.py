"""How timed metadata is named in MP4: by a URI, as a track's sample entry and as an event beside the fragments; JSON by its media type.

Spec: ISO/IEC 14496-12 (2022) clause 12.3.3 (metadata sample entries); ISO/IEC 23009-1 clause 5.10.3.3 (`emsg`); AOM "Carriage of ID3 Timed
Metadata in CMAF"; SCTE 214-3 section 7; MISB ST 1910.1 (KLV).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mist.errors import RemoteProtocolError
from mist.formats.tracks import ID3, JSON, KLV, META, SCTE35, TrackInfo

SCHEMES: Final[Mapping[str, str]] = {
    ID3: "https://aomedia.org/emsg/ID3",
    SCTE35: "urn:scte:scte35:2013:bin",
    KLV: "urn:misb:KLV:bin:1910.1",
}
_CODECS: Final[Mapping[str, str]] = {
    **{scheme: codec for codec, scheme in SCHEMES.items()},
    "https://developer.apple.com/streaming/emsg-id3": ID3,  # of older packagers
    "urn:scte:scte35:2014:bin": SCTE35,
}
JSON_MEDIA_TYPE: Final = "application/json"
CODECS: Final = frozenset({JSON, *SCHEMES})

_ENTRY_HEAD: Final = struct.pack(">6xH", 1)
_EVENT_SPEC: Final = "ISO/IEC 23009-1 clause 5.10.3.3"
_MAX_TIME_US: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a kind that is carried.

    info: of its track. time_us: when it is due, on the movie's clock, or after the beginning of the next fragment if relative.
    identity: what repetitions of it have in common. payload: the message.
    """

    info: TrackInfo
    time_us: int
    relative: bool
    identity: tuple[str, str, int]
    payload: bytes


def parse_event(content: bytes, offset: int) -> Event | None:
    """Return the event of an `emsg` box, None for one of another kind. content: behind the box's header. offset: its byte in the file.

    Raises RemoteProtocolError for a box that is cut off, of no ticks a second, or of a time past 2^60 microseconds.
    """
    version = content[0] if content else 0
    try:
        if version == 0:
            scheme, value, rest = _texts(content[4:])
            timescale, ticks, _duration, number = struct.unpack_from(">IIII", rest)
            payload = rest[16:]
        elif version == 1:
            timescale, ticks, _duration, number = struct.unpack_from(">IQII", content, 4)
            scheme, value, payload = _texts(content[24:])
        else:
            return None
    except (struct.error, ValueError):
        raise RemoteProtocolError("an emsg box that is cut off", offset=offset, spec=_EVENT_SPEC) from None
    codec = codec_of(scheme)
    if not codec or not payload:
        return None
    if not timescale or ticks * 1_000_000 // timescale > _MAX_TIME_US:
        raise RemoteProtocolError(f"an event at tick {ticks} of {timescale} a second", offset=offset, spec=_EVENT_SPEC)
    time_us = (ticks * 1_000_000 + timescale // 2) // timescale
    return Event(TrackInfo(META, codec), time_us, version == 0, (scheme, value, number), payload)


def _texts(data: bytes) -> tuple[str, str, bytes]:
    """Return the two texts that data begins with, and the rest. Raises ValueError."""
    first = data.index(b"\0")
    second = data.index(b"\0", first + 1)
    return (
        data[:first].decode("utf-8", "replace"),
        data[first + 1 : second].decode("utf-8", "replace"),
        data[second + 1 :],
    )


def codec_of(scheme: str) -> str:
    """Return the codec that a URI names, "" for one that is not carried."""
    return _CODECS.get(scheme, "")


def sample_entry(codec: str) -> bytes:
    """Return the sample entry of a metadata track: `mett` for JSON, else `urim`. codec: one of CODECS."""
    if codec == JSON:
        return _box(b"mett", _ENTRY_HEAD + b"\0" + JSON_MEDIA_TYPE.encode() + b"\0")
    return _box(b"urim", _ENTRY_HEAD + _box(b"uri ", bytes(4) + SCHEMES[codec].encode() + b"\0"))


def codec_of_text(content: bytes) -> str:
    """Return the codec of a `mett` entry, "" if it is not carried. content: what is behind its head: content encoding and media type."""
    encoding, _, rest = content.partition(b"\0")
    media_type = rest.partition(b"\0")[0].partition(b";")[0].strip().lower()
    return JSON if not encoding and media_type == JSON_MEDIA_TYPE.encode() else ""


def codec_of_uri(content: bytes) -> str:
    """Return the codec of a `urim` entry, "" if it is not carried. content: of its box `uri `, with version and flags."""
    return codec_of(content[4:].partition(b"\0")[0].decode("utf-8", "replace"))


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
