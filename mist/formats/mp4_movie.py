"""The `moov` box of MP4 and QuickTime files read: tracks, their clocks, tables and edits.

Spec: ISO/IEC 14496-12 (2022) clauses 8.2 to 8.7, 8.8.3. Runs once a file: tables are only found here, `mist.core.mp4_tables` reads them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from mist.core.mp4_demux import Mp4Demuxer
from mist.core.mp4_tables import SampleTable
from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats import codecs, languages, mp4_boxes, mp4_file, mpeg_audio, timed_metadata
from mist.formats.mp4_entries import Description, children, describe
from mist.formats.tracks import AAC, AC3, AUDIO, MP2, MP3, VIDEO, TrackInfo, left_out, none_carried

MAX_TRACKS: Final = 64
MAX_DESCRIPTIONS: Final = 64
_TABLES: Final = frozenset({"stts", "ctts", "stsc", "stsz", "stz2", "stco", "co64", "stss"})
_MEDIA: Final = frozenset({"vide", "soun", "text", "sbtl", "subt"})  # tracks that somebody might miss
_TRACK_SPEC: Final = "ISO/IEC 14496-12 clause 8.3"
_NO_DEFAULTS: Final = (1, 0, 0, 0)  # of fragments, without trex
_MATRIX_AT: Final = 40  # in tkhd of version 0, clause 8.3.2.2
_MAX_RATE_MHZ: Final = 1_000_000
_USUAL_RATES_MHZ: Final = (
    15_000,
    23_976,
    24_000,
    25_000,
    29_970,
    30_000,
    48_000,
    50_000,
    59_940,
    60_000,
    119_880,
    120_000,
)
# What iTunes says of sound without gaps, in hexadecimal: 0, samples before it, behind it, and of it.
_ITUNES_GAPLESS: Final = re.compile(rb" [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{8}) ([0-9A-F]{16})")
_RATE_PRECISION: Final = 1000  # a thousandth off: the nearest is meant

# QTFF "Language code values": the Macintosh languages that have a code of their own here, from 0.
_MACINTOSH: Final = [
    "eng",
    "fra",
    "deu",
    "ita",
    "nld",
    "swe",
    "spa",
    "dan",
    "por",
    "nor",
    "heb",
    "jpn",
    "ara",
    "fin",
    "ell",
    "isl",
    "mlt",
    "tur",
    "hrv",
    "zho",
    "urd",
    "hin",
    "tha",
    "kor",
    "lit",
    "pol",
    "hun",
    "est",
    "lav",
    "und",
    "fao",
    "fas",
    "rus",
    "zho",
    "nld",
    "gle",
    "sqi",
    "ron",
    "ces",
    "slk",
    "slv",
    "yid",
    "srp",
    "mkd",
    "bul",
    "ukr",
    "bel",
    "uzb",
    "kaz",
    "aze",
    "aze",
    "hye",
    "kat",
    "ron",
    "kir",
    "tgk",
    "tuk",
    "mon",
    "mon",
    "pus",
    "kur",
    "kas",
    "snd",
    "bod",
    "nep",
    "san",
    "mar",
    "ben",
    "asm",
    "guj",
    "pan",
    "ori",
    "mal",
    "kan",
    "tam",
    "tel",
    "sin",
    "mya",
    "khm",
    "lao",
    "vie",
    "ind",
    "tgl",
    "msa",
    "msa",
    "amh",
    "tir",
    "orm",
    "som",
    "swa",
    "kin",
    "run",
    "nya",
    "mlg",
    "epo",
]


@dataclass(frozen=True, slots=True)
class MovieTrack:
    """One track that can be played.

    info: of its first sample entry that is carried, whose number is first_description. timescale: ticks a second.
    edits: (duration in movie ticks, media time or -1, rate) of its edit list. defaults: description, duration, size and flags of
    samples in fragments (trex). pending: its first packet has something to say of it. frame_ticks: that a frame of sound lasts, where the
    last one may be cut; 0 where that is not known here. media_end: media time behind which nothing is to be heard, 0 for the whole.
    """

    info: TrackInfo
    track_id: int
    timescale: int
    table: SampleTable
    descriptions: tuple[Description, ...]
    first_description: int
    edits: tuple[tuple[int, int, int], ...]
    defaults: tuple[int, int, int, int]
    pending: bool
    frame_ticks: int = 0
    media_end: int = 0


@dataclass(frozen=True, slots=True)
class Movie:
    """What a `moov` box says.

    timescale: of the durations of edits. fragmented: movie fragments may follow. left_out: see `Demuxer`. passed_over: (track id,
    defaults) of the tracks that are not played, whose media lies between that of others.
    """

    timescale: int
    tracks: tuple[MovieTrack, ...]
    fragmented: bool
    left_out: tuple[str, ...] = ()
    passed_over: tuple[tuple[int, tuple[int, int, int, int]], ...] = ()


@dataclass(slots=True)
class _Found:
    """Places of a track's boxes inside the moov box."""

    track_id: int = 0
    media: str = ""
    timescale: int = 0
    rotation_degrees: int = 0
    language: str = languages.UNDETERMINED
    edits: tuple[tuple[int, int, int], ...] = ()
    descriptions: tuple[Description, ...] = ()
    kinds: tuple[str, ...] = ()
    chapters: tuple[int, ...] = ()


