"""What HTTP Live Streaming puts around media: which playlists a presentation has, byte ranges, keys, and the times of segments.

Knows no socket and no clock; `mist.inputs.hls` fetches what is named here.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.errors import LimitExceededError, RemoteProtocolError, UnsupportedError
from mist.formats.containers import by_first_bytes
from mist.formats.languages import canonical
from mist.formats.m3u8 import Key, MasterPlaylist, Segment
from mist.formats.sniffing import SNIFF_BYTES
from mist.formats.subtitles import parse_cues, to_packets
from mist.formats.tracks import META, SUBTITLE, TrackInfo

SPEC: Final = "RFC 8216 section "
MAX_RENDITIONS: Final = 16
MAX_SEGMENT_BYTES: Final = 96 << 20
MAX_PACKETS: Final = 1 << 18  # of one segment
MAX_TAGS_BYTES: Final = 1 << 20  # of ID3 before packed audio
WRAP_US: Final = (1 << 33) * 100 // 9  # MPEG-2 time stamps have 33 bits of 90 kHz
KEY_BYTES: Final = 16
SAME_US: Final = 1000  # texts of different segments that are no further from each other have the same time
NO_TRACKS: Final = "a segment without tracks that mist can read"

_ID3: Final = struct.Struct(">3sBBBBBBB")
_OWNER: Final = b"com.apple.streaming.transportStreamTimestamp\0"
_TIMESTAMP_MAP: Final = re.compile(
    r"X-TIMESTAMP-MAP=(?=[^\n]*MPEGTS:(\d{1,19}))(?=[^\n]*LOCAL:(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})\.(\d{3}))", re.ASCII
)


# --- which playlists ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RenditionPlace:
    """A media playlist of a presentation. kind: "", for one of unknown content, or the type of an EXT-X-MEDIA.

    language: ISO 639-2, "" where the master playlist says nothing.
    """

    uri: str
    kind: str = ""
    language: str = ""


def renditions_of(master: MasterPlaylist) -> list[RenditionPlace]:
    """Return every media playlist of a master playlist once: variants, the best first, then what they have beside them.

    Raises LimitExceededError over MAX_RENDITIONS; RemoteProtocolError for none.   Spec: RFC 8216 section 4.3.4.
    """
    found: dict[str, RenditionPlace] = {}
    for variant in sorted(master.variants, key=lambda one: -one.bandwidth_bps):
        found.setdefault(variant.uri, RenditionPlace(variant.uri))
    for media in master.renditions:
        if media.uri and media.type in ("AUDIO", "VIDEO", "SUBTITLES"):
            known = found.get(media.uri)
            if known is None or not known.kind:
                language = canonical(media.language) if media.language else ""
                found[media.uri] = RenditionPlace(media.uri, media.type if known is None else "", language)
    if not found:
        raise RemoteProtocolError("the master playlist names no media", spec=SPEC + "4.3.4.2")
    if len(found) > MAX_RENDITIONS:
        raise LimitExceededError(f"the master playlist names {len(found)} renditions; the limit is {MAX_RENDITIONS}")
    return list(found.values())


def resolve_ranges(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments whose byte ranges all say where they begin. Raises RemoteProtocolError.   Spec: section 4.3.2.2."""
    resolved: list[Segment] = []
    end: tuple[str, int] = ("", 0)
    for segment in segments:
        if segment.byte_range is not None:
            length, offset = segment.byte_range
            if offset is None:
                if end[0] != segment.uri:
                    raise RemoteProtocolError("a byte range that goes on with nothing", spec=SPEC + "4.3.2.2")
                offset = end[1]
            if length > MAX_SEGMENT_BYTES:
                raise LimitExceededError(f"a segment of {length} bytes; the limit is {MAX_SEGMENT_BYTES}")
            segment = replace(segment, byte_range=(length, offset))
            end = segment.uri, offset + length
        resolved.append(segment)
    return resolved


