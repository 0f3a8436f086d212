"""Boxes of MP4: the set-up of a fragmented file (`ftyp`, `moov`) and what its tracks need to know of their codecs.

Spec: ISO/IEC 14496-12 (2022) unless a line says otherwise; 14496-14 (mp4a), 14496-15 (avc1, hvc1), AV1 in ISOBMFF 1.2, VP codec in
ISOBMFF 1.0, Opus in ISOBMFF 0.8.1, FLAC in ISOBMFF 0.0.4, ETSI TS 102 366 annex F (ac-3, ec-3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats import aac, ac3, flac, h264, hevc, languages, opus, timed_metadata
from mist.formats.tracks import (
    AAC,
    AC3,
    AUDIO,
    AV1,
    EAC3,
    FLAC,
    H264,
    HEVC,
    META,
    MP3,
    OPUS,
    VIDEO,
    VP8,
    VP9,
    TrackInfo,
)

VIDEO_TIMESCALE: Final = 90_000
DEFAULT_AUDIO_TIMESCALE: Final = 48_000
MAX_TIMESCALE: Final = 768_000
MOVIE_TIMESCALE: Final = 1000

# Sample flags, clause 8.8.3.1: depends on no other sample; depends on others and is no sync sample.
SYNC_SAMPLE: Final = 0x0200_0000
OTHER_SAMPLE: Final = 0x0101_0000

MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_TURNS: Final = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}  # cosine and sine
_OBJECT_TYPE_AAC: Final = 0x40  # MP4 registration authority, object type indications
_OBJECT_TYPE_MPEG2_MP3: Final = 0x69
_OBJECT_TYPE_MPEG1_MP3: Final = 0x6B
_LENGTHS_OF_FOUR_BYTES: Final = 3  # lengthSizeMinusOne


# --- boxes ----------------------------------------------------------------------------------------------------------


def box(kind: str, *parts: bytes) -> bytes:
    """Return a box of four characters and its parts."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), kind.encode("latin-1")) + b"".join(parts)


