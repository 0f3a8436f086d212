"""Tracks as Matroska describes them, in the project's terms.   Spec: RFC 9559 section 5.1, the Matroska codec mappings."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from mist.core.ebml import float_value, split_elements, text_value, unsigned_value
from mist.core.mkv_demux import AT_KEYFRAMES, IN_PARAMETER_SETS, NEVER, MatroskaDemuxer
from mist.core.mkv_frames import FORMS, RULES
from mist.errors import LimitExceededError, MistError, RemoteProtocolError, UnsupportedError
from mist.formats import aac, codecs, flac, h264, hevc, vorbis
from mist.formats.languages import canonical
from mist.formats.matroska.waveformat import WaveFormat, parse_wave_format
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
    META,
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
    left_out,
    none_carried,
)

MAX_PRIVATE_BYTES: Final = 1 << 20  # of a track's CodecPrivate, unpacked
MAX_RATE_HZ: Final = 10_000_000
MAX_PIXELS: Final = 1 << 20
MAX_CHANNELS: Final = 255
MAX_EBML_VERSION: Final = 1
UNIX_EPOCH_2001_US: Final = 978_307_200_000_000  # what DateUTC counts from
DEFAULT_SCALE_NS: Final = 1_000_000

_DOC_TYPES: Final = frozenset({"matroska", "webm"})
_FIRST_BYTES_OF_START_CODE: Final = (b"\0\0\1", b"\0\0\0\1")
_H264_SETS: Final = 1 << h264.SPS | 1 << h264.PPS | 1 << h264.SPS_EXTENSION
_COUNTED_BITS: Final = frozenset({PCM, FLOAT, FLAC, ALAW, ULAW})  # the others' BitDepth is an encoder's guess
_ZLIB, _HEADER_STRIPPING = 0, 3  # ContentCompAlgo


@dataclass(frozen=True, slots=True)
class Entry:
    """One track as the demuxer reads it.

    number: in the file. form, unit_bytes; rule, rule_value, rate_hz: see `mist.core.mkv_frames`. default_ns: how long a frame
    lasts, 0 where not said. delay_ns: CodecDelay. stripped: what all frames begin with. inflate: frames are zlib streams.
    probe: the first packet tells what is missing. refresh: when keyframes are looked at. set_types: NAL unit types of
    parameter sets, as bits. blocks: block size of each Vorbis mode. depth: of reordering, -1 where it is to be learnt.
    """

    number: int
    info: TrackInfo
    form: int = FORMS["AS_IS"]
    unit_bytes: int = 4
    rule: int = RULES["UNTOLD"]
    rule_value: int = 0
    rate_hz: int = 0
    default_ns: int = 0
    delay_ns: int = 0
    stripped: bytes = b""
    inflate: bool = False
    probe: bool = False
    refresh: int = NEVER
    set_types: int = 0
    blocks: tuple[int, ...] = ()
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """A TrackEntry's elements. name: the codec's. entry: what all codecs have in common is already in it."""

    name: str
    private: bytes
    output_rate_hz: int
    entry: Entry

    @property
    def info(self) -> TrackInfo:
        return self.entry.info


def demuxer() -> MatroskaDemuxer:
    """Return a demuxer of Matroska and WebM."""
    return MatroskaDemuxer(Schema())


class Schema:
    """What `MatroskaDemuxer` asks of the header. left_out: see `Demuxer`."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def none_carried(self) -> str:
        """Return why nothing can be read."""
        return none_carried(self.left_out)

    def check(self, content: bytes) -> None:
        """Check an EBML header; raise UnsupportedError for another document type.   Spec: RFC 8794 section 11.2."""
        fields = dict(split_elements(content))
        doc_type = text_value(fields.get(0x4282, b"matroska"))
        if doc_type not in _DOC_TYPES:
            raise UnsupportedError(f"an EBML document of type {doc_type!r}", offset=0, spec="RFC 8794 section 11.2.6")
        if unsigned_value(fields.get(0x42F7, b"\1")) > MAX_EBML_VERSION:
            raise UnsupportedError("a newer version of EBML", offset=0, spec="RFC 8794 section 11.2.3")

    def info(self, content: bytes) -> tuple[int, int, int | None]:
        """Return nanoseconds a tick, microseconds of media (0 where not said), and microseconds of Unix time (or None)."""
        fields = dict(split_elements(content))
        scale = unsigned_value(fields[0x2AD7B1]) if 0x2AD7B1 in fields else DEFAULT_SCALE_NS
        if not 0 < scale <= 10**12:
            raise RemoteProtocolError(f"a tick of {scale} nanoseconds", spec="RFC 9559 section 5.1.2.9")
        ticks = float_value(fields.get(0x4489, b""))
        length = ticks * scale / 1000 if math.isfinite(ticks) and 0 < ticks * scale < 2**62 else 0.0
        date = fields.get(0x4461, b"")
        unix_us = UNIX_EPOCH_2001_US + int.from_bytes(date, "big", signed=True) // 1000 if len(date) == 8 else None
        return scale, round(length), unix_us

    def tracks(self, content: bytes) -> list[Entry]:
        """Return the tracks that can be read, in their order; those of other codecs and encrypted ones are left out.

        Raises RemoteProtocolError.   Spec: RFC 9559 section 5.1.4.
        """
        found = []
        self.left_out = []
        for element, body in split_elements(content):
            if element != 0xAE:
                continue
            fields = dict(split_elements(body))
            source = _read_entry(fields)
            entry = _plan(source) if source is not None else None
            if entry is None:
                self.left_out.append(_why_not(fields, source))
            else:
                delayed = entry.info.type == AUDIO and entry.info.codec != OPUS
                delay_us = (entry.delay_ns + 500) // 1000 if delayed else 0
                found.append(replace(entry, info=entry.info.changed(track_id=entry.number, delay_us=delay_us)))
        return found

    def complete(self, track: TrackInfo, payload: bytes) -> TrackInfo:
        """Return the track with what its first packet says."""
        return codecs.complete(track, payload)

    def refreshed(self, track: TrackInfo, payload: bytes) -> TrackInfo | None:
        """Return the track as a keyframe changes it, None where it does not."""
        return codecs.refreshed(track, payload)


