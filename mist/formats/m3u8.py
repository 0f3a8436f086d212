"""HTTP Live Streaming playlists: written for viewers, and read as strictly as RFC 8216 is written, or as players do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from mist.errors import LimitExceededError, RemoteProtocolError

CONTENT_TYPE: Final = "application/vnd.apple.mpegurl"
MAX_PLAYLIST_BYTES: Final = 8 << 20
MAX_LINES: Final = 200_000
SPEC: Final = "RFC 8216 section "

_CRLF: Final = "\r\n"


@dataclass(frozen=True, slots=True)
class Variant:
    """One quality of a master playlist (section 4.3.4.2). bandwidth_bps: of the busiest segment."""

    uri: str
    bandwidth_bps: int
    codecs: str = ""
    resolution: tuple[int, int] | None = None
    frame_rate: str = ""
    average_bandwidth_bps: int = 0
    audio: str = ""
    video: str = ""
    subtitles: str = ""
    closed_captions: str = ""


@dataclass(frozen=True, slots=True)
class Rendition:
    """An alternative rendition (section 4.3.4.1)."""

    type: str
    group_id: str
    name: str
    uri: str = ""
    language: str = ""
    default: bool = False
    autoselect: bool = False
    forced: bool = False
    channels: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """How segments are encrypted (section 4.3.2.4). iv: 16 bytes, or None for the segment's sequence number."""

    method: str
    uri: str = ""
    iv: bytes | None = None
    key_format: str = "identity"


