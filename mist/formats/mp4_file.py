"""The set-up of a plain MP4 file: `ftyp` and a `moov` with all tables.

Spec: ISO/IEC 14496-12 (2022) clauses 4.3, 8.2 to 8.7; 14496-14; 3GPP TS 26.245 (tx3g); QuickTime File Format (uncompressed audio).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mist.core.mp4_file_mux import Mp4FileLayout, Mp4FileMuxer
from mist.core.mp4_table_writer import ChunkPlaces, TrackTables
from mist.errors import UnsupportedError
from mist.formats import flac, mp4_boxes, timed_metadata
from mist.formats.mp4_boxes import MATRIX, MAX_TIMESCALE, box, esds, full_box, pack_language
from mist.formats.tracks import (
    AAC,
    ALAW,
    AUDIO,
    DTS,
    FLAC,
    FLOAT,
    JPEG,
    META,
    MP2,
    MP3,
    MPEG2,
    OPUS,
    PCM,
    SUBTITLE,
    ULAW,
    VIDEO,
    VORBIS,
    TrackInfo,
)

NTSC_TIMESCALE: Final = 120_000  # 24, 30, 60 and 120 pictures in 1.001 seconds are whole ticks of it
TEXT_TIMESCALE: Final = 1000
FINE_TIMESCALE: Final = 1_000_000
_NTSC_RATES_MHZ: Final = frozenset({23_976, 29_970, 47_952, 59_940, 119_880})
_EARLY_US: Final = 1_000_000  # presentation this much before zero is preparation of a decoder
_LATE_US: Final = 500_000  # and this much after it a delay, not a clock that began before the movie
_OPUS_ROLL_MS: Final = 80  # a decoder of Opus is right after so much
_EMPTY_EDIT: Final = -1
_ENABLED: Final = 3  # in the movie, clause 8.3.2.3

# MP4 registration authority, object type indications; of the entries mp4v and mp4a.
_VIDEO_OBJECTS: Final = {MPEG2: 0x61, JPEG: 0x6C}
_AUDIO_OBJECTS: Final = {DTS: 0xA9, VORBIS: 0xDD}
_QUICKTIME_PCM: Final = {8: b"raw ", 16: b"twos", 24: b"in24", 32: b"in32"}
Piece = bytes | ChunkPlaces  # of a box: the places of chunks are known once the box's length is

CODECS: Final = (
    mp4_boxes.CODECS | timed_metadata.CODECS | {MPEG2, JPEG, MP2, DTS, VORBIS, PCM, FLOAT, ALAW, ULAW, SUBTITLE}
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock and durations of a track in a file.

    timescale: ticks a second, under a million, so that microseconds become ticks and back exactly. default_ticks: of every packet,
    where the track tells. frame_ticks: usual duration of a picture. frame_bytes: of uncompressed audio.
    """

    timescale: int
    default_ticks: int = 0
    frame_ticks: int = 0
    frame_bytes: int = 0