def unix_us(date: str) -> int:
    """Return an EXT-X-PROGRAM-DATE-TIME in microseconds of Unix time, 0 for none or one that is no date."""
    match = re.fullmatch(r"([\dT:-]{19})(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?", date, re.ASCII)
    if match is None:
        return 0
    zone = match[3] or "Z"
    try:
        moment = datetime.fromisoformat(match[1] + (zone.replace("Z", "+00:00")))
    except ValueError:
        return 0
    micros = int((match[2] or "0").ljust(6, "0")[:6])
    return int(moment.astimezone(UTC).timestamp()) * 1_000_000 + micros


# --- keys -----------------------------------------------------------------------------------------------------------


def check_key(key: Key) -> None:
    """Raise UnsupportedError for a method other than whole segments with AES-128."""
    if key.method != "AES-128" or key.key_format != "identity":
        raise UnsupportedError(
            f"the segments are encrypted with {key.method} ({key.key_format}); mist can read AES-128 with plain keys",
            reason="UNSUPPORTED",
        )


def decrypt(data: bytes, key: Key, secret: bytes, sequence: int) -> bytes:
    """Return the clear bytes of a segment.

    secret: the 16 bytes of the key. sequence: the segment's number, which is the vector where the playlist gives none.
    Raises UnsupportedError without the package `cryptography`; RemoteProtocolError.   Spec: RFC 8216 section 5.2.
    """
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise UnsupportedError(
            "the segments are encrypted, which needs the package cryptography; install it with "
            '"apt-get install python3-cryptography" or "pip install cryptography"',
            reason="UNSUPPORTED",
        ) from None
    if len(secret) != KEY_BYTES:
        raise RemoteProtocolError(f"a key of {len(secret)} bytes instead of {KEY_BYTES}", spec=SPEC + "5.1")
    if len(data) % KEY_BYTES or not data:
        raise RemoteProtocolError("an encrypted segment that is no whole number of blocks", spec=SPEC + "4.3.2.4")
    vector = key.iv if key.iv is not None else sequence.to_bytes(16, "big")
    context = Cipher(algorithms.AES(secret), modes.CBC(vector)).decryptor()
    clear: bytes = context.update(data) + context.finalize()
    padding = clear[-1]
    if not 1 <= padding <= KEY_BYTES or clear[-padding:] != bytes((padding,)) * padding:
        raise RemoteProtocolError("an encrypted segment that the key does not fit", spec=SPEC + "4.3.2.4")
    return clear[:-padding]


# --- segments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SegmentMedia:
    """A segment demuxed. Times are those in it, of which only differences within a run without discontinuity say anything.

    wraps: the times are of 33 bits. timed: it has times at all; those of others begin with 0.
    """

    infos: tuple[TrackInfo, ...]
    packets: tuple[Packet, ...]
    wraps: bool = True
    timed: bool = True

    @property
    def first_us(self) -> int:
        """The lowest decode time; 0 for a segment without packets."""
        return min((packet.dts_us for packet in self.packets), default=0)


def read_segment(data: bytes, initialization: bytes = b"") -> SegmentMedia:
    """Return the packets of a whole, clear segment: MPEG-2 transport stream, fragmented MP4, packed audio or WebVTT.

    initialization: what EXT-X-MAP names. Raises RemoteProtocolError, UnsupportedError, LimitExceededError.
    Spec: RFC 8216 section 3.
    """
    if data[:6] == b"WEBVTT" or data[:9] == b"\xef\xbb\xbfWEBVTT":
        return _read_texts(data)
    body, tag_us = _skip_tags(data)
    media = initialization + body
    container = by_first_bytes(media[:SNIFF_BYTES])
    if container is None or container.make_demuxer is None:
        raise UnsupportedError(NO_TRACKS)
    demuxer = container.make_demuxer()
    sink = PacketList()
    demuxer.attach(sink)
    view = memoryview(media)
    packets: list[Packet] = []
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        demuxer.feed(view[position : position + count])
        packets += sink.take()
        if len(packets) > MAX_PACKETS:
            raise LimitExceededError(f"a segment of more than {MAX_PACKETS} packets")
    if not demuxer.tracks:
        raise UnsupportedError(NO_TRACKS)
    packed = container.name not in ("ts", "mp4")
    if packed and tag_us is not None:
        packets = [moved(packet, packet.track, tag_us) for packet in packets]
    return SegmentMedia(
        tuple(demuxer.tracks), tuple(packets), container.name == "ts" or packed, not packed or tag_us is not None
    )