def full_box(kind: str, version: int, flags: int, *parts: bytes) -> bytes:
    """Return a box that begins with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def pack_language(language: str) -> int:
    """Return a language as the 15 bits of mdhd."""
    code = languages.canonical(language)
    if len(code) != 3 or not all("a" <= letter <= "z" for letter in code):
        code = languages.UNDETERMINED
    first, second, third = (ord(letter) - 0x60 for letter in code)
    return first << 10 | second << 5 | third


# --- codecs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """How one codec looks in MP4.

    kind: of the sample entry. configuration: its boxes from the track and the first packet seen ("" if none).
    samples_per_packet: of audio, 0 when packets differ. parameter_sets: those of the init data as NAL units.
    fixed: whether other init data needs another `moov`.
    """

    kind: str
    configuration: Callable[[TrackInfo, bytes], bytes]
    samples_per_packet: Callable[[TrackInfo], int] = lambda _track: 0
    parameter_sets: Callable[[TrackInfo], Sequence[bytes]] = lambda _track: ()
    fixed: bool = False


def _avcc(track: TrackInfo, _payload: bytes) -> bytes:
    record = bytearray(track.init_data)
    if len(record) < 7:
        raise RemoteProtocolError("an avcC of under 7 bytes", spec="ISO/IEC 14496-15 clause 5.3.3.1")
    record[4] |= _LENGTHS_OF_FOUR_BYTES
    return box("avcC", bytes(record))


def _hvcc(track: TrackInfo, _payload: bytes) -> bytes:
    """Return hvcC with four-byte lengths and all arrays marked complete, which hvc1 asks for."""
    record = bytearray(track.init_data)
    if len(record) < 23:
        raise RemoteProtocolError("an hvcC of under 23 bytes", spec="ISO/IEC 14496-15 clause 8.3.3.1")
    record[21] |= _LENGTHS_OF_FOUR_BYTES
    at = 23
    for _ in range(record[22]):
        if at + 3 > len(record):
            break
        record[at] |= 0x80
        count = record[at + 1] << 8 | record[at + 2]
        at += 3
        for _ in range(count):
            if at + 2 > len(record):
                break
            at += 2 + (record[at] << 8 | record[at + 1])
    return box("hvcC", bytes(record))


def _h264_sets(track: TrackInfo) -> Sequence[bytes]:
    record = h264.parse_avcc(track.init_data)
    return (*record.sps, *record.sps_extensions, *record.pps)


def _hevc_sets(track: TrackInfo) -> Sequence[bytes]:
    record = hevc.parse_hvcc(track.init_data)
    return tuple(unit for kind in (hevc.VPS, hevc.SPS, hevc.PPS) for unit in record.of_type(kind))


def _vpcc(track: TrackInfo, _payload: bytes) -> bytes:
    record = track.init_data
    if len(record) < 12:  # profile 0, no level, 4:2:0, 8 bits, BT.709; version 1 of the full box
        record = bytes((1, 0, 0, 0, 0, 0, 0x82, 1, 1, 1, 0, 0))
    return box("vpcC", record)


def _descriptor(tag: int, *parts: bytes) -> bytes:
    """Return a descriptor with a four-byte size.   Spec: ISO/IEC 14496-1 clause 8.3.3."""
    size = sum(map(len, parts))
    return bytes((tag, *(0x80 | size >> shift & 0x7F for shift in (21, 14, 7)), size & 0x7F)) + b"".join(parts)


def esds(object_type: int, track: TrackInfo, setup: bytes, video: bool = False) -> bytes:
    """Return esds.   Spec: ISO/IEC 14496-14 clause 6.7.2, ISO/IEC 14496-1 clause 7.2.6."""
    rate_bps = min(track.bandwidth_bps, 0xFFFF_FFFF)
    decoder = struct.pack(">BBHBII", object_type, (4 if video else 5) << 2 | 1, 0, 0, rate_bps, rate_bps)
    inner = _descriptor(5, setup) if setup else b""
    stream = struct.pack(">HB", 0, 0) + _descriptor(4, decoder, inner) + _descriptor(6, b"\x02")
    return full_box("esds", 0, 0, _descriptor(3, stream))


def _aac_esds(track: TrackInfo, _payload: bytes) -> bytes:
    return esds(_OBJECT_TYPE_AAC, track, track.init_data)


def _mp3_esds(track: TrackInfo, _payload: bytes) -> bytes:
    low = track.sample_rate_hz and track.sample_rate_hz < 32_000
    return esds(_OBJECT_TYPE_MPEG2_MP3 if low else _OBJECT_TYPE_MPEG1_MP3, track, b"")


def _dops(track: TrackInfo, _payload: bytes) -> bytes:
    channels = track.channels or 2
    head = opus.parse_head(track.init_data) if track.init_data else opus.OpusHead(channels, coupled=channels - 1)
    return box("dOps", opus.build_dops(head))


def _dfla(track: TrackInfo, _payload: bytes) -> bytes:
    if len(track.init_data) < flac.STREAM_INFO_BYTES:
        raise RemoteProtocolError("FLAC without its STREAMINFO", spec="RFC 9639 section 8.2")
    return box("dfLa", flac.build_dfla(track.init_data[: flac.STREAM_INFO_BYTES]))


def _silent_frame(track: TrackInfo, extended: bool) -> bytes:
    """Return a header that says of an AC-3 track what its properties say, for a viewer that joins before any packet."""
    rate_code = {44_100: 1, 32_000: 2}.get(track.sample_rate_hz, 0)
    mode = {1: 1, 3: 3, 4: 6}.get(track.channels, 7 if track.channels > 4 else 2)
    lfe = track.channels == 6
    if extended:  # 1536 samples, bsid 16; spec: ETSI TS 102 366 clause E.1.2.1
        value = 0x0B77 << 48 | 0x3F << 32 | rate_code << 30 | 3 << 28 | mode << 25 | lfe << 24 | 16 << 19
        return value.to_bytes(8, "big") + bytes(120)
    bits = mode << 5
    place = 5
    for present in (mode & 1 and mode != 1, mode & 4, mode == 2):
        place -= 2 if present else 0
    bits |= lfe << place - 1
    return bytes((0x0B, 0x77, 0, 0, rate_code << 6 | 0x14, 8 << 3, bits, 0)) + bytes(120)


def _dac3(track: TrackInfo, payload: bytes) -> bytes:
    try:
        return box("dac3", ac3.build_dac3(ac3.parse_sync_frame(payload or _silent_frame(track, False))))
    except RemoteProtocolError:
        return box("dac3", ac3.build_dac3(ac3.parse_sync_frame(_silent_frame(track, False))))


def _dec3(track: TrackInfo, payload: bytes) -> bytes:
    try:
        return box("dec3", ac3.build_dec3(payload or _silent_frame(track, True)))
    except RemoteProtocolError:
        return box("dec3", ac3.build_dec3(_silent_frame(track, True)))


def _aac_samples(track: TrackInfo) -> int:
    return aac.parse_config(track.init_data).frame_samples if track.init_data else 1024


_ENTRIES: Final[Mapping[str, _Entry]] = {
    H264: _Entry("avc1", _avcc, parameter_sets=_h264_sets),
    HEVC: _Entry("hvc1", _hvcc, parameter_sets=_hevc_sets),
    AV1: _Entry("av01", lambda track, _payload: box("av1C", track.init_data)),
    VP8: _Entry("vp08", _vpcc),
    VP9: _Entry("vp09", _vpcc),
    AAC: _Entry("mp4a", _aac_esds, _aac_samples, fixed=True),
    MP3: _Entry("mp4a", _mp3_esds),
    OPUS: _Entry("Opus", _dops, fixed=True),
    FLAC: _Entry("fLaC", _dfla),
    AC3: _Entry("ac-3", _dac3, lambda _track: 1536),
    EAC3: _Entry("ec-3", _dec3),
}
CODECS: Final = frozenset(_ENTRIES)


def _entry(track: TrackInfo) -> _Entry:
    if track.codec not in _ENTRIES or track.type not in (AUDIO, VIDEO):
        raise UnsupportedError(f"{track.codec} has no place in MP4")
    return _ENTRIES[track.codec]


def sample_entry(track: TrackInfo, payload: bytes = b"") -> bytes:
    """Return the sample entry of a track. payload: one of its packets, which AC-3 and E-AC-3 are described from.

    Raises UnsupportedError for a codec without a place in MP4; RemoteProtocolError for init data that does not fit.
    """
    entry = _entry(track)
    configuration = entry.configuration(track, payload)
    return box(entry.kind, video_head(track) if track.type == VIDEO else audio_head(track), configuration)


def video_head(track: TrackInfo) -> bytes:
    """Return the head of a video sample entry: no predefined values, 72 dpi, one frame a sample, depth 24.   Spec: clause 12.1.3."""
    size = struct.pack(">HHIII", min(track.width, 0xFFFF), min(track.height, 0xFFFF), 72 << 16, 72 << 16, 0)
    return struct.pack(">6xH16x", 1) + size + struct.pack(">H32xHh", 1, 24, -1)


def audio_head(track: TrackInfo, sample_bits: int = 16) -> bytes:
    """Return the head of an audio sample entry; a rate over 16 bits is left to the codec's own box.   Spec: clause 12.2.3."""
    rate = _sample_rate(track)
    return struct.pack(">6xH8xHH4xI", 1, track.channels or 2, sample_bits, rate << 16 if rate < 1 << 16 else 0)


