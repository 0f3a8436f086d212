"""Subtitle files: SubRip and WebVTT parsed into cues and serialized.

A subtitle track shows one text at a time: each packet is the text from its time on, an empty one clears it. So cues that overlap
become one packet with the lines of both.

Spec: WebVTT (W3C) sections 4 and 6; SubRip has none and is what its program read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mist.core.text_tracks import TextDemuxer, TextMuxer
from mist.errors import LimitExceededError, RemoteProtocolError, UnsupportedError
from mist.formats.tracks import META, SUBTITLE, TrackInfo

SUBRIP: Final = "srt"
WEBVTT: Final = "vtt"

MAX_CUES: Final = 200_000
MAX_CUE_CHARACTERS: Final = 65_536
MAX_OVERLAPPING: Final = 16  # cues on screen at a time; of more the newest count
MAX_NEXT_US: Final = 30_000_000  # a packet that comes later does not say when the one before it ended
BYTE_US: Final = 75_000  # of reading time
LEAST_US: Final = 800_000
_STATE_TEXT_BYTES: Final = 100

_STAMP: Final = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,9})"
_TIMES: Final = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s+(.*))?\s*", re.ASCII)
_SKIPPED_BLOCK: Final = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_BLANK_LINES: Final = re.compile(r"\n\s*\n+")


@dataclass(frozen=True, slots=True)
class Cue:
    """One cue. end_us: may be before start_us where the file says so. text: lines joined by newlines, tags as they are.

    settings: of WebVTT, such as "align:start line:0".
    """

    start_us: int
    end_us: int
    text: str
    settings: str = ""


def decode(data: bytes) -> str:
    """Return the text of a file: UTF-8, UTF-16 with a byte order mark, or else Windows-1252; lines end with a newline."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _stamp_us(hours: str | None, minutes: str, seconds: str, fraction: str) -> int:
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    return whole * 1_000_000 + int(fraction.ljust(6, "0")[:6])


def parse_cues(data: bytes) -> list[Cue]:
    """Return the cues of a SubRip or WebVTT file in its order; blank ones and what is no cue are left out.

    Both times of day formats are taken in either (comma or dot, hours or none). Raises LimitExceededError;
    RemoteProtocolError where something is there, and no cue and no header.
    """
    lines = decode(data).split("\n")
    vtt = lines[0].startswith("WEBVTT")
    cues: list[Cue] = []
    at = 1 if vtt else 0
    seen = vtt
    while at < len(lines):
        match = _TIMES.fullmatch(lines[at])
        if match is None:
            at = _next_line(lines, at, vtt)
            continue
        seen = True
        begin, at = at + 1, _text_end(lines, at + 1)
        text = "\n".join(line.rstrip() for line in lines[begin:at])
        if text.strip() and len(cues) >= MAX_CUES:
            raise LimitExceededError(f"more than {MAX_CUES} cues")
        if text.strip():
            stamps = match.groups()
            settings = (stamps[8] or "").strip() if vtt else ""
            cues.append(Cue(_stamp_us(*stamps[:4]), _stamp_us(*stamps[4:8]), text[:MAX_CUE_CHARACTERS], settings))
    if not seen and any(line.strip() for line in lines):
        raise RemoteProtocolError("no cue of SubRip or WebVTT", offset=0)
    return cues


def _next_line(lines: Sequence[str], at: int, vtt: bool) -> int:
    """Return the line to go on with after one that begins no cue: behind a WebVTT block that is none."""
    if vtt and _SKIPPED_BLOCK.match(lines[at]) and not lines[at - 1].strip():
        while at < len(lines) and lines[at].strip():
            at += 1
    return at + 1


def _text_end(lines: Sequence[str], begin: int) -> int:
    """Return the line behind a cue's text: a blank one, or the next cue where no blank line parts them."""
    at = begin
    while at < len(lines) and lines[at].strip():
        if "-->" in lines[at] and _TIMES.fullmatch(lines[at]):
            return at - 1 if at > begin and lines[at - 1].strip().isdecimal() else at
        at += 1
    return at


def reading_time_us(size_bytes: int) -> int:
    """Return how long a text of unknown duration is shown."""
    return size_bytes * BYTE_US + LEAST_US


def to_packets(cues: Iterable[Cue]) -> list[tuple[int, bytes]]:
    """Return (time in microseconds, payload) of the packets that show cues; an empty payload clears the screen."""
    shown: list[tuple[int, int, str]] = []
    for cue in cues:
        end = cue.end_us if cue.end_us > cue.start_us else cue.start_us + reading_time_us(len(cue.text.encode()))
        shown.append((cue.start_us, end, cue.text))
    shown.sort(key=lambda entry: entry[0])
    packets: list[tuple[int, bytes]] = []
    active: list[tuple[int, int, str]] = []
    following = 0
    while following < len(shown) or active:
        ends = min((entry[1] for entry in active), default=None)
        starts = shown[following][0] if following < len(shown) else None
        now = min(time for time in (ends, starts) if time is not None)
        active = [entry for entry in active if entry[1] > now]
        while following < len(shown) and shown[following][0] == now:
            active.append(shown[following])
            following += 1
        active = active[-MAX_OVERLAPPING:]
        packets.append((now, "\n".join(entry[2] for entry in active).encode("utf-8", "replace")))
    return packets


