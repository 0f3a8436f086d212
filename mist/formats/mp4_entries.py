"""Sample entries of MP4 and QuickTime read: which codec a track has, its set-up, and how its samples are stored.

Spec: ISO/IEC 14496-12 (2022) clauses 8.5.2, 12.1.3, 12.2.3; 14496-14, 14496-15; 23003-5 (uncompressed audio); 3GPP TS 26.245 (tx3g);
QuickTime File Format, "Sound sample descriptions" ("QTFF"). What codecs keep in boxes of their own: see mp4_boxes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from mist.core.mp4_payloads import (
    FORM_AS_IT_IS,
    FORM_CUES,
    FORM_LENGTH_AND_TEXT,
    FORM_LITTLE_ENDIAN,
    FORM_NAL_UNITS,
    FORM_OBUS,
    FORM_SIGNED_BYTES,
    FORM_SKIPPED,
)
from mist.errors import RemoteProtocolError
from mist.formats import aac, flac, opus, timed_metadata
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
    VP8,
    VP9,
    TrackInfo,
)

_SPEC: Final = "ISO/IEC 14496-12 clause 8.5.2"
_VIDEO_HEAD_BYTES: Final = 78
_AUDIO_HEAD_BYTES: Final = 28
_METADATA_HEAD_BYTES: Final = 8
_QUICKTIME_1_BYTES: Final = 16
_QUICKTIME_2_BYTES: Final = 36
_MAX_DESCRIPTOR_DEPTH: Final = 3
_MPEG_LAYER_3_OBJECT: Final = 34  # an audio object type that is MP3
_SURROUND: Final = 0x7FFF


@dataclass(frozen=True, slots=True)
class Description:
    """One sample entry.

    info: what it says of the track, None for a codec that is not carried. form, width: how a sample becomes a packet, and of
    what size its lengths or words are (see `mist.core.mp4_payloads`). frame_bytes: of uncompressed audio, else 0. pending:
    the track's first packet has something to add. offset: byte of the file where the entry begins.
    """

    info: TrackInfo | None = None
    form: int = FORM_SKIPPED
    width: int = 0
    frame_bytes: int = 0
    pending: bool = False
    offset: int = 0


@dataclass(slots=True)
class _Entry:
    """A sample entry taken apart: its type, its head and the boxes in it."""

    kind: str
    media: str
    offset: int
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 0
    rate_hz: int = 0
    linear_flags: int | None = None  # of QuickTime's lpcm, version 2
    boxes: dict[str, bytes] = field(default_factory=dict)

    def box(self, kind: str, least: int = 0) -> bytes:
        """Return the content of a box, b"" if it is not there. Raises RemoteProtocolError if it is shorter than least."""
        data = self.boxes.get(kind, b"")
        if data and len(data) < least:
            raise RemoteProtocolError(f"a {kind} box of {len(data)} bytes", offset=self.offset, spec=_SPEC)
        return data


def children(data: bytes, begin: int, end: int, base: int, inside: str) -> Iterator[tuple[str, int, int]]:
    """Yield (type, begin, end) of the content of each box in data[begin:end].

    base: byte of the file where data begins. inside: what it is, for messages. Fewer than eight bytes at the end are passed over, as
    QuickTime ends lists with four zeros. Raises RemoteProtocolError for a box that is larger than what it is in.
    """
    at = begin
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif size == 0:
            size = end - at
        if size < head or size > end - at:
            name = kind.decode("latin-1")
            raise RemoteProtocolError(
                f"a box {name!r} of {size} bytes in {inside}, which has {end - at} left",
                offset=base + at,
                spec="ISO/IEC 14496-12 clause 4.2",
            )
        yield kind.decode("latin-1"), at + head, at + size
        at += size


def describe(kind: str, media: str, data: bytes, begin: int, end: int, base: int, box_version: int) -> Description:
    """Return what a sample entry says.

    kind: its type. media: handler type of its track. data[begin:end]: its content. box_version: of the stsd box.
    Raises RemoteProtocolError.
    """
    entry = _Entry(kind, media, base + begin)
    if kind in ("mett", "urim"):
        return _metadata(entry, data, begin, end, base)
    make = _MAKERS.get(kind)
    if make is None:
        return Description()
    if media == "vide":
        inner = _read_video(entry, data, begin, end)
    elif media == "soun":
        inner = _read_audio(entry, data, begin, end, box_version)
    else:
        return make(entry)
    _read_boxes(entry, data, inner, end, base)
    return replace(make(entry), offset=entry.offset)


def _read_video(entry: _Entry, data: bytes, begin: int, end: int) -> int:
    if end - begin < _VIDEO_HEAD_BYTES:
        raise RemoteProtocolError(f"a video sample entry of {end - begin} bytes", offset=entry.offset, spec=_SPEC)
    entry.width, entry.height = struct.unpack_from(">HH", data, begin + 24)
    return begin + _VIDEO_HEAD_BYTES


def _read_audio(entry: _Entry, data: bytes, begin: int, end: int, box_version: int) -> int:
    """Read the head of an audio sample entry, of ISO or of QuickTime versions 0 to 2."""
    if end - begin < _AUDIO_HEAD_BYTES:
        raise RemoteProtocolError(f"an audio sample entry of {end - begin} bytes", offset=entry.offset, spec=_SPEC)
    version, entry.channels, entry.bits = struct.unpack_from(">H6xHH", data, begin + 8)
    entry.rate_hz = int(struct.unpack_from(">I", data, begin + 24)[0]) >> 16
    if box_version or version not in (1, 2):
        return begin + _AUDIO_HEAD_BYTES
    inner = begin + _AUDIO_HEAD_BYTES + (_QUICKTIME_1_BYTES if version == 1 else _QUICKTIME_2_BYTES)
    if inner > end:
        raise RemoteProtocolError(f"a sound description of {end - begin} bytes", offset=entry.offset, spec="QTFF")
    if version == 2:
        rate, channels, bits, flags = struct.unpack_from(">4xdI4xII", data, begin + _AUDIO_HEAD_BYTES)
        entry.rate_hz = round(rate) if 0 < rate < 1 << 32 else 0
        entry.channels, entry.bits, entry.linear_flags = min(channels, 0xFFFF), min(bits, 64), flags
    return inner


def _read_boxes(entry: _Entry, data: bytes, begin: int, end: int, base: int) -> None:
    """Keep the boxes of an entry, those inside QuickTime's `wave` too."""
    for kind, first, last in children(data, begin, end, base, f"sample entry {entry.kind!r}"):
        if kind == "wave":
            for inner, inner_first, inner_last in children(data, first, last, base, "a wave box"):
                entry.boxes.setdefault(inner, data[inner_first:inner_last])
        else:
            entry.boxes.setdefault(kind, data[first:last])