class MovieReader:
    """The face of this module to `mist.core.mp4_demux.Mp4Demuxer`, which knows no codec's set-up."""

    @staticmethod
    def movie(moov: bytes, offset: int, header_bytes: int) -> Movie:
        """Read a `moov` box. offset: byte of the file where it begins. header_bytes: of it, before its content.

        Raises RemoteProtocolError, with offset; UnsupportedError where no track is of a codec that is carried.
        """
        return _Reader(moov, offset).movie(header_bytes)

    event = staticmethod(timed_metadata.parse_event)

    @staticmethod
    def complete(info: TrackInfo, payload: bytes) -> TrackInfo:
        """Return the track with what its first packet says of it."""
        try:
            if info.codec == MP3 and mpeg_audio.parse_header(payload).layer == 2:
                info = info.changed(codec=MP2)
            return codecs.complete(info, payload)
        except RemoteProtocolError:
            return info


def make_demuxer() -> Mp4Demuxer:
    """Return a demuxer of MP4 and QuickTime files."""
    return Mp4Demuxer(MovieReader())


class _Reader:
    def __init__(self, moov: bytes, offset: int) -> None:
        self.moov = moov
        self.offset = offset

    def wrong(self, what: str, at: int, spec: str) -> RemoteProtocolError:
        return RemoteProtocolError(what, offset=self.offset + at, spec=spec)

    def boxes(self, begin: int, end: int, inside: str) -> Iterator[tuple[str, int, int]]:
        return children(self.moov, begin, end, self.offset, inside)

    def unpack(self, form: str, at: int, end: int, name: str) -> tuple[int, ...]:
        """Read numbers at a place of a box. Raises RemoteProtocolError if they go past its end."""
        if at + struct.calcsize(form) > end:
            raise self.wrong(f"a {name} box that is cut off", at, "ISO/IEC 14496-12 clause 4.2")
        return struct.unpack_from(form, self.moov, at)

    # -- The movie

    def movie(self, header_bytes: int) -> Movie:
        timescale, fragmented = 1000, False
        places: list[tuple[int, int]] = []
        defaults: dict[int, tuple[int, int, int, int]] = {}
        heard: tuple[int, int] | None = None
        for kind, begin, end in self.boxes(header_bytes, len(self.moov), "moov"):
            if kind == "mvhd":
                version = self.unpack(">B", begin, end, kind)[0]
                (timescale,) = self.unpack(">I", begin + (20 if version == 1 else 12), end, kind)
            elif kind == "trak":
                places.append((begin, end))
                if len(places) > MAX_TRACKS:
                    raise self.wrong(f"over {MAX_TRACKS} tracks", begin, _TRACK_SPEC)
            elif kind == "mvex":
                fragmented = True
                defaults.update(self._extends(begin, end))
            elif kind == "udta":
                heard = self._heard(begin, end)
        if not timescale:
            raise self.wrong("a movie of no ticks a second", 0, "ISO/IEC 14496-12 clause 8.2.2.3")
        found = [(self._track(begin, end), begin) for begin, end in places]
        chapters = {number for one, _ in found for number in one[0].chapters}
        tracks = [
            self._playable(one, tables, begin, defaults.get(one.track_id, _NO_DEFAULTS), heard)
            for (one, tables), begin in found
            if one.track_id not in chapters
        ]
        playable = tuple(track for track in tracks if track is not None)
        ids = {track.track_id for track in playable}
        others = tuple(
            left_out(one.track_id, ", ".join(one.kinds))
            for (one, _), _ in found
            if one.track_id not in ids and one.media in _MEDIA and one.track_id not in chapters
        )
        if not playable:
            raise UnsupportedError(none_carried(others), offset=self.offset, spec=_TRACK_SPEC)
        unplayed = tuple(
            (one.track_id, defaults.get(one.track_id, _NO_DEFAULTS)) for (one, _), _ in found if one.track_id not in ids
        )
        return Movie(timescale, playable, fragmented, others, unplayed)

    def _extends(self, begin: int, end: int) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        """Yield the defaults of fragments.   Spec: ISO/IEC 14496-12 clause 8.8.3."""
        for kind, first, last in self.boxes(begin, end, "mvex"):
            if kind == "trex":
                number, description, duration, size, flags = self.unpack(">5I", first + 4, last, kind)
                yield number, (description, duration, size, flags)

    def _heard(self, begin: int, end: int) -> tuple[int, int] | None:
        """Return the samples before the sound and those of it, as iTunes writes them into a comment."""
        found = None
        for kind, first, last in self.boxes(begin, end, "udta"):
            if kind != "meta" or last - first < 4:
                continue
            for inner, inner_first, inner_last in self.boxes(first + 4, last, "meta"):
                if inner == "ilst" and b"iTunSMPB" in self.moov[inner_first:inner_last]:
                    for entry, entry_first, entry_last in self.boxes(inner_first, inner_last, "ilst"):
                        if entry == "----" and b"iTunSMPB" in self.moov[entry_first:entry_last]:
                            found = found or _ITUNES_GAPLESS.search(self.moov, entry_first, entry_last)
        return (int(found[1], 16), int(found[3], 16)) if found else None

    # -- A track

    def _track(self, begin: int, end: int) -> tuple[_Found, dict[str, tuple[int, int]]]:
        found = _Found()
        tables: dict[str, tuple[int, int]] = {}
        for kind, first, last in self.boxes(begin, end, "trak"):
            if kind == "tkhd":
                version = self.unpack(">B", first, last, kind)[0]
                (found.track_id,) = self.unpack(">I", first + (20 if version == 1 else 12), last, kind)
                if last - first >= (_MATRIX_AT + 48 if version == 1 else _MATRIX_AT + 36):
                    at = first + _MATRIX_AT + (12 if version == 1 else 0)
                    found.rotation_degrees = mp4_boxes.rotation_of(self.unpack(">9i", at, last, kind))
            elif kind == "edts":
                for inner, inner_first, inner_last in self.boxes(first, last, "edts"):
                    if inner == "elst":
                        found.edits = self._edits(inner_first, inner_last)
            elif kind == "tref":
                for inner, inner_first, inner_last in self.boxes(first, last, "tref"):
                    if inner == "chap":
                        found.chapters = self._numbers(inner_first, inner_last)
            elif kind == "mdia":
                self._media(found, tables, first, last)
        return found, tables

    def _numbers(self, begin: int, end: int) -> tuple[int, ...]:
        count = min((end - begin) // 4, MAX_TRACKS)
        return struct.unpack_from(f">{count}I", self.moov, begin)

    def _edits(self, begin: int, end: int) -> tuple[tuple[int, int, int], ...]:
        """Return the edits.   Spec: ISO/IEC 14496-12 clause 8.6.6."""
        version, count = self.unpack(">B3xI", begin, end, "elst")
        row = struct.Struct(">QqI" if version == 1 else ">IiI")
        if count * row.size > end - begin - 8:
            raise self.wrong(f"{count} edits in a box of {end - begin} bytes", begin, "ISO/IEC 14496-12 clause 8.6.6")
        return tuple(row.iter_unpack(self.moov[begin + 8 : begin + 8 + count * row.size]))

    def _media(self, found: _Found, tables: dict[str, tuple[int, int]], begin: int, end: int) -> None:
        """Read mdia. Its boxes come in any order."""
        inside = list(self.boxes(begin, end, "mdia"))
        for kind, first, last in inside:
            if kind == "mdhd":
                version = self.unpack(">B", first, last, kind)[0]
                at = first + (20 if version == 1 else 12)
                (found.timescale,) = self.unpack(">I", at, last, kind)
                (code,) = self.unpack(">H", at + (12 if version == 1 else 8), last, kind)
                found.language = unpack_language(code)
            elif kind == "hdlr":
                media = struct.pack(">I", *self.unpack(">I", first + 8, last, kind))
                found.media = media.decode("latin-1")
        for kind, first, last in inside:
            if kind != "minf":
                continue
            for inner, inner_first, inner_last in self.boxes(first, last, "minf"):
                if inner == "stbl":
                    self._sample_table(found, tables, inner_first, inner_last)

    def _sample_table(self, found: _Found, tables: dict[str, tuple[int, int]], begin: int, end: int) -> None:
        for kind, first, last in self.boxes(begin, end, "stbl"):
            if kind in _TABLES:
                tables.setdefault(kind, (first, last - first))
            elif kind == "stsd":
                version, count = self.unpack(">B3xI", first, last, kind)
                entries: list[Description] = []
                kinds: dict[str, None] = {}
                for entry, entry_first, entry_last in self.boxes(first + 8, last, "stsd"):
                    if len(entries) == min(count, MAX_DESCRIPTIONS):
                        break
                    kinds[entry] = None
                    entries.append(
                        describe(entry, found.media, self.moov, entry_first, entry_last, self.offset, version)
                    )
                found.descriptions = tuple(entries)
                found.kinds = tuple(kinds)

    def _playable(
        self,
        found: _Found,
        tables: dict[str, tuple[int, int]],
        at: int,
        defaults: tuple[int, int, int, int],
        heard: tuple[int, int] | None,
    ) -> MovieTrack | None:
        """Return the track if one of its sample entries is carried. heard: of `_heard`, which counts where there is no edit list."""
        first = next((place for place, one in enumerate(found.descriptions) if one.info is not None), None)
        if first is None:
            return None
        if not found.timescale:
            raise self.wrong("a track of no ticks a second", at, "ISO/IEC 14496-12 clause 8.4.2.3")
        frame_bytes = {one.frame_bytes for one in found.descriptions}
        table = SampleTable(self.moov, tables, self.offset, frame_bytes.pop() if len(frame_bytes) == 1 else 0)
        descriptions = tuple(self._completed(one, found, table, defaults[1]) for one in found.descriptions)
        info = descriptions[first].info
        assert info is not None
        pending = descriptions[first].pending
        edits, media_end = found.edits, 0
        if heard is not None and info.codec == AAC and not edits and info.sample_rate_hz:
            start, media_end = (ticks * found.timescale // info.sample_rate_hz for ticks in (heard[0], sum(heard)))
            edits = ((0, start, 1 << 16),)
        return MovieTrack(
            info, found.track_id, found.timescale, table, descriptions, first, edits, defaults, pending,
            _frame_ticks(info, found.timescale), media_end,
        )  # fmt: skip

    def _completed(self, one: Description, found: _Found, table: SampleTable, default_ticks: int) -> Description:
        """Return the description with what the track says of it, and its own init data."""
        if one.info is None:
            return one
        info = one.info.changed(track_id=found.track_id, language=found.language)
        if info.type == VIDEO:
            samples, ticks = table.usual_ticks() if table.count else (1, default_ticks)
            rate_mhz = _frame_rate_mhz(samples, ticks, found.timescale)
            info = info.changed(frame_rate_mhz=rate_mhz, rotation_degrees=found.rotation_degrees)
        if info.type == AUDIO and not info.sample_rate_hz:
            info = info.changed(sample_rate_hz=found.timescale)
        try:
            info = codecs.complete(info)
        except RemoteProtocolError as error:
            what = f"set-up of {info.codec} in track {found.track_id}: {error}"
            raise RemoteProtocolError(what, offset=one.offset, spec=error.spec) from error
        return replace(one, info=info)


def _frame_ticks(info: TrackInfo, timescale: int) -> int:
    """Return how long a frame of sound lasts that never says itself that it is shorter; 0 for other codecs."""
    if info.codec not in (AAC, AC3, MP3, MP2):
        return 0
    usual = mp4_file.timing(info)
    return usual.default_ticks * timescale // usual.timescale


def _frame_rate_mhz(samples: int, ticks: int, timescale: int) -> int:
    """Return pictures in 1000 seconds; of a coarse clock the usual rate that is nearest. 0 where it is not known."""
    if not samples or not ticks:
        return 0
    rate_mhz = (samples * timescale * 1000 + ticks // 2) // ticks
    near = min(_USUAL_RATES_MHZ, key=lambda usual: abs(usual - rate_mhz))
    if samples > 1 and abs(near - rate_mhz) * _RATE_PRECISION <= near:
        rate_mhz = near
    return rate_mhz if rate_mhz <= _MAX_RATE_MHZ else 0


def unpack_language(code: int) -> str:
    """Return the language of an mdhd box.   Spec: ISO/IEC 14496-12 clause 8.4.2.3, QTFF "Language code values"."""
    if code < 0x400:
        return _MACINTOSH[code] if code < len(_MACINTOSH) else languages.UNDETERMINED
    letters = "".join(chr(0x60 + (code >> shift & 31)) for shift in (10, 5, 0))
    return languages.canonical(letters)