# -- What all codecs have in common


def _read_entry(fields: Mapping[int, bytes]) -> _Source | None:
    """Return a TrackEntry's elements, None for a track that cannot be read."""
    number = unsigned_value(fields.get(0xD7, b""))
    encoding = _read_encodings(fields.get(0x6D80, b""))
    if not number or encoding is None:
        return None
    stripped, inflate, private_too = encoding
    private = fields.get(0x63A2, b"")
    if private_too:
        private = stripped + private if not inflate else _unpacked(private)
    if len(private) > MAX_PRIVATE_BYTES:
        raise LimitExceededError(f"a CodecPrivate of {len(private)} bytes")
    default_ns = unsigned_value(fields.get(0x23E383, b""))
    default_ns = default_ns if default_ns < 10**12 else 0
    info = TrackInfo(META, "", language=_language(fields))
    info, output_rate = _audio_fields(_video_fields(info, fields.get(0xE0, b""), default_ns), fields.get(0xE1, b""))
    entry = Entry(
        number,
        info,
        default_ns=default_ns,
        delay_ns=min(unsigned_value(fields.get(0x56AA, b"")), 10**12),
        stripped=b"" if inflate else stripped,
        inflate=inflate,
    )
    return _Source(text_value(fields.get(0x86, b"")), private, output_rate, entry)


def _language(fields: Mapping[int, bytes]) -> str:
    """Return ISO 639-2: of the BCP 47 element where there is one, else of the older one, whose absence means English."""
    tag = text_value(fields.get(0x22B59D, b""))
    return canonical(tag or text_value(fields.get(0x22B59C, b"eng")))