def to_cues(packets: Sequence[tuple[int, bytes]]) -> list[Cue]:
    """Return what packets show, which are in the order of their times: each until the next one, which must not be far.

    The last one, and one before a longer pause, is shown for as long as reading it takes.
    """
    cues = []
    for number, (start_us, payload) in enumerate(packets):
        text = _cue_text(payload)
        if text:
            next_us = packets[number + 1][0] if number + 1 < len(packets) else None
            cues.append(Cue(start_us, _end_us(start_us, len(payload.strip()), next_us), text))
    return cues


def _cue_text(payload: bytes) -> str:
    return _BLANK_LINES.sub("\n", payload.strip().decode("utf-8", "replace").replace("\r", ""))


def _end_us(start_us: int, size_bytes: int, next_us: int | None) -> int:
    """Return when a text goes away. next_us: time of the packet behind it, None where that is not known."""
    if next_us is not None and 0 < next_us - start_us <= MAX_NEXT_US:
        return next_us
    return start_us + reading_time_us(size_bytes)


class SubtitleDemuxer(TextDemuxer):
    """Reads a SubRip or WebVTT file. language: of the track, ISO 639-2."""

    def __init__(self, kind: str = SUBRIP, language: str = "und") -> None:
        self.kind = kind
        self.language = language

    def describe(self) -> TrackInfo:
        """Return the subtitle track."""
        return TrackInfo(META, SUBTITLE, track_id=1, language=self.language)

    def packets(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the packets of a file."""
        return to_packets(parse_cues(data))


class CueMuxer(TextMuxer):
    """What the two subtitle muxers share: a text is written when the next packet, or `finish`, says how long it was shown."""

    def __init__(self, tracks: Sequence[TrackInfo]) -> None:
        super().__init__(tracks)
        self._check(tracks)
        self._number = 0
        self._start_us = 0
        self._text = b""

    @staticmethod
    def _check(tracks: Sequence[TrackInfo]) -> None:
        if len(tracks) != 1 or tracks[0].codec != SUBTITLE:
            told = ", ".join(info.codec for info in tracks) or "nothing"
            raise UnsupportedError(f"a subtitle file holds one subtitle track, not {told}")

    def set_tracks(self, tracks: Sequence[TrackInfo]) -> bool:
        """Go on with a changed track. Raises UnsupportedError."""
        self._check(tracks)
        return True

    def serialize(self, _track: int, time_us: int, payload: bytes) -> bytes:
        """Return the cue that this packet ends, if any."""
        written = self._close(time_us)
        self._start_us, self._text = time_us, payload.strip()
        return written

    def finish(self) -> None:
        """Queue the cue that is still shown."""
        self.out.write(self._close(None))
        self._text = b""

    def _close(self, next_us: int | None) -> bytes:
        if not self._text:
            return b""
        self._number += 1
        end_us = _end_us(self._start_us, len(self._text), next_us)
        return self.cue(self._number, self._start_us, end_us, _cue_text(self._text)).encode()

    def cue(self, number: int, start_us: int, end_us: int, text: str) -> str:
        """Return a cue as the format writes it. number: from 1."""
        raise NotImplementedError

    def state(self) -> bytes:
        """Return the number of cues and what is shown, where that is short enough for a state."""
        text = self._text if len(self._text) <= _STATE_TEXT_BYTES else b""
        return self._number.to_bytes(8, "big") + self._start_us.to_bytes(8, "big", signed=True) + text

    def file_state(self) -> bytes:
        """Return the number of cues and what is shown, whatever its length."""
        return self._number.to_bytes(8, "big") + self._start_us.to_bytes(8, "big", signed=True) + self._text

    def restore(self, state: bytes) -> None:
        """Go on from a state."""
        self._number = int.from_bytes(state[:8], "big")
        self._start_us = int.from_bytes(state[8:16], "big", signed=True)
        self._text = state[16:]


def _clock(time_us: int, mark: str) -> str:
    ms = max(0, (time_us + 500) // 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"


class SubRipMuxer(CueMuxer):
    """Writes SubRip."""

    def cue(self, number: int, start_us: int, end_us: int, text: str) -> str:
        """Return a numbered cue."""
        return f"{number}\n{_clock(start_us, ',')} --> {_clock(end_us, ',')}\n{text}\n\n"


class WebVttMuxer(CueMuxer):
    """Writes WebVTT."""

    def header(self, start_us: int = 0) -> bytes:
        """Return the file's first lines."""
        return b"WEBVTT\n\n"

    def cue(self, _number: int, start_us: int, end_us: int, text: str) -> str:
        """Return a cue."""
        return _webvtt_cue(start_us, end_us, text)


def _webvtt_cue(start_us: int, end_us: int, text: str) -> str:
    """Return a cue; an arrow in the text is written as a character reference."""
    safe = text.replace("-->", "--&gt;")
    return f"{_clock(start_us, '.')} --> {_clock(end_us, '.')}\n{safe}\n\n"


def webvtt_segment(cues: Iterable[Cue], from_us: int) -> bytes:
    """Return a segment of an HLS rendition: cues in the time of the stream, and how that goes with a transport stream's.

    from_us: where the segment begins.   Spec: RFC 8216 section 3.5.
    """
    from_ms = (max(0, from_us) + 500) // 1000
    ticks = from_ms * 90 % (1 << 33)
    head = f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:{_clock(from_ms * 1000, '.')},MPEGTS:{ticks}\n\n"
    return (head + "".join(_webvtt_cue(cue.start_us, cue.end_us, cue.text) for cue in cues)).encode()
