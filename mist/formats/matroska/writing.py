"""Tracks as Matroska describes them, the header and the end of a Segment.

Spec: RFC 9559 sections 4.5, 5.1.1, 5.1.2, 5.1.4, 5.1.5; the Matroska codec mappings; WebM container guidelines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mist.core.ebml import (
    UNKNOWN_SIZE,
    element,
    element_id,
    float_element,
    sized,
    text_element,
    unsigned_element,
    void_element,
)
from mist.core.mkv_mux import MatroskaMuxer
from mist.core.nal import join_length_prefixed
from mist.errors import UnsupportedError
from mist.formats import aac, flac, h264, hevc, opus
from mist.formats.matroska.waveformat import WaveFormat, build_wave_format
from mist.formats.tracks import (
    AAC,
    AC3,
    ALAW,
    AUDIO,
    AV1,
    DTS,
    EAC3,
    FLAC,
    FLOAT,
    H264,
    HEVC,
    JPEG,
    JSON,
    MP2,
    MP3,
    MPEG2,
    OPUS,
    PCM,
    SUBTITLE,
    THEORA,
    ULAW,
    VIDEO,
    VORBIS,
    VP8,
    VP9,
    TrackInfo,
)

SCALE_NS: Final = 1_000_000
SEEK_PRE_ROLL_NS: Final = 80_000_000  # of Opus, RFC 7845 section 4.6
APPLICATION: Final = "mist"
SEEK_HEAD_BYTES: Final = 80  # room for three entries, and a Void behind them
DURATION_BYTES: Final = 11

VIDEO_CODECS: Final = (H264, HEVC, AV1, VP8, VP9, MPEG2, THEORA, JPEG)
AUDIO_CODECS: Final = (AAC, MP3, OPUS, FLAC, VORBIS, AC3, EAC3, MP2, DTS, PCM, FLOAT, ALAW, ULAW)
META_CODECS: Final = (SUBTITLE, JSON)
WEBM_VIDEO_CODECS: Final = (VP8, VP9, AV1)
WEBM_AUDIO_CODECS: Final = (OPUS, VORBIS)

_INFO, _TRACKS, _CUES, _DURATION = 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x4489
_TRACK_TYPES: Final = {VIDEO: 1, AUDIO: 2, SUBTITLE: 0x11, JSON: 0x21}
_NEEDS_INIT: Final = frozenset({H264, HEVC, AV1, OPUS, FLAC, VORBIS, THEORA})
_SELF_DESCRIBING: Final = frozenset({H264, HEVC, AV1, VP8, VP9, MPEG2, JPEG, MP3, MP2, AC3, EAC3, DTS})
_NAMES: Final = {
    H264: "V_MPEG4/ISO/AVC",
    HEVC: "V_MPEGH/ISO/HEVC",
    AV1: "V_AV1",
    VP8: "V_VP8",
    VP9: "V_VP9",
    MPEG2: "V_MPEG2",
    THEORA: "V_THEORA",
    JPEG: "V_MJPEG",
    AAC: "A_AAC",
    MP3: "A_MPEG/L3",
    MP2: "A_MPEG/L2",
    OPUS: "A_OPUS",
    FLAC: "A_FLAC",
    VORBIS: "A_VORBIS",
    AC3: "A_AC3",
    EAC3: "A_EAC3",
    DTS: "A_DTS",
    PCM: "A_PCM/INT/BIG",
    FLOAT: "A_PCM/FLOAT/IEEE",
    ALAW: "A_MS/ACM",
    ULAW: "A_MS/ACM",
    SUBTITLE: "S_TEXT/UTF8",
    JSON: "M_JSON",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What every packet of a track needs. text: its blocks have durations. set_types: NAL unit types of its parameter sets, as bits.

    delay_us: added to every time, as the header says. frame_ms: how long a frame lasts, 0 where not known.
    """

    text: bool
    set_types: int
    delay_us: int
    frame_ms: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A header, and where things are in it. segment_at: first byte of the Segment's content, from which positions count."""

    data: bytes
    segment_at: int
    seek_head_at: int
    duration_at: int
    info_at: int
    tracks_at: int


def muxer(
    tracks: Sequence[TrackInfo], webm: bool = False, indexed: bool = False, length_us: int = 0, shift_us: int = 0
) -> MatroskaMuxer:
    """Return a muxer of Matroska or WebM. indexed: for a file, whose header has room for what is known at its end.

    length_us: how long it will be, where that is known in advance. shift_us: added to all times, which readers want at zero or
    later. Raises UnsupportedError for tracks that it cannot carry.
    """
    return MatroskaMuxer(tracks, Schema(length_us / 1000, shift_us), webm, indexed)