def timing(track: TrackInfo) -> Timing:
    """Return the timing of a track. Raises UnsupportedError; RemoteProtocolError for init data that does not parse."""
    if track.type == VIDEO:
        rate_mhz = track.frame_rate_mhz
        if rate_mhz in _NTSC_RATES_MHZ:
            return Timing(NTSC_TIMESCALE, frame_ticks=round(NTSC_TIMESCALE * 1001 / (round(rate_mhz / 1000) * 1000)))
        ticks = (mp4_boxes.VIDEO_TIMESCALE * 1000 + rate_mhz // 2) // rate_mhz if rate_mhz > 0 else 0
        return Timing(mp4_boxes.VIDEO_TIMESCALE, frame_ticks=ticks)
    if track.type == META:
        return Timing(TEXT_TIMESCALE if track.codec == SUBTITLE else mp4_boxes.VIDEO_TIMESCALE)
    rate_hz = track.sample_rate_hz if 0 < track.sample_rate_hz <= MAX_TIMESCALE else mp4_boxes.DEFAULT_AUDIO_TIMESCALE
    if track.codec in (PCM, FLOAT, ALAW, ULAW):
        bits = 8 if track.codec in (ALAW, ULAW) else track.sample_bits
        return Timing(rate_hz, frame_bytes=max(track.channels, 1) * (bits // 8))
    if track.codec in (MP3, MP2):
        return Timing(rate_hz, 576 if track.codec == MP3 and rate_hz < 32_000 else 1152)
    if track.codec == FLAC and len(track.init_data) >= flac.STREAM_INFO_BYTES:
        info = flac.parse_stream_info(track.init_data)
        return Timing(rate_hz, info.max_block_samples if info.min_block_samples == info.max_block_samples else 0)
    if track.codec == OPUS:
        return Timing(mp4_boxes.DEFAULT_AUDIO_TIMESCALE, 960)
    if track.codec in mp4_boxes.CODECS:
        told = mp4_boxes.track_timing(track)
        return Timing(told.timescale, told.default_ticks)
    return Timing(rate_hz)


# --- sample entries -------------------------------------------------------------------------------------------------


def sample_entry(track: TrackInfo, payload: bytes = b"") -> bytes:
    """Return the sample entry of a track in a file. payload: one of its packets, which AC-3 and E-AC-3 are described from.

    Raises UnsupportedError for a codec without a place in MP4; RemoteProtocolError for init data that does not fit.
    """
    if track.codec in mp4_boxes.CODECS:
        return mp4_boxes.sample_entry(track, payload)
    if track.codec == SUBTITLE and track.type == META:
        return _text_entry()
    if track.codec in timed_metadata.CODECS and track.type == META:
        return timed_metadata.sample_entry(track.codec)
    if track.type == VIDEO and track.codec in _VIDEO_OBJECTS:
        config = esds(_VIDEO_OBJECTS[track.codec], track, track.init_data, video=True)
        return box("mp4v", mp4_boxes.video_head(track), config)
    if track.type != AUDIO:
        raise UnsupportedError(f"{track.codec} has no place in MP4")
    if track.codec in (MP2, *_AUDIO_OBJECTS):
        low = 0 < track.sample_rate_hz < 32_000
        object_type = _AUDIO_OBJECTS.get(track.codec, 0x69 if low else 0x6B)
        return box("mp4a", mp4_boxes.audio_head(track), esds(object_type, track, track.init_data))
    if track.codec in (ALAW, ULAW):
        return box(track.codec.lower(), mp4_boxes.audio_head(track))
    if track.codec == PCM and track.sample_bits in _QUICKTIME_PCM:
        return box(_QUICKTIME_PCM[track.sample_bits].decode(), mp4_boxes.audio_head(track, track.sample_bits))
    if track.codec == FLOAT and track.sample_bits in (32, 64):
        return _float_entry(track)
    raise UnsupportedError(f"{track.codec} of {track.sample_bits} bits has no place in MP4")


def _float_entry(track: TrackInfo) -> bytes:
    """Return QuickTime's lpcm, version 2: floating point, little-endian, packed.   Spec: QTFF "Sound sample description (version 2)"."""
    channels = max(track.channels, 1)
    frame_bytes = channels * track.sample_bits // 8
    head = struct.pack(">6xHHHIHHhHI", 1, 2, 0, 0, 3, 16, -2, 0, 0x10000)
    rate = struct.pack(">IdII", 72, float(track.sample_rate_hz), channels, 0x7F000000)
    return box("lpcm", head, rate, struct.pack(">IIII", track.sample_bits, 1 | 8, frame_bytes, 1))


def _text_entry() -> bytes:
    """Return tx3g: white on nothing, in the middle of the bottom.   Spec: 3GPP TS 26.245 section 5.16."""
    style = struct.pack(">HHHBBI", 0, 0, 1, 0, 18, 0xFFFFFFFF)
    fonts = box("ftab", struct.pack(">HHB", 1, 1, 10), b"Sans-Serif")
    return box("tx3g", struct.pack(">6xHIbbI", 1, 0, 1, -1, 0), bytes(8), style, fonts)


# --- the movie ------------------------------------------------------------------------------------------------------


def file_type(tracks: Sequence[TrackInfo], brand: str = "isom") -> bytes:
    """Return `ftyp`. brand: the major brand."""
    brands = [brand, "isom", "iso6", "mp41"]
    if any(track.codec in (PCM, FLOAT, ALAW, ULAW) for track in tracks):
        brands.append("qt  ")
    if any(track.codec == "AV1" for track in tracks):
        brands.append("av01")
    unique = list(dict.fromkeys(brands))
    return box("ftyp", brand.encode(), struct.pack(">I", 512), "".join(unique).encode())


@dataclass(frozen=True, slots=True)
class _Placed:
    """A track on the movie's clock: media_time is presented after delay_us."""

    tables: TrackTables
    delay_us: int
    media_time: int
    shown_us: int


def _us(ticks: int, timescale: int) -> int:
    return (ticks * 1_000_000 + timescale // 2) // timescale


def _place(tables: TrackTables, origin_us: int) -> _Placed:
    """Return where a track is presented. What would be before the movie's beginning is cut off by the edit."""
    lowest = tables.lowest_ticks - tables.first_ticks
    start_us = _us(tables.lowest_ticks, tables.timescale) - origin_us
    media_time = max(lowest, 0)
    if start_us < 0:
        media_time = max(0, (origin_us * tables.timescale + 500_000) // 1_000_000 - tables.first_ticks)
    shown = max(tables.end_ticks - tables.first_ticks - media_time, 0)
    return _Placed(tables, max(start_us, 0), media_time, _us(shown, tables.timescale))


def _nest(kind: str, *parts: Sequence[Piece]) -> list[Piece]:
    """Return a box of pieces, of which large ones are not copied."""
    inside = [piece for part in parts for piece in part]
    return [struct.pack(">I4s", 8 + sum(map(len, inside)), kind.encode("latin-1")), *inside]


def _full(kind: str, version: int, content: Sequence[Piece]) -> list[Piece]:
    """Return a box that begins with a version and no flags, of pieces."""
    return _nest(kind, [struct.pack(">I", version << 24)], content)


def moov(tables: Sequence[TrackTables], wide: bool, origin_us: int | None) -> list[Piece]:
    """Return the `moov` box of a file, in pieces.

    tables: of each track; those without samples are left out, unless all are.
    wide: places of 64 bits. origin_us: the time that is zero in the file; None: that of the first presentation, or zero where
    that is near it.
    """
    used = [(place + 1, one) for place, one in enumerate(tables) if one.samples]
    if origin_us is None:
        starts = [_us(one.lowest_ticks, one.timescale) for _, one in used]
        origin_us = min(starts, default=0)
        if -_EARLY_US <= origin_us < _LATE_US:
            origin_us = 0
    placed = [(number, _place(one, origin_us)) for number, one in used]
    exact = all(one.delay_us % 1000 == 0 for _, one in placed)
    timescale = mp4_boxes.MOVIE_TIMESCALE if exact else FINE_TIMESCALE
    duration = max((_movie_ticks(one.delay_us + one.shown_us, timescale) for _, one in placed), default=0)
    if duration > 0xFFFFFFFF:
        times = struct.pack(">IQQIQ", 1 << 24, 0, 0, timescale, duration)
    else:
        times = struct.pack(">IIIII", 0, 0, 0, timescale, duration)
    header = times + struct.pack(">IH10x", 0x10000, 0x0100) + MATRIX + bytes(24) + struct.pack(">I", len(tables) + 1)
    traks = (_track(number, one, timescale, wide) for number, one in placed)
    return _nest("moov", [box("mvhd", header)], *traks)


def _movie_ticks(time_us: int, timescale: int) -> int:
    """Return movie ticks, rounded up: nothing may be cut off."""
    return -(-time_us * timescale // 1_000_000)


def _track(number: int, placed: _Placed, movie_timescale: int, wide: bool) -> list[Piece]:
    tables = placed.tables
    info: TrackInfo = tables.infos[0]
    delay = placed.delay_us * movie_timescale // 1_000_000
    shown = max(_movie_ticks(placed.shown_us, movie_timescale), 1)
    duration = delay + shown
    if duration > 0xFFFFFFFF:
        times = struct.pack(">IQQIIQ", 1 << 24 | _ENABLED, 0, 0, number, 0, duration)
    else:
        times = struct.pack(">IIIIII", _ENABLED, 0, 0, number, 0, duration)
    size = (min(info.width, 0xFFFF) << 16, min(info.height, 0xFFFF) << 16) if info.type == VIDEO else (0, 0)
    group = {VIDEO: 0, AUDIO: 1}.get(info.type, 2 if info.codec == SUBTITLE else 0)  # one of its kind is shown
    header = times + struct.pack(">8xHHHH", 0, group, 0x0100 if info.type == AUDIO else 0, 0)
    header += mp4_boxes.display_matrix(info)
    media = _nest("mdia", [_media_header(tables, info), _handler(info)], _media_information(tables, info, wide))
    return _nest("trak", [box("tkhd", header, struct.pack(">II", *size)), _edits(placed, delay, shown)], media)


def _edits(placed: _Placed, delay: int, shown: int) -> bytes:
    """Return the edit list, b"" where the media simply begins at zero.   Spec: ISO/IEC 14496-12 clause 8.6.6."""
    if not delay and not placed.media_time:
        return b""
    rows = [(delay, _EMPTY_EDIT)] if delay else []
    rows.append((shown, placed.media_time))
    version = int(any(length > 0xFFFFFFFF or time > 0x7FFFFFFF for length, time in rows))
    row = struct.Struct(">QqI" if version else ">IiI")
    return box(
        "edts", full_box("elst", version, 0, struct.pack(">I", len(rows)), *(row.pack(*one, 1 << 16) for one in rows))
    )


def _media_header(tables: TrackTables, info: TrackInfo) -> bytes:
    language = struct.pack(">HH", pack_language(info.language), 0)
    duration = tables.duration_ticks
    if duration > 0xFFFFFFFF:
        return full_box("mdhd", 1, 0, struct.pack(">QQIQ", 0, 0, tables.timescale, duration), language)
    return full_box("mdhd", 0, 0, struct.pack(">IIII", 0, 0, tables.timescale, duration), language)


def _handler(info: TrackInfo) -> bytes:
    other = (b"sbtl", b"subtitles") if info.codec == SUBTITLE else (b"meta", b"metadata")
    kind, name = {VIDEO: (b"vide", b"video"), AUDIO: (b"soun", b"sound")}.get(info.type, other)
    return full_box("hdlr", 0, 0, bytes(4), kind, bytes(12), name + b"\0")


def _media_information(tables: TrackTables, info: TrackInfo, wide: bool) -> list[Piece]:
    heads = {VIDEO: full_box("vmhd", 0, 1, bytes(8)), AUDIO: full_box("smhd", 0, 0, bytes(4))}
    entries = [sample_entry(one, tables.payload) for one in tables.infos]
    table: list[Piece] = [full_box("stsd", 0, 0, struct.pack(">I", len(entries)), *entries)]
    table += _full("stts", 0, tables.table("stts"))
    if tables.late:
        table += _full("ctts", int(tables.negative_offsets), tables.table("ctts"))
    if not tables.all_sync:
        table += _full("stss", 0, tables.table("stss"))
    table += _full("stsc", 0, tables.table("stsc"))
    table += _full("stsz", 0, tables.sizes())
    table += _full("co64" if wide else "stco", 0, [ChunkPlaces(tables, wide)])
    table += _roll(tables, info)
    reference = box("dinf", full_box("dref", 0, 0, struct.pack(">I", 1), full_box("url ", 0, 1)))
    return _nest("minf", [heads.get(info.type, full_box("nmhd", 0, 0)), reference], _nest("stbl", table))


def _roll(tables: TrackTables, info: TrackInfo) -> list[bytes]:
    """Return how many packets before one its decoder needs.

    Spec: ISO/IEC 14496-12 clauses 8.9.2, 8.9.3, 10.1; Encapsulation of Opus in ISOBMFF section 4.3.6.2; ISO/IEC 14496-14 annex G for AAC.
    """
    if info.codec not in (OPUS, AAC) or not tables.samples:
        return []
    distance = 1
    if info.codec == OPUS:
        usual = int.from_bytes(tables.table("stts")[1][4:8], "big")  # of the first samples
        distance = -(-_OPUS_ROLL_MS * tables.timescale // (1000 * max(usual, 1)))
    return [
        full_box("sgpd", 1, 0, b"roll", struct.pack(">IIh", 2, 1, -min(distance, 32))),
        full_box("sbgp", 0, 0, b"roll", struct.pack(">III", 1, tables.samples, 1)),
    ]


class FileMovie:
    """The face of this module to `mist.core.mp4_file_mux`, which knows no codec's set-up.

    brand: the major brand, such as "3gp6" for a .3gp file.
    """

    def __init__(self, brand: str = "isom") -> None:
        self.brand = brand

    timing = staticmethod(timing)
    sample_entry = staticmethod(sample_entry)
    moov = staticmethod(moov)

    def file_type(self, tracks: Sequence[TrackInfo]) -> bytes:
        """Return `ftyp`."""
        return file_type(tracks, self.brand)


def make_muxer(tracks: Sequence[TrackInfo]) -> Mp4FileMuxer:
    """Return a muxer that makes a plain MP4 file of the tracks. Raises UnsupportedError, RemoteProtocolError."""
    return Mp4FileMuxer(tracks, FileMovie())


def make_layout(
    tracks: Sequence[TrackInfo], payloads: dict[int, bytes] | None = None, brand: str = "isom"
) -> Mp4FileLayout:
    """Return a layout of a plain MP4 file of the tracks with its index in front. Raises UnsupportedError, RemoteProtocolError."""
    return Mp4FileLayout(tracks, FileMovie(brand), payloads)