def _sample_rate(track: TrackInfo) -> int:
    if track.codec == OPUS:
        return opus.SAMPLE_RATE_HZ
    return track.sample_rate_hz if 0 < track.sample_rate_hz <= MAX_TIMESCALE else DEFAULT_AUDIO_TIMESCALE


# --- the movie ------------------------------------------------------------------------------------------------------


def display_matrix(track: TrackInfo) -> bytes:
    """Return how a track's pictures are turned, and moved back to where they were.   Spec: ISO/IEC 14496-12 clauses 6.2.2, 8.3.2."""
    cosine, sine = _TURNS.get(track.rotation_degrees, _TURNS[0])
    right = track.width if cosine < 0 else track.height if sine > 0 else 0
    down = track.height if cosine < 0 else track.width if sine < 0 else 0
    fixed = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, right << 16, down << 16, 0x40000000)
    return struct.pack(">9i", *(max(-(1 << 31), min(one, (1 << 31) - 1)) for one in fixed))


def rotation_of(matrix: tuple[int, ...]) -> int:
    """Return the degrees, clockwise, of a matrix of nine numbers; 0 for one that does anything but turn by quarters."""
    a, b, _, c, d, *_ = matrix
    for degrees, (cosine, sine) in _TURNS.items():
        if (a, b, c, d) == (cosine << 16, sine << 16, -sine << 16, cosine << 16):
            return degrees
    return 0