class Schema:
    """What `MatroskaMuxer` asks of the header and the end. length_ms: how long it will be, 0 where that is not known yet.

    shift_us: added to the times of all tracks.
    """

    def __init__(self, length_ms: float = 0.0, shift_us: int = 0) -> None:
        self._length_ms = length_ms
        self._shift_us = shift_us

    def header(self, tracks: Sequence[TrackInfo], webm: bool, indexed: bool) -> Layout:
        """Return everything before the first Cluster. Raises UnsupportedError for a track without a place in it."""
        document = unsigned_element(0x4286, 1) + unsigned_element(0x42F7, 1) + unsigned_element(0x42F2, 4)
        document += unsigned_element(0x42F3, 8) + text_element(0x4282, "webm" if webm else "matroska")
        document += unsigned_element(0x4287, 4) + unsigned_element(0x4285, 2)
        data = element(0x1A45DFA3, document) + element_id(0x18538067) + UNKNOWN_SIZE
        segment_at = seek_head_at = len(data)
        if indexed:
            data += void_element(SEEK_HEAD_BYTES)
        info_at = len(data)
        info = (
            unsigned_element(0x2AD7B1, SCALE_NS) + text_element(0x4D80, APPLICATION) + text_element(0x5741, APPLICATION)
        )
        if indexed:
            info += void_element(DURATION_BYTES)
        elif self._length_ms:
            info += float_element(_DURATION, self._length_ms)
        data += element(_INFO, info)
        tracks_at = len(data)
        entries = [_track_entry(place + 1, track, webm) for place, track in enumerate(tracks)]
        data += element(_TRACKS, b"".join(entries))
        return Layout(data, segment_at, seek_head_at, tracks_at - DURATION_BYTES, info_at, tracks_at)

    def plan(self, track: TrackInfo) -> Plan:
        """Return what the packets of a track need."""
        frame_ms = round(1_000_000 / track.frame_rate_mhz) if track.frame_rate_mhz else 0
        set_types = {H264: 1 << h264.SPS, HEVC: 1 << 33}.get(track.codec, 0)
        return Plan(track.codec == SUBTITLE, set_types, delay_us(track) + self._shift_us, frame_ms)

    def parameter_sets(self, track: TrackInfo) -> bytes:
        """Return the parameter sets of H.264 and HEVC as NAL units with 4-byte lengths, b"" for other codecs."""
        if track.codec == H264 and track.init_data:
            sets = h264.parse_avcc(track.init_data)
            return join_length_prefixed([*sets.sps, *sets.sps_extensions, *sets.pps])
        if track.codec == HEVC and track.init_data:
            configuration = hevc.parse_hvcc(track.init_data)
            return join_length_prefixed([unit for kind in (32, 33, 34) for unit in configuration.of_type(kind)])
        return b""

    def follows(self, old: TrackInfo, new: TrackInfo) -> bool:
        """Tell whether a track can go on as another one: the same codec, set up alike or by what is in its packets."""
        same = (old.type, old.codec) == (new.type, new.codec)
        return same and (old.init_data == new.init_data or new.codec in _SELF_DESCRIBING)

    def index(self, layout: Layout, points: Sequence[tuple[int, int, int]]) -> bytes:
        """Return Cues, b"" where there are none. points: milliseconds, track number, bytes of media before the Cluster.

        Spec: RFC 9559 section 5.1.5.
        """
        media_at = len(layout.data) - layout.segment_at
        cues = []
        for time_ms, track, at in points:
            position = unsigned_element(0xF7, track) + unsigned_element(0xF1, media_at + at)
            cues.append(element(0xBB, unsigned_element(0xB3, time_ms) + element(0xB7, position)))
        return element(_CUES, b"".join(cues)) if cues else b""

    def ends(self, layout: Layout, media_bytes: int, index_bytes: int, length_ms: int) -> list[tuple[int, bytes]]:
        """Return (position, bytes) pairs: the Segment's size, its SeekHead, its duration.   Spec: RFC 9559 sections 5.1.1, 5.1.2.10."""
        media_at = len(layout.data) - layout.segment_at
        places = [(_INFO, layout.info_at - layout.segment_at), (_TRACKS, layout.tracks_at - layout.segment_at)]
        if index_bytes:
            places.append((_CUES, media_at + media_bytes))
        seeks = [
            element(0x4DBB, element(0x53AB, element_id(number)) + element(0x53AC, at.to_bytes(8, "big")))
            for number, at in places
        ]
        seek_head = element(0x114D9B74, b"".join(seeks))
        seek_head += void_element(SEEK_HEAD_BYTES - len(seek_head))
        return [
            (layout.segment_at - 8, sized(media_at + media_bytes + index_bytes)),
            (layout.seek_head_at, seek_head),
            (layout.duration_at, float_element(_DURATION, float(length_ms))),
        ]


# -- Tracks