def moved(packet: Packet, track: int, by_us: int) -> Packet:
    """Return a packet of another track and time."""
    return Packet(track, packet.dts_us + by_us, packet.offset_us, packet.keyframe, packet.payload)


def _read_texts(data: bytes) -> SegmentMedia:
    """Return the packets of a WebVTT segment, in the times of the media beside it.   Spec: RFC 8216 section 3.5."""
    match = _TIMESTAMP_MAP.search(data[:4096].decode("utf-8", "replace"))
    by_us = 0
    if match is not None:
        hours, minutes, seconds, millis = (int(part or 0) for part in match.groups()[1:])
        by_us = int(match[1]) % (1 << 33) * 100 // 9 - (((hours * 60 + minutes) * 60 + seconds) * 1000 + millis) * 1000
    packets = tuple(Packet(0, time_us + by_us, 0, True, text) for time_us, text in to_packets(parse_cues(data)))
    return SegmentMedia((TrackInfo(META, SUBTITLE, track_id=1),), packets)


def _skip_tags(data: bytes) -> tuple[bytes, int | None]:
    """Return a segment without ID3 tags before it, and the time that a tag of packed audio says.   Spec: section 3.4."""
    tag_us = None
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + _ID3.size:
        *_, one, two, three, four = _ID3.unpack_from(data, at)
        size = (one & 127) << 21 | (two & 127) << 14 | (three & 127) << 7 | four & 127
        if size > MAX_TAGS_BYTES:
            raise LimitExceededError(f"an ID3 tag of {size} bytes", offset=at, spec=SPEC + "3.4")
        tag = data[at + _ID3.size : at + _ID3.size + size]
        place = tag.find(_OWNER)
        value = tag[place + len(_OWNER) : place + len(_OWNER) + 8]
        if place >= 0 and len(value) == 8:
            tag_us = (int.from_bytes(value, "big") & ((1 << 33) - 1)) * 100 // 9
        at += _ID3.size + size
    return data[at:], tag_us


def each_once(packets: Iterable[Packet]) -> list[Packet]:
    """Return packets of one text track out of several segments, in order: a text that stands in more than one comes once.

    So does one that was cut where a segment ends.
    """
    found: list[Packet] = []
    for packet in sorted(packets, key=lambda one: one.dts_us):
        if found and packet.dts_us - found[-1].dts_us <= SAME_US and (packet.payload or not found[-1].payload):
            found.pop()
        elif found and packet.dts_us - found[-1].dts_us <= SAME_US:
            continue
        if packet.payload != (found[-1].payload if found else b""):
            found.append(packet)
    return found


class NewTexts:
    """Tells which packets of live texts are new: a text stands in every segment that it is shown in.

    Each segment has a time stamp of its own, rounded to milliseconds on one side and to 90 kHz on the other, so that the same text may
    be a little earlier or later there. Bound: so many packets of each track are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[int, deque[tuple[int, bytes]]] = {}

    def take(self, packet: Packet) -> bool:
        """Return whether a packet is new, and remember it: none that came before at this time, or says what is shown already."""
        known = self._known.setdefault(packet.track, deque(maxlen=self._most))
        if any(abs(time_us - packet.dts_us) <= SAME_US and text == packet.payload for time_us, text in known):
            return False
        before = [one for one in known if one[0] <= packet.dts_us]
        shown = max(before, key=lambda one: one[0])[1] if before else b""
        if shown == packet.payload:
            return False
        known.append((packet.dts_us, packet.payload))
        return True


def unwrapped_us(time_us: int, near_us: int) -> int:
    """Return a time of 33 bits as the one of all that it may mean that is nearest to another."""
    return time_us + round((near_us - time_us) / WRAP_US) * WRAP_US


def fingerprints(packets: Iterable[Packet], track: int) -> frozenset[int]:
    """Return what the payloads of a track are told by, to find the same track in another rendition."""
    return frozenset(hash(packet.payload) for packet in packets if packet.track == track and len(packet.payload) > 8)