# --- elementary stream descriptors ----------------------------------------------------------------------------------


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content).   Spec: ISO/IEC 14496-1 clause 8.3.3."""
    at = 0
    while at + 2 <= len(data):
        tag, size = data[at], 0
        at += 1
        for _ in range(4):
            if at >= len(data):
                return
            size = size << 7 | data[at] & 0x7F
            at += 1
            if not data[at - 1] & 0x80:
                break
        yield tag, data[at : at + size]
        at += size


def parse_esds(data: bytes) -> tuple[int, int, bytes]:
    """Return object type, average bits a second and decoder set-up of an esds box; zeros where it does not say.

    Spec: ISO/IEC 14496-14 clause 6.7.2, ISO/IEC 14496-1 clauses 7.2.6.5, 7.2.6.6.
    """
    for tag, stream in _descriptors(data[4:]):
        if tag == 4:  # QuickTime files without the descriptor around it
            return _decoder_config(stream)
        if tag != 3 or len(stream) < 3:
            continue
        flags, at = stream[2], 3
        at += 2 if flags & 0x80 else 0
        if flags & 0x40 and at < len(stream):
            at += 1 + stream[at]
        at += 2 if flags & 0x20 else 0
        for inner, config in _descriptors(stream[at:]):
            if inner == 4:
                return _decoder_config(config)
    return 0, 0, b""


def _decoder_config(config: bytes) -> tuple[int, int, bytes]:
    if len(config) < 13:
        return 0, 0, b""
    setup = next((content for tag, content in _descriptors(config[13:]) if tag == 5), b"")
    return config[0], int.from_bytes(config[9:13], "big"), setup


# --- codecs ---------------------------------------------------------------------------------------------------------


def _video(entry: _Entry, codec: str, init_data: bytes = b"") -> TrackInfo:
    return TrackInfo(VIDEO, codec, init_data, width=entry.width, height=entry.height)


def _audio(
    entry: _Entry, codec: str, init_data: bytes = b"", sample_bits: int = 0, bandwidth_bps: int = 0
) -> TrackInfo:
    return TrackInfo(
        AUDIO,
        codec,
        init_data,
        sample_rate_hz=entry.rate_hz,
        channels=entry.channels,
        sample_bits=sample_bits,
        bandwidth_bps=bandwidth_bps,
    )


def _nal_form(length_size: int) -> tuple[int, int]:
    return (FORM_AS_IT_IS, 0) if length_size == 4 else (FORM_NAL_UNITS, length_size)


def _avc(entry: _Entry) -> Description:
    record = entry.box("avcC", 7)
    form, width = _nal_form((record[4] & 3) + 1 if record else 4)
    if record:
        record = record[:4] + bytes((record[4] | 3,)) + record[5:]
    without_sets = not record or not record[5] & 31
    return Description(_video(entry, H264, record), form, width, pending=without_sets)


def _hevc(entry: _Entry) -> Description:
    record = entry.box("hvcC", 23)
    form, width = _nal_form((record[21] & 3) + 1 if record else 4)
    if record:
        record = record[:21] + bytes((record[21] | 3,)) + record[22:]
    return Description(_video(entry, HEVC, record), form, width, pending=not record or not record[22])


def _av1(entry: _Entry) -> Description:
    record = entry.box("av1C", 4)
    return Description(_video(entry, AV1, record), FORM_OBUS, pending=True)


def _vp8(entry: _Entry) -> Description:
    return Description(_video(entry, VP8), FORM_AS_IT_IS, pending=not entry.width)


def _vp9(entry: _Entry) -> Description:
    record = entry.box("vpcC", 12)
    return Description(_video(entry, VP9, record[:12]), FORM_AS_IT_IS, pending=not record)


def _mp4v(entry: _Entry) -> Description:
    object_type, rate_bps, _setup = parse_esds(entry.box("esds"))
    codec = MPEG2 if 0x60 <= object_type <= 0x65 else JPEG if object_type == 0x6C else ""
    if not codec:
        return Description()
    return Description(_video(entry, codec).changed(bandwidth_bps=rate_bps), FORM_AS_IT_IS)


def _jpeg(entry: _Entry) -> Description:
    return Description(_video(entry, JPEG), FORM_AS_IT_IS)


def _mpeg2(entry: _Entry) -> Description:
    return Description(_video(entry, MPEG2), FORM_AS_IT_IS)


def _mp4a(entry: _Entry) -> Description:
    object_type, rate_bps, setup = parse_esds(entry.box("esds"))
    if not object_type and not setup and "esds" not in entry.boxes:
        object_type = 0x40
    if object_type in (0x69, 0x6B):
        return Description(_audio(entry, MP3, bandwidth_bps=rate_bps), FORM_AS_IT_IS, pending=True)
    codec = {0xA5: AC3, 0xA6: EAC3, 0xA9: DTS}.get(object_type, "")
    if codec:
        return Description(_audio(entry, codec, bandwidth_bps=rate_bps), FORM_AS_IT_IS, pending=codec != DTS)
    if object_type == 0xDD:
        return Description(_audio(entry, VORBIS, setup, bandwidth_bps=rate_bps), FORM_AS_IT_IS)
    if object_type not in (0x40, 0x66, 0x67, 0x68):
        return Description()
    if setup and setup[0] >> 3 == 31 and 32 + (int.from_bytes(setup[:2], "big") >> 5 & 63) == _MPEG_LAYER_3_OBJECT:
        return Description(_audio(entry, MP3, bandwidth_bps=rate_bps), FORM_AS_IT_IS, pending=True)
    if not setup:
        setup = aac.build_config(aac.simple_config(entry.rate_hz or 44_100, min(entry.channels or 2, 8)))
    return Description(_audio(entry, AAC, setup, bandwidth_bps=rate_bps), FORM_AS_IT_IS)


def _mpeg_audio(entry: _Entry) -> Description:
    return Description(_audio(entry, MP2 if entry.kind == "ms\0\x50" else MP3), FORM_AS_IT_IS, pending=True)


def _ac3(entry: _Entry) -> Description:
    return Description(_audio(entry, EAC3 if entry.kind == "ec-3" else AC3), FORM_AS_IT_IS, pending=True)


def _dts(entry: _Entry) -> Description:
    return Description(_audio(entry, DTS), FORM_AS_IT_IS)


def _opus(entry: _Entry) -> Description:
    record = entry.box("dOps", 11)
    head = opus.parse_dops(record) if record else opus.OpusHead(entry.channels or 2, coupled=(entry.channels or 2) - 1)
    entry.rate_hz = opus.SAMPLE_RATE_HZ
    return Description(_audio(entry, OPUS, opus.build_head(head)), FORM_AS_IT_IS)


def _flac(entry: _Entry) -> Description:
    record = entry.box("dfLa", 8 + flac.STREAM_INFO_BYTES)
    if not record:
        return Description()
    return Description(_audio(entry, FLAC, record[8 : 8 + flac.STREAM_INFO_BYTES], entry.bits), FORM_AS_IT_IS)


def _companded(entry: _Entry) -> Description:
    info = _audio(entry, ALAW if entry.kind == "alaw" else ULAW, sample_bits=8)
    return Description(info, FORM_AS_IT_IS, frame_bytes=max(entry.channels, 1))


def _pcm(entry: _Entry, bits: int, little_endian: bool, signed: bool = True, real: bool = False) -> Description:
    """Describe uncompressed audio: integers big-endian with bytes unsigned, floating point numbers little-endian."""
    if bits not in (8, 16, 24, 32, 64) or not entry.channels or (bits == 64 and not real):
        return Description()
    info = _audio(entry, FLOAT if real else PCM, sample_bits=bits)
    width = bits // 8
    form = FORM_AS_IT_IS
    if width == 1:
        form = FORM_SIGNED_BYTES if signed else FORM_AS_IT_IS
    elif little_endian != real:
        form = FORM_LITTLE_ENDIAN
    return Description(info, form, width, frame_bytes=width * entry.channels)


def _fixed_pcm(entry: _Entry) -> Description:
    """Spec: QTFF "Sound media": byte order by name, or by the box enda."""
    bits = {"in24": 24, "in32": 32, "fl32": 32, "fl64": 64, "raw ": 8}.get(entry.kind, entry.bits or 16)
    little = entry.kind == "sowt" or entry.box("enda", 2)[:2] == b"\0\1"
    return _pcm(entry, bits, little, signed=entry.kind != "raw ", real=entry.kind in ("fl32", "fl64"))


def _lpcm(entry: _Entry) -> Description:
    """Spec: QTFF "Sound sample description (version 2)": float, big-endian, signed."""
    flags = entry.linear_flags if entry.linear_flags is not None else 6
    return _pcm(entry, entry.bits, not flags & 2, bool(flags & 4), bool(flags & 1))


def _iso_pcm(entry: _Entry) -> Description:
    """Spec: ISO/IEC 23003-5 clause 5."""
    config = entry.box("pcmC", 6)
    little, bits = (bool(config[4] & 1), config[5]) if config else (False, entry.bits)
    return _pcm(entry, bits, little, real=entry.kind == "fpcm")


def _text(_entry: _Entry) -> Description:
    return Description(TrackInfo(META, SUBTITLE), FORM_LENGTH_AND_TEXT)


def _web_vtt(_entry: _Entry) -> Description:
    return Description(TrackInfo(META, SUBTITLE), FORM_CUES)


def _metadata(entry: _Entry, data: bytes, begin: int, end: int, base: int) -> Description:
    """Spec: ISO/IEC 14496-12 clause 12.3.3."""
    inner = begin + _METADATA_HEAD_BYTES
    codec = ""
    if entry.kind == "mett":
        codec = timed_metadata.codec_of_text(data[inner:end])
    elif entry.kind == "urim" and inner <= end:
        _read_boxes(entry, data, inner, end, base)
        codec = timed_metadata.codec_of_uri(entry.box("uri ", 4))
    return Description(TrackInfo(META, codec), FORM_AS_IT_IS, offset=entry.offset) if codec else Description()


_MAKERS: Final[Mapping[str, Callable[[_Entry], Description]]] = {
    "avc1": _avc,
    "avc3": _avc,
    "h264": _avc,
    "hvc1": _hevc,
    "hev1": _hevc,
    "av01": _av1,
    "vp08": _vp8,
    "vp09": _vp9,
    "mp4v": _mp4v,
    "jpeg": _jpeg,
    "mjpa": _jpeg,
    "mp2v": _mpeg2,
    "m2v1": _mpeg2,
    "mp4a": _mp4a,
    ".mp2": _mpeg_audio,
    ".mp3": _mpeg_audio,
    "mp3 ": _mpeg_audio,
    "ms\0\x55": _mpeg_audio,
    "ms\0\x50": _mpeg_audio,
    "ac-3": _ac3,
    "AC-3": _ac3,
    "sac3": _ac3,
    "ec-3": _ac3,
    "dtsc": _dts,
    "dtsh": _dts,
    "dtsl": _dts,
    "dtse": _dts,
    "Opus": _opus,
    "fLaC": _flac,
    "alaw": _companded,
    "ulaw": _companded,
    "sowt": _fixed_pcm,
    "twos": _fixed_pcm,
    "NONE": _fixed_pcm,
    "raw ": _fixed_pcm,
    "in24": _fixed_pcm,
    "in32": _fixed_pcm,
    "fl32": _fixed_pcm,
    "fl64": _fixed_pcm,
    "lpcm": _lpcm,
    "ipcm": _iso_pcm,
    "fpcm": _iso_pcm,
    "tx3g": _text,
    "text": _text,
    "wvtt": _web_vtt,
}