def _track_entry(number: int, track: TrackInfo, webm: bool) -> bytes:
    """Return a TrackEntry; raise UnsupportedError for a codec without a place in the document, or without its init data."""
    name = _NAMES.get(track.codec)
    if name is None or (webm and track.codec not in (*WEBM_VIDEO_CODECS, *WEBM_AUDIO_CODECS)):
        raise UnsupportedError(f"{'WebM' if webm else 'Matroska'} does not carry {track.codec}")
    if track.codec in _NEEDS_INIT and not track.init_data:
        raise UnsupportedError(f"a track of {track.codec} without init data")
    if track.codec == PCM and _sample_bits(track) == 8:
        name = "A_PCM/INT/LIT"
    content = unsigned_element(0xD7, number) + unsigned_element(0x73C5, number)
    content += unsigned_element(0x83, _TRACK_TYPES.get(track.type, 0) or _TRACK_TYPES[track.codec])
    content += unsigned_element(0x9C, 0) + text_element(0x22B59C, track.language) + text_element(0x86, name)
    private = _private(track)
    if private:
        content += element(0x63A2, private)
    delay_ns = _delay_ns(track)
    if delay_ns:
        content += unsigned_element(0x56AA, delay_ns)
    if track.codec == OPUS:
        content += unsigned_element(0x56BB, SEEK_PRE_ROLL_NS)
    if track.type == VIDEO:
        content += _video(track)
    elif track.type == AUDIO:
        content += _audio(track)
    return element(0xAE, content)


def _video(track: TrackInfo) -> bytes:
    found = b""
    if track.frame_rate_mhz:
        found += unsigned_element(0x23E383, frame_ns(track.frame_rate_mhz))
    if track.width and track.height:
        content = unsigned_element(0xB0, track.width) + unsigned_element(0xBA, track.height)
        if track.rotation_degrees:  # the other way round, up to half a turn; RFC 9559 section 5.1.4.1.28.46
            roll = -track.rotation_degrees if track.rotation_degrees <= 180 else 360 - track.rotation_degrees
            content += element(0x7670, unsigned_element(0x7671, 0) + float_element(0x7675, float(roll)))
        found += element(0xE0, content)
    return found


def frame_ns(rate_mhz: int) -> int:
    """Return how long a frame lasts; rates such as 29970 mean 30000/1001."""
    whole = (rate_mhz * 1001 + 500_000) // 1_000_000
    if rate_mhz % 1000 and abs(whole * 1_000_000 - rate_mhz * 1001) <= 1001:
        return (1_001_000_000 + whole // 2) // whole
    return (10**12 + rate_mhz // 2) // rate_mhz


def _audio(track: TrackInfo) -> bytes:
    rate = output = track.sample_rate_hz
    if track.codec == AAC and track.init_data:
        config = aac.parse_config(track.init_data)
        rate, output = config.core_sample_rate_hz, config.sample_rate_hz
    content = float_element(0xB5, float(rate)) if rate else b""
    if output != rate:
        content += float_element(0x78B5, float(output))
    content += unsigned_element(0x9F, track.channels or 1)
    if track.codec in (PCM, FLOAT, FLAC, ALAW, ULAW):
        content += unsigned_element(0x6264, _sample_bits(track))
    return element(0xE1, content)


def _sample_bits(track: TrackInfo) -> int:
    return track.sample_bits or {FLOAT: 32, ALAW: 8, ULAW: 8}.get(track.codec, 16)


def delay_us(track: TrackInfo) -> int:
    """Return what is added to all times of a track."""
    return (_delay_ns(track) + 500) // 1000


def _delay_ns(track: TrackInfo) -> int:
    """Return CodecDelay: what the decoder drops at the start, which Opus says itself.   Spec: RFC 9559 section 5.1.4.1.25."""
    if track.codec != OPUS:
        rate = track.sample_rate_hz or 1_000_000
        return (track.delay_us * rate + 500_000) // 1_000_000 * 1_000_000_000 // rate
    return opus.parse_head(track.init_data).pre_skip_samples * 1_000_000_000 // opus.SAMPLE_RATE_HZ


def _companded(tag: int) -> Callable[[TrackInfo], bytes]:
    def private(track: TrackInfo) -> bytes:
        channels = track.channels or 1
        rate = track.sample_rate_hz
        return build_wave_format(WaveFormat(tag, channels, rate, rate * channels, channels, 8))

    return private


def _aac_private(track: TrackInfo) -> bytes:
    if track.init_data:
        return track.init_data
    if not track.sample_rate_hz or not track.channels:
        raise UnsupportedError("a track of AAC without init data")
    return aac.build_config(aac.simple_config(track.sample_rate_hz, track.channels))


def _init_data(track: TrackInfo) -> bytes:
    return track.init_data


_PRIVATE: Final[Mapping[str, Callable[[TrackInfo], bytes]]] = {
    H264: _init_data,
    HEVC: _init_data,
    AV1: _init_data,
    OPUS: _init_data,
    VORBIS: _init_data,
    THEORA: _init_data,
    AAC: _aac_private,
    FLAC: lambda track: b"fLaC" + flac.build_dfla(track.init_data)[4:],
    ALAW: _companded(6),
    ULAW: _companded(7),
}


def _private(track: TrackInfo) -> bytes:
    """Return CodecPrivate, b"" for codecs that have none."""
    found = _PRIVATE.get(track.codec)
    return found(track) if found is not None else b""