def _track_box(track: TrackInfo, number: int, timescale: int, payload: bytes) -> bytes:
    video = track.type == VIDEO
    zeros = bytes(8)
    header = struct.pack(">IIIII", 0, 0, number, 0, 0) + zeros
    header += struct.pack(">HHHH", 0, 0 if video else 1, 0 if video else 0x0100, 0) + display_matrix(track)
    header += struct.pack(">II", (track.width & 0xFFFF) << 16, (track.height & 0xFFFF) << 16) if video else zeros
    media = box(
        "mdia",
        full_box("mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, timescale, 0, pack_language(track.language), 0)),
        full_box("hdlr", 0, 0, bytes(4), b"vide" if video else b"soun", bytes(12), b"mist\0"),
        box(
            "minf",
            full_box("vmhd", 0, 1, zeros) if video else full_box("smhd", 0, 0, bytes(4)),
            box("dinf", full_box("dref", 0, 0, struct.pack(">I", 1), full_box("url ", 0, 1))),
            box(
                "stbl",
                full_box("stsd", 0, 0, struct.pack(">I", 1), sample_entry(track, payload)),
                full_box("stts", 0, 0, bytes(4)),
                full_box("stsc", 0, 0, bytes(4)),
                full_box("stsz", 0, 0, zeros),
                full_box("stco", 0, 0, bytes(4)),
            ),
        ),
    )
    return box("trak", full_box("tkhd", 0, 3, header), media)


def init_segment(tracks: Sequence[TrackInfo], payloads: Mapping[int, bytes] | None = None) -> bytes:
    """Return `ftyp` and `moov` of a fragmented file; track ids count from 1 in the order of the tracks.

    payloads: a packet of each AC-3 or E-AC-3 track, by its place in tracks; without one their set-up boxes are made from
    the track's properties. There is no edit list to show a late joiner's first picture at time zero: ffmpeg 9 and
    Chromium take an AAC track's media time for samples to throw away, and GStreamer 1.22 takes it off twice.
    Metadata has no track, but a number all the same.
    Raises UnsupportedError, RemoteProtocolError.
    """
    payloads = payloads or {}
    movie = struct.pack(">IIIIIHHII", 0, 0, MOVIE_TIMESCALE, 0, 0x10000, 0x0100, 0, 0, 0) + MATRIX + bytes(24)
    traks = []
    extends = []
    for place, track in enumerate(tracks):
        if event_scheme(track):  # beside the fragments
            continue
        timing = track_timing(track)
        traks.append(_track_box(track, place + 1, timing.timescale, payloads.get(place, b"")))
        flags = OTHER_SAMPLE if track.type == VIDEO else SYNC_SAMPLE
        extends.append(full_box("trex", 0, 0, struct.pack(">IIIII", place + 1, 1, timing.default_ticks, 0, flags)))
    return box("ftyp", b"iso5", bytes(4), b"iso5iso6mp41") + box(
        "moov",
        full_box("mvhd", 0, 0, movie + struct.pack(">I", len(tracks) + 1)),
        *traks,
        box("mvex", *extends),
    )


# --- what the fragment muxer asks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrackTiming:
    """Clock and durations of a track. Two tracks of equal timing can follow each other under one `moov`.

    codec: internal name. timescale: ticks a second. default_ticks: of every packet where they are all equal, and in
    `trex`; else 0. frame_ticks: usual duration of a video frame, 0 unknown.
    """

    codec: str
    timescale: int
    default_ticks: int = 0
    frame_ticks: int = 0


def track_timing(track: TrackInfo) -> TrackTiming:
    """Return the timing of a track: 90 kHz for video, the sample rate for audio, so that no usual time is rounded twice.

    Raises UnsupportedError, RemoteProtocolError for init data that does not parse.
    """
    if track.type == META and track.codec in timed_metadata.SCHEMES:
        return TrackTiming(track.codec, VIDEO_TIMESCALE)
    entry = _entry(track)
    if track.type == VIDEO:
        rate_mhz = track.frame_rate_mhz
        frame_ticks = (VIDEO_TIMESCALE * 1000 + rate_mhz // 2) // rate_mhz if rate_mhz > 0 else 0
        return TrackTiming(track.codec, VIDEO_TIMESCALE, frame_ticks=frame_ticks)
    return TrackTiming(track.codec, _sample_rate(track), entry.samples_per_packet(track))


def length_prefixed_parameter_sets(track: TrackInfo) -> bytes:
    """Return the parameter sets of an H.264 or HEVC track as they stand in front of a keyframe; b"" for other codecs.

    Raises RemoteProtocolError for init data that does not parse.
    """
    if track.type == META:
        return b""
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in _entry(track).parameter_sets(track))


def event_scheme(track: TrackInfo) -> bytes:
    """Return the URI of a metadata track's events, b"" for other tracks."""
    return timed_metadata.SCHEMES.get(track.codec, "").encode() if track.type == META else b""


class LiveMovie:
    """The face of this module to `mist.core.mp4_mux.Mp4FragmentMuxer`, which knows no codec's set-up."""

    init_segment = staticmethod(init_segment)
    timing = staticmethod(track_timing)
    parameter_sets = staticmethod(length_prefixed_parameter_sets)
    event_scheme = staticmethod(event_scheme)

    @staticmethod
    def follows(old: TrackInfo, new: TrackInfo) -> bool:
        """Return whether packets of a changed track are understood by those who have the old track's `moov`."""
        if old == new:
            return True
        before, after = track_timing(old), track_timing(new)
        if (before.codec, before.timescale, before.default_ticks) != (
            after.codec,
            after.timescale,
            after.default_ticks,
        ):
            return False
        if old.type != AUDIO:
            return True
        if (old.channels, old.sample_bits) != (new.channels, new.sample_bits):
            return False
        return not (_entry(new).fixed and old.init_data != new.init_data)