@dataclass(frozen=True, slots=True)
class Initialization:
    """The initialization section of segments (section 4.3.2.5). byte_range: (length, offset)."""

    uri: str
    byte_range: tuple[int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One media segment. discontinuity: it does not continue the one before it.

    byte_range: (length, offset or None for behind the last one). date: as written, ISO 8601.
    """

    uri: str
    duration_us: int
    discontinuity: bool = False
    title: str = ""
    sequence: int = 0
    discontinuity_sequence: int = 0
    byte_range: tuple[int, int | None] | None = None
    date: str = ""
    key: Key | None = None
    initialization: Initialization | None = None


@dataclass(frozen=True, slots=True)
class MasterPlaylist:
    """A list of qualities."""

    variants: tuple[Variant, ...]
    renditions: tuple[Rendition, ...] = ()
    version: int = 1


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """A list of segments. type: "", "VOD" or "EVENT"."""

    target_duration_s: int
    segments: tuple[Segment, ...]
    media_sequence: int = 0
    discontinuity_sequence: int = 0
    ended: bool = False
    type: str = ""
    version: int = 1

    @property
    def duration_us(self) -> int:
        """Sum of the segments' durations."""
        return sum(segment.duration_us for segment in self.segments)


# --- writing --------------------------------------------------------------------------------------------------------


def write_master(variants: Iterable[Variant], renditions: Sequence[Rendition] = ()) -> str:
    """Return a master playlist with one entry for each variant, behind what may be played with them.

    One with renditions has version 4, before which players know none.
    """
    lines = ["#EXTM3U", *(["#EXT-X-VERSION:4"] if renditions else ()), *(_media_line(one) for one in renditions)]
    for variant in variants:
        attributes = ["PROGRAM-ID=1", f"BANDWIDTH={max(variant.bandwidth_bps, 1)}"]
        if variant.resolution:
            attributes.append(f"RESOLUTION={variant.resolution[0]}x{variant.resolution[1]}")
        if variant.frame_rate:
            attributes.append(f"FRAME-RATE={variant.frame_rate}")
        for name in ("audio", "subtitles", "codecs"):
            if value := getattr(variant, name):
                attributes.append(f'{name.upper()}="{value}"')
        lines += [f"#EXT-X-STREAM-INF:{','.join(attributes)}", variant.uri]
    return _CRLF.join([*lines, ""])


def _media_line(media: Rendition) -> str:
    attributes = [f"TYPE={media.type}", f'GROUP-ID="{media.group_id}"']
    if media.language:
        attributes.append(f'LANGUAGE="{media.language}"')
    attributes.append(f'NAME="{media.name}"')
    attributes += [f"{name}={'YES' if flag else 'NO'}" for name, flag in _flags(media)]
    if media.channels:
        attributes.append(f'CHANNELS="{media.channels}"')
    if media.uri:
        attributes.append(f'URI="{media.uri}"')
    return f"#EXT-X-MEDIA:{','.join(attributes)}"


def _flags(media: Rendition) -> list[tuple[str, bool]]:
    """Return the attributes that are YES or NO; only subtitles may be FORCED."""
    flags = [("AUTOSELECT", media.autoselect), ("DEFAULT", media.default)]
    return [*flags, ("FORCED", media.forced)] if media.type == "SUBTITLES" else flags


def write_media(playlist: MediaPlaylist) -> str:
    """Return a media playlist of version 3 with durations to the microsecond."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:3",
        f"#EXT-X-TARGETDURATION:{playlist.target_duration_s}",
        f"#EXT-X-MEDIA-SEQUENCE:{playlist.media_sequence}",
    ]
    if playlist.type:
        lines.append(f"#EXT-X-PLAYLIST-TYPE:{playlist.type}")
    if playlist.type == "EVENT" and not playlist.ended:
        lines.append("#EXT-X-START:TIME-OFFSET=0,PRECISE=YES")  # else players begin at the end
    if playlist.discontinuity_sequence:
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{playlist.discontinuity_sequence}")
    for segment in playlist.segments:
        if segment.discontinuity:
            lines.append("#EXT-X-DISCONTINUITY")
        seconds, micros = divmod(segment.duration_us, 1_000_000)
        lines += [f"#EXTINF:{seconds}.{micros:06d},{segment.title}", segment.uri]
    if playlist.ended:
        lines.append("#EXT-X-ENDLIST")
    return _CRLF.join([*lines, ""])


def write_error(reason: str) -> str:
    """Return an ended playlist without segments that says why there are none."""
    text = " ".join(reason.split()) or "unknown"
    lines = ("#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-ERROR: {text}", "#EXT-X-ENDLIST", "")
    return _CRLF.join(lines)


# --- reading --------------------------------------------------------------------------------------------------------

_INTEGER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)
_FLOAT: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{0,20})?", re.ASCII)
_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^,]*)(?:,|$)', re.ASCII)
_RESOLUTION: Final = re.compile(r"([0-9]{1,6})x([0-9]{1,6})", re.ASCII)
_BYTE_RANGE: Final = re.compile(r"([0-9]{1,18})(?:@([0-9]{1,18}))?", re.ASCII)
_IV: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,32}", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_MASTER_TAGS: Final = frozenset({"MEDIA", "STREAM-INF", "I-FRAME-STREAM-INF", "SESSION-DATA", "SESSION-KEY"})
_ONCE: Final = frozenset(
    {"VERSION", "TARGETDURATION", "MEDIA-SEQUENCE", "DISCONTINUITY-SEQUENCE", "PLAYLIST-TYPE", "ENDLIST", "START"}
    | {"INDEPENDENT-SEGMENTS", "I-FRAMES-ONLY"}
)


def parse_playlist(data: bytes, *, lenient: bool = False) -> MasterPlaylist | MediaPlaylist:
    """Read a playlist; tags that are not known are passed over, as clients must do.

    lenient: what is wrong and can still be understood is taken, as players do: a byte order mark, durations without a comma,
    with a fraction in old versions, or over TARGETDURATION (which then follows the longest), tags that stand twice.

    Raises RemoteProtocolError (offset: line number, counted from 0) for what RFC 8216 forbids; LimitExceededError over
    MAX_PLAYLIST_BYTES or MAX_LINES.
    """
    if len(data) > MAX_PLAYLIST_BYTES:
        raise LimitExceededError(f"the playlist has over {MAX_PLAYLIST_BYTES} bytes", spec=SPEC + "4.1")
    try:
        text = data.decode("utf-8-sig" if lenient else "utf-8")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"the playlist is not UTF-8: {error}", offset=0, spec=SPEC + "4.1") from None
    if text.startswith("\ufeff"):
        raise RemoteProtocolError("the playlist begins with a byte order mark", offset=0, spec=SPEC + "4.1")
    lines = text.replace("\r\n", "\n").split("\n")
    if lenient:
        lines = [line.strip() for line in lines]
    if len(lines) > MAX_LINES:
        raise LimitExceededError(f"the playlist has over {MAX_LINES} lines", spec=SPEC + "4.1")
    if lines[0] != "#EXTM3U":
        raise RemoteProtocolError("the playlist does not begin with #EXTM3U", offset=0, spec=SPEC + "4.3.1.1")
    return _Reader(lenient=lenient).read(lines[1:])


def parse_attributes(text: str) -> dict[str, str]:
    """Read an attribute list; quoted values come without their quotes. Raises RemoteProtocolError."""
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _ATTRIBUTE.match(text, place)
        if match is None:
            raise RemoteProtocolError(f"malformed attributes {text[place:][:60]!r}", spec=SPEC + "4.2")
        name, value = match[1], match[2]
        if name in found:
            raise RemoteProtocolError(f"attribute {name} stands twice", spec=SPEC + "4.2")
        found[name] = value[1:-1] if value.startswith('"') else value
        place = match.end()
    if text.endswith(","):
        raise RemoteProtocolError("an attribute list ends with a comma", spec=SPEC + "4.2")
    return found


@dataclass
class _Pending:
    """What the tags since the last URI say about the next one."""

    duration: str = ""
    title: str = ""
    byte_range: tuple[int, int | None] | None = None
    discontinuity: bool = False
    date: str = ""
    variant: dict[str, str] | None = None


@dataclass
class _Reader:
    """One pass over the lines of a playlist."""

    lenient: bool = False
    line: int = 0
    seen: set[str] = field(default_factory=set)
    version: int = 1
    target: int = -1
    media_sequence: int = 0
    discontinuity_sequence: int = 0
    type: str = ""
    variants: list[Variant] = field(default_factory=list)
    renditions: list[Rendition] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    discontinuities: int = 0
    pending: _Pending = field(default_factory=_Pending)
    key: Key | None = None
    initialization: Initialization | None = None

    def read(self, lines: Sequence[str]) -> MasterPlaylist | MediaPlaylist:
        for number, line in enumerate(lines, 1):
            self.line = number
            try:
                self._line(line)
            except RemoteProtocolError as error:
                error.offset = number
                raise
        return self._finish()

    def fail(self, text: str, clause: str) -> RemoteProtocolError:
        return RemoteProtocolError(text, offset=self.line, spec=SPEC + clause)

    def _line(self, line: str) -> None:
        if any(character < " " or character == "\x7f" for character in line):
            raise self.fail("a control character", "4.1")
        if line.startswith("#EXTM3U"):
            raise self.fail("a second #EXTM3U", "4.3.1.1")
        if line.startswith("#EXTINF:"):
            self._extinf(line[8:])
        elif line.startswith("#EXT-X-"):
            self._tag(*_split_tag(line[7:]))
        elif line and not line.startswith("#"):
            self._uri(line)

    def _tag(self, name: str, value: str) -> None:
        if name in _ONCE and name in self.seen:
            if self.lenient:
                return
            raise self.fail(f"a second {name}", "4.3.3")
        self.seen.add(name)
        handler = _TAGS.get(name)
        if handler is not None:
            handler(self, value)

    def integer(self, value: str) -> int:
        if _INTEGER.fullmatch(value) is None or int(value) >= 1 << 64:
            raise self.fail(f"{value[:40]!r} is no decimal integer", "4.2")
        return int(value)

    # Tags.

    def _extinf(self, value: str) -> None:
        self.seen.add("INF")
        duration, comma, title = value.partition(",")
        if (not comma and not self.lenient) or _FLOAT.fullmatch(duration) is None or self.pending.duration:
            raise self.fail(f"malformed or second EXTINF {value[:60]!r}", "4.3.2.1")
        self.pending.duration, self.pending.title = duration, title

    def set_version(self, value: str) -> None:
        self.version = self.integer(value)

    def set_target(self, value: str) -> None:
        self.target = self.integer(value)

    def set_media_sequence(self, value: str) -> None:
        if self.segments:
            raise self.fail("MEDIA-SEQUENCE behind a segment", "4.3.3.2")
        self.media_sequence = self.integer(value)

    def set_discontinuity_sequence(self, value: str) -> None:
        if self.segments or "DISCONTINUITY" in self.seen:
            raise self.fail("DISCONTINUITY-SEQUENCE behind a segment or discontinuity", "4.3.3.3")
        self.discontinuity_sequence = self.integer(value)

    def set_type(self, value: str) -> None:
        if value not in ("VOD", "EVENT"):
            raise self.fail(f"PLAYLIST-TYPE {value[:20]!r}", "4.3.3.5")
        self.type = value

    def mark_discontinuity(self, _value: str) -> None:
        self.pending.discontinuity = True

    def set_byte_range(self, value: str) -> None:
        self.pending.byte_range = self.byte_range(value)

    def byte_range(self, value: str) -> tuple[int, int | None]:
        match = _BYTE_RANGE.fullmatch(value)
        if match is None:
            raise self.fail(f"malformed byte range {value[:40]!r}", "4.3.2.2")
        return int(match[1]), int(match[2]) if match[2] else None

    def set_date(self, value: str) -> None:
        if _DATE.fullmatch(value) is None:
            raise self.fail(f"malformed date {value[:40]!r}", "4.3.2.6")
        self.pending.date = value

    def set_key(self, value: str) -> None:
        attributes = parse_attributes(value)
        method = attributes.get("METHOD", "")
        iv = attributes.get("IV")
        if not method or (method != "NONE" and "URI" not in attributes) or (method == "NONE" and len(attributes) > 1):
            raise self.fail("KEY without METHOD or URI, or with both NONE and more", "4.3.2.4")
        if iv is not None and _IV.fullmatch(iv) is None:
            raise self.fail(f"malformed IV {iv[:40]!r}", "4.3.2.4")
        vector = None if iv is None else int(iv, 16).to_bytes(16, "big")
        key = Key(method, attributes.get("URI", ""), vector, attributes.get("KEYFORMAT", "identity"))
        self.key = None if method == "NONE" else key

    def set_initialization(self, value: str) -> None:
        attributes = parse_attributes(value)
        if not attributes.get("URI"):
            raise self.fail("MAP without URI", "4.3.2.5")
        part = attributes.get("BYTERANGE")
        self.initialization = Initialization(attributes["URI"], None if part is None else self.byte_range(part))

    def add_rendition(self, value: str) -> None:
        attributes = parse_attributes(value)
        missing = {"TYPE", "GROUP-ID", "NAME"} - attributes.keys()
        if missing:
            raise self.fail(f"MEDIA without {', '.join(sorted(missing))}", "4.3.4.1")
        flags = {name: attributes.get(name, "NO") for name in ("DEFAULT", "AUTOSELECT", "FORCED")}
        if any(flag not in ("YES", "NO") for flag in flags.values()):
            raise self.fail("a flag of MEDIA is neither YES nor NO", "4.3.4.1")
        self.renditions.append(
            Rendition(
                type=attributes["TYPE"],
                group_id=attributes["GROUP-ID"],
                name=attributes["NAME"],
                uri=attributes.get("URI", ""),
                language=attributes.get("LANGUAGE", ""),
                default=flags["DEFAULT"] == "YES",
                autoselect=flags["AUTOSELECT"] == "YES",
                forced=flags["FORCED"] == "YES",
                channels=attributes.get("CHANNELS", ""),
            )
        )

    def begin_variant(self, value: str) -> None:
        if self.pending.variant is not None:
            raise self.fail("STREAM-INF without URI", "4.3.4.2")
        self.pending.variant = parse_attributes(value)

    # URIs and the end.

    def _uri(self, uri: str) -> None:
        pending, self.pending = self.pending, _Pending()
        if pending.variant is not None:
            self.variants.append(self._variant(uri, pending.variant))
        elif pending.duration:
            self._segment(uri, pending)
        else:
            raise self.fail("a URI without EXTINF or STREAM-INF", "4.3.2.1")

    def _variant(self, uri: str, attributes: dict[str, str]) -> Variant:
        if "BANDWIDTH" not in attributes:
            raise self.fail("STREAM-INF without BANDWIDTH", "4.3.4.2")
        size = attributes.get("RESOLUTION")
        match = None if size is None else _RESOLUTION.fullmatch(size)
        rate = attributes.get("FRAME-RATE", "")
        if (size is not None and match is None) or (rate and _FLOAT.fullmatch(rate) is None):
            raise self.fail("malformed RESOLUTION or FRAME-RATE", "4.3.4.2")
        return Variant(
            uri,
            bandwidth_bps=self.integer(attributes["BANDWIDTH"]),
            codecs=attributes.get("CODECS", ""),
            resolution=(int(match[1]), int(match[2])) if match else None,
            frame_rate=rate,
            average_bandwidth_bps=self.integer(attributes.get("AVERAGE-BANDWIDTH", "0")),
            audio=attributes.get("AUDIO", ""),
            video=attributes.get("VIDEO", ""),
            subtitles=attributes.get("SUBTITLES", ""),
            closed_captions=attributes.get("CLOSED-CAPTIONS", ""),
        )

    def _segment(self, uri: str, pending: _Pending) -> None:
        if self.version < 3 and not self.lenient and "." in pending.duration:
            raise self.fail(f"a duration with a fraction in version {self.version}", "4.3.2.1")
        self.discontinuities += pending.discontinuity
        self.segments.append(
            Segment(
                uri,
                duration_us=round(Decimal(pending.duration) * 1_000_000),
                discontinuity=pending.discontinuity,
                title=pending.title,
                sequence=self.media_sequence + len(self.segments),
                discontinuity_sequence=self.discontinuity_sequence + self.discontinuities,
                byte_range=pending.byte_range,
                date=pending.date,
                key=self.key,
                initialization=self.initialization,
            )
        )

    def _finish(self) -> MasterPlaylist | MediaPlaylist:
        if self.pending.variant is not None or self.pending.duration:
            raise self.fail("the last tag has no URI", "4.3.2.1")
        if self.seen & _MASTER_TAGS:
            if self.segments or self.target >= 0:
                raise self.fail("a master playlist with tags of media playlists", "4.1")
            return MasterPlaylist(tuple(self.variants), tuple(self.renditions), self.version)
        if self.lenient:
            longest_us = max((segment.duration_us for segment in self.segments), default=1_000_000)
            self.target = max(self.target, (longest_us + 500_000) // 1_000_000, 1)
        if self.target < 0:
            raise self.fail("no TARGETDURATION", "4.3.3.1")
        for segment in self.segments:
            if (segment.duration_us + 500_000) // 1_000_000 > self.target:
                raise self.fail(f"segment {segment.sequence} is longer than TARGETDURATION {self.target}", "4.3.3.1")
        return MediaPlaylist(
            target_duration_s=self.target,
            segments=tuple(self.segments),
            media_sequence=self.media_sequence,
            discontinuity_sequence=self.discontinuity_sequence,
            ended="ENDLIST" in self.seen,
            type=self.type,
            version=self.version,
        )


def _split_tag(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, value


_TAGS: Final[dict[str, Callable[[_Reader, str], None]]] = {
    "VERSION": _Reader.set_version,
    "TARGETDURATION": _Reader.set_target,
    "MEDIA-SEQUENCE": _Reader.set_media_sequence,
    "DISCONTINUITY-SEQUENCE": _Reader.set_discontinuity_sequence,
    "PLAYLIST-TYPE": _Reader.set_type,
    "DISCONTINUITY": _Reader.mark_discontinuity,
    "BYTERANGE": _Reader.set_byte_range,
    "PROGRAM-DATE-TIME": _Reader.set_date,
    "KEY": _Reader.set_key,
    "MAP": _Reader.set_initialization,
    "MEDIA": _Reader.add_rendition,
    "STREAM-INF": _Reader.begin_variant,
}