def _video_fields(info: TrackInfo, content: bytes, default_ns: int) -> TrackInfo:
    if not content:
        return info
    fields = dict(split_elements(content))
    width, height = (unsigned_value(fields.get(number, b"")) for number in (0xB0, 0xBA))
    crops = [unsigned_value(fields.get(number, b"")) for number in (0x54CC, 0x54DD, 0x54BB, 0x54AA)]
    width, height = width - crops[0] - crops[1], height - crops[2] - crops[3]
    rate = (10**12 + default_ns // 2) // default_ns if default_ns else 0
    roll = float_value(dict(split_elements(fields.get(0x7670, b""))).get(0x7675, b""))
    return info.changed(
        rotation_degrees=-round(roll) % 360 if roll in (-180.0, -90.0, 90.0, 180.0) else 0,
        width=width if 0 < width < MAX_PIXELS else 0,
        height=height if 0 < height < MAX_PIXELS else 0,
        frame_rate_mhz=rate if rate <= 10_000_000 else 0,
    )


def _audio_fields(info: TrackInfo, content: bytes) -> tuple[TrackInfo, int]:
    """Return the track with its audio properties, and the rate that comes out of the decoder.   Spec: RFC 9559 section 5.1.4.1.29."""
    if not content:
        return info, 0
    fields = dict(split_elements(content))
    rate = float_value(fields[0xB5]) if 0xB5 in fields else 8000.0
    output = float_value(fields[0x78B5]) if 0x78B5 in fields else rate
    rate, output = (value if math.isfinite(value) and 0 < value <= MAX_RATE_HZ else 0.0 for value in (rate, output))
    channels = unsigned_value(fields.get(0x9F, b"\1"))
    bits = unsigned_value(fields.get(0x6264, b""))
    known = info.changed(
        sample_rate_hz=round(rate),
        channels=channels if channels <= MAX_CHANNELS else 0,
        sample_bits=bits if bits <= 64 else 0,
    )
    return known, round(output)


def _read_encodings(content: bytes) -> tuple[bytes, bool, bool] | None:
    """Return what frames begin with, whether they are compressed by zlib, and whether CodecPrivate is encoded too.

    None for encryption, other compressions and several encodings one over the other.   Spec: RFC 9559 section 5.1.4.1.31.
    """
    encodings = [body for element, body in split_elements(content) if element == 0x6240]
    if not encodings:
        return b"", False, False
    fields = dict(split_elements(encodings[0]))
    scope = unsigned_value(fields.get(0x5032, b"\1"))
    if len(encodings) > 1 or unsigned_value(fields.get(0x5033, b"\0")) != 0:
        return None
    compression = dict(split_elements(fields.get(0x5034, b"")))
    algorithm = unsigned_value(compression.get(0x4254, b"\0"))
    if algorithm not in (_ZLIB, _HEADER_STRIPPING):
        return None
    in_frames, in_private = bool(scope & 1), bool(scope & 2)
    settings = compression.get(0x4255, b"")
    if algorithm == _HEADER_STRIPPING:
        return (settings if in_frames else b""), False, in_private
    return b"", in_frames, in_private


def _unpacked(private: bytes) -> bytes:
    engine = zlib.decompressobj()
    try:
        return engine.decompress(private, MAX_PRIVATE_BYTES + 1)
    except zlib.error:
        return b""


# -- What each codec needs


def _plan(source: _Source) -> Entry | None:
    """Return how a track is read; None where its codec is not known or its set-up is broken."""
    name = source.name
    found = _CODECS.get(name)
    if found is None:
        family = next((prefix for prefix in _FAMILIES if name.startswith(prefix)), None)
        found = _FAMILIES[family] if family is not None else None
    if found is None:
        return None
    try:
        entry = found(source)
    except MistError:
        return None
    return entry


def _why_not(fields: Mapping[int, bytes], source: _Source | None) -> str:
    """Return why a TrackEntry is not read."""
    number, name = unsigned_value(fields.get(0xD7, b"")), text_value(fields.get(0x86, b""))
    if source is None:
        return f"track {number} is left out: it is encrypted, or its packets are stored in a way that is not known"
    return left_out(number, name)


def _entry(source: _Source, kind: str, codec: str, **changes: object) -> Entry:
    """Return the track's entry with type and codec, and the properties that its init data tells."""
    init_data = changes.pop("init_data", b"")
    assert isinstance(init_data, bytes)
    bits = source.info.sample_bits if codec in _COUNTED_BITS else 0
    info = codecs.complete(source.info.changed(type=kind, codec=codec, init_data=init_data, sample_bits=bits))
    return replace(source.entry, info=info, **changes)  # type: ignore[arg-type]


def _audio(source: _Source, codec: str, rule: str, value: int = 0, **changes: object) -> Entry:
    return _entry(
        source, AUDIO, codec, rule=RULES[rule], rule_value=value, rate_hz=source.info.sample_rate_hz, **changes
    )


def _h264(source: _Source) -> Entry:
    private = source.private
    common = {"refresh": IN_PARAMETER_SETS, "set_types": _H264_SETS}
    if not private or private.startswith(_FIRST_BYTES_OF_START_CODE):
        return _entry(source, VIDEO, H264, form=FORMS["ANNEXB"], probe=True, depth=-1, **common)
    size = (private[4] & 3) + 1 if len(private) > 4 else 4
    init_data = private[:4] + bytes((private[4] | 3,)) + private[5:] if size != 4 else private
    form = FORMS["AS_IS" if size == 4 else "NAL_LENGTHS"]
    if not h264.parse_avcc(init_data).sps:
        return _entry(source, VIDEO, H264, form=form, unit_bytes=size, probe=True, depth=-1, **common)
    depth = codecs.reordering(source.info.changed(codec=H264, init_data=init_data))
    return _entry(source, VIDEO, H264, form=form, unit_bytes=size, init_data=init_data, depth=depth, **common)


def _hevc(source: _Source) -> Entry:
    private = source.private
    common = {"refresh": IN_PARAMETER_SETS, "set_types": hevc.PARAMETER_SET_MASK}
    if not private or private.startswith(_FIRST_BYTES_OF_START_CODE):
        return _entry(source, VIDEO, HEVC, form=FORMS["ANNEXB"], probe=True, depth=-1, **common)
    size = (private[21] & 3) + 1 if len(private) > 21 else 4
    init_data = private[:21] + bytes((private[21] | 3,)) + private[22:] if size != 4 else private
    form = FORMS["AS_IS" if size == 4 else "NAL_LENGTHS"]
    if not hevc.parse_hvcc(init_data).of_type(33):
        return _entry(source, VIDEO, HEVC, form=form, unit_bytes=size, probe=True, depth=-1, **common)
    depth = codecs.reordering(source.info.changed(codec=HEVC, init_data=init_data))
    return _entry(source, VIDEO, HEVC, form=form, unit_bytes=size, init_data=init_data, depth=depth, **common)


def _av1(source: _Source) -> Entry:
    init_data = source.private
    return _entry(
        source, VIDEO, AV1, form=FORMS["OBUS"], init_data=init_data, probe=not init_data, refresh=AT_KEYFRAMES
    )


def _vp8(source: _Source) -> Entry:
    return _entry(source, VIDEO, VP8, refresh=AT_KEYFRAMES)


def _vp9(source: _Source) -> Entry:
    return _entry(source, VIDEO, VP9, probe=True, refresh=AT_KEYFRAMES)


def _mpeg2(source: _Source) -> Entry:
    return _entry(source, VIDEO, MPEG2, depth=-1)


def _theora(source: _Source) -> Entry:
    return _entry(source, VIDEO, THEORA, init_data=source.private)


def _jpeg(source: _Source) -> Entry:
    return _entry(source, VIDEO, JPEG)


def _vfw(source: _Source) -> Entry | None:
    """Read Video for Windows: a BITMAPINFOHEADER, of which only motion JPEG is known."""
    return _jpeg(source) if source.private[16:20].upper() == b"MJPG" else None


def _aac(source: _Source) -> Entry:
    private = source.private or _aac_config(source)
    config = aac.parse_config(private)
    entry = _audio(source, AAC, "FIXED", config.frame_samples, init_data=private)
    return replace(entry, rate_hz=config.sample_rate_hz)  # of the samples that come out, as frame_samples counts them


def _aac_config(source: _Source) -> bytes:
    """Return the configuration that an old codec ID such as "A_AAC/MPEG4/LC/SBR" means."""
    words = source.name.split("/")
    object_type = {"MAIN": 1, "LC": 2, "SSR": 3, "LTP": 4}.get(words[2] if len(words) > 2 else "", 2)
    core = source.info.sample_rate_hz
    plain = aac.simple_config(core, source.info.channels, object_type)
    if "SBR" not in words:
        return aac.build_config(plain)
    output = source.output_rate_hz if source.output_rate_hz > core else 2 * core
    return aac.build_config(replace(plain, sbr=True, sample_rate_hz=output))


def _opus(source: _Source) -> Entry:
    private = source.private
    entry = _audio(source, OPUS, "OPUS", init_data=private, probe=not private)
    return replace(entry, rate_hz=48_000)


def _vorbis(source: _Source) -> Entry:
    head = vorbis.describe(source.private)
    modes = vorbis.long_modes(vorbis.parse_headers(source.private)[2], head.channels)
    blocks = tuple(head.long_block_samples if long else head.short_block_samples for long in modes)
    return _audio(source, VORBIS, "VORBIS", init_data=source.private, blocks=blocks)


def _flac(source: _Source) -> Entry:
    """Read native FLAC headers: "fLaC", and STREAMINFO as the first block.   Spec: RFC 9639 section 8."""
    at = 8 if source.private.startswith(b"fLaC") else 0
    init_data = source.private[at : at + flac.STREAM_INFO_BYTES]
    return _audio(source, FLAC, "FLAC", init_data=init_data, probe=not init_data)


def _pcm(source: _Source, swapped: bool) -> Entry | None:
    info = source.info
    width = (info.sample_bits + 7) // 8
    if width not in (1, 2, 3, 4) or info.sample_bits % 8:
        return None
    form = FORMS["SWAPPED" if swapped and width > 1 else "AS_IS"]
    return _audio(source, PCM, "SAMPLE_BYTES", width * info.channels, form=form, unit_bytes=width)


def _float(source: _Source) -> Entry:
    return _audio(source, FLOAT, "SAMPLE_BYTES", source.info.sample_bits // 8 * source.info.channels)


def _acm(source: _Source) -> Entry | None:
    """Read a WAVEFORMATEX and what its format tag means."""
    wave = parse_wave_format(source.private)
    info = source.info.changed(sample_rate_hz=wave.sample_rate_hz, channels=wave.channels, sample_bits=wave.sample_bits)
    source = replace(source, entry=replace(source.entry, info=info), private=wave.extra)
    found = _WAVE_CODECS.get(wave.tag)
    return found(source, wave) if found is not None else None


def _companded(codec: str) -> Callable[[_Source, WaveFormat], Entry]:
    return lambda source, wave: _audio(source, codec, "SAMPLE_BYTES", wave.channels)


def _plain_audio(codec: str, rule: str, value: int = 0) -> Callable[[_Source], Entry]:
    return lambda source: _audio(source, codec, rule, value)


def _text(form: str) -> Callable[[_Source], Entry]:
    return lambda source: _entry(source, META, SUBTITLE, form=FORMS[form])


_CODECS: Final[Mapping[str, Callable[[_Source], Entry | None]]] = {
    "V_MPEG4/ISO/AVC": _h264,
    "V_MPEGH/ISO/HEVC": _hevc,
    "V_AV1": _av1,
    "V_VP8": _vp8,
    "V_VP9": _vp9,
    "V_MPEG2": _mpeg2,
    "V_THEORA": _theora,
    "V_MJPEG": _jpeg,
    "V_MS/VFW/FOURCC": _vfw,
    "A_MPEG/L3": _plain_audio(MP3, "MPEG_AUDIO"),
    "A_MPEG/L2": _plain_audio(MP2, "MPEG_AUDIO"),
    "A_EAC3": _plain_audio(EAC3, "EAC3"),
    "A_OPUS": _opus,
    "A_VORBIS": _vorbis,
    "A_FLAC": _flac,
    "A_PCM/INT/BIG": lambda source: _pcm(source, False),
    "A_PCM/INT/LIT": lambda source: _pcm(source, True),
    "A_PCM/FLOAT/IEEE": _float,
    "A_MS/ACM": _acm,
    "S_TEXT/UTF8": _text("AS_IS"),
    "S_TEXT/ASCII": _text("AS_IS"),
    "S_TEXT/ASS": _text("ASS"),
    "S_TEXT/SSA": _text("ASS"),
    "S_ASS": _text("ASS"),
    "S_SSA": _text("ASS"),
    "S_TEXT/WEBVTT": _text("AS_IS"),
    "D_WEBVTT/SUBTITLES": _text("WEBVTT"),
    "D_WEBVTT/CAPTIONS": _text("WEBVTT"),
    "D_WEBVTT/DESCRIPTIONS": _text("WEBVTT"),
    "M_JSON": lambda source: _entry(source, META, JSON),
}

# Codec IDs with further words behind.
_FAMILIES: Final[Mapping[str, Callable[[_Source], Entry | None]]] = {
    "A_AAC": _aac,
    "A_AC3": _plain_audio(AC3, "FIXED", 1536),
    "A_DTS": _plain_audio(DTS, "DTS"),
    "A_OPUS": _opus,
}

_WAVE_CODECS: Final[Mapping[int, Callable[[_Source, WaveFormat], Entry | None]]] = {
    0x0001: lambda source, _wave: _pcm(source, True),
    0x0003: lambda source, _wave: _float(source),
    0x0006: _companded(ALAW),
    0x0007: _companded(ULAW),
    0x0050: lambda source, _wave: _audio(source, MP2, "MPEG_AUDIO"),
    0x0055: lambda source, _wave: _audio(source, MP3, "MPEG_AUDIO"),
    0x00FF: lambda source, _wave: _aac(source),
    0x2000: lambda source, _wave: _audio(source, AC3, "FIXED", 1536),
    0x2001: lambda source, _wave: _audio(source, DTS, "DTS"),
}
