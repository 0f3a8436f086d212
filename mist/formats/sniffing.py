"""Tell formats apart by their first bytes. Every function takes the first bytes of an input, up to SNIFF_BYTES of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mist.errors import RemoteProtocolError
from mist.formats import aac, ac3, dts, hevc, mpeg_audio

SNIFF_BYTES: Final = 4096

TS_PACKET_BYTES: Final = 188
_TS_PACKET_SIZES: Final = (188, 192, 204)  # plain, with a 4-byte time before each (M2TS), with 16 bytes of correction
_TS_SYNC: Final = 0x47
_MIN_TS_PACKETS: Final = 3

_MP4_BOXES: Final = frozenset(
    (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx")
)
_MP4_MIN_BOX_BYTES: Final = 8
_EBML: Final = b"\x1a\x45\xdf\xa3"
_CHAINED_FRAMES: Final = 3  # so many frame headers in a row are no accident
_ID3_HEADER_BYTES: Final = 10

# NAL unit types that an Annex B stream begins with: delimiter, parameter sets, SEI, or a picture.
_H264_FIRST: Final = frozenset((1, 5, 6, 7, 8, 9))
_HEVC_FIRST: Final = frozenset((32, 33, 34, 35, 39))
_START_CODE: Final = re.compile(rb"\x00{2,}\x01")

# What formats begin with that are left to libav: ASF, RealMedia, MPEG program stream, MXF, CAF, AU, W64, NUT, TTA, WavPack.
_LIBAV: Final = (
    *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b".RMF", b"\x00\x00\x01\xba", b"\x06\x0e\x2b\x34\x02\x05\x01\x01"),
    *(b"caff", b".snd\x00\x00", b"riff\x2e\x91\xcf\x11", b"nut/multimedia container\x00"),
    *(b"TTA1", b"wvpk"),
)
_LIBAV_FORMS: Final = {b"RIFF": (b"AVI ",), b"FORM": (b"AIFF", b"AIFC")}  # chunk, and what stands 8 bytes behind it

_BOM: Final = b"\xef\xbb\xbf"
_WEBVTT: Final = re.compile(rb"WEBVTT(?:[ \t\r\n]|$)")
_SUBRIP: Final = re.compile(rb"\s*\d+[ \t]*\r?\n\s*\d+:\d\d:\d\d[,.]\d{1,3}[ \t]*-->[ \t]*\d+:\d\d:\d\d[,.]\d{1,3}")


def is_flv(head: bytes) -> bool:
    """Tell FLV: its signature and version 1."""
    return head.startswith(b"FLV\x01")


def is_dtsc(head: bytes) -> bool:
    """Tell DTSC: a header or a media packet of either version."""
    return head[:4] in (b"DTSC", b"DTP2", b"DTPD")


def is_mpeg_ts(head: bytes) -> bool:
    """Tell a transport stream, wherever in a packet it begins: sync bytes at the distance of packets, to the end of the head."""
    for size in _TS_PACKET_SIZES:
        for start in range(min(size, len(head))):
            found = head[start::size]
            if found.count(_TS_SYNC) == len(found) and (
                len(found) >= _MIN_TS_PACKETS or (start == 0 and len(head) == len(found) * size)
            ):
                return True
    return False


def is_mp4(head: bytes) -> bool:
    """Tell MP4 and QuickTime: a box of a kind that files begin with."""
    size = int.from_bytes(head[:4], "big")
    return head[4:8] in _MP4_BOXES and (size in (0, 1) or size >= _MP4_MIN_BOX_BYTES)


def is_matroska(head: bytes) -> bool:
    """Tell Matroska, but not WebM."""
    return head.startswith(_EBML) and not is_webm(head)


def is_webm(head: bytes) -> bool:
    """Tell WebM: EBML whose document type, element 0x4282, says so."""
    return (
        head.startswith(_EBML)
        and re.search(rb"\x42\x82[\x84\x40\x20\x10\x08\x01\x00\x04]{1,8}webm", head[:128]) is not None
    )


def is_ogg(head: bytes) -> bool:
    """Tell Ogg: a page of version 0."""
    return head.startswith(b"OggS\x00")


def is_wave(head: bytes) -> bool:
    """Tell WAVE, also those over 4 GB."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def is_flac(head: bytes) -> bool:
    """Tell native FLAC, also behind an ID3 tag."""
    return _behind_id3(head).startswith(b"fLaC")


def is_mp3(head: bytes) -> bool:
    """Tell MPEG audio: frame headers in a row, or an ID3 tag with nothing else behind it."""
    rest = _behind_id3(head)
    if rest is not head and not rest:
        return True
    return _chain(rest, _mpeg_audio_bytes)


def is_adts(head: bytes) -> bool:
    """Tell AAC in ADTS: frame headers in a row, also behind an ID3 tag."""
    return _chain(_behind_id3(head), lambda data, at: aac.parse_adts(data, at).frame_bytes)


def is_ac3(head: bytes) -> bool:
    """Tell AC-3 and E-AC-3: sync frames in a row."""
    return _chain(head, lambda data, at: ac3.parse_sync_frame(data, at).frame_bytes)


def is_dts(head: bytes) -> bool:
    """Tell DTS: the header of a core frame, which extensions may follow."""
    try:
        dts.parse_header(head)
    except RemoteProtocolError:
        return False
    return True


def is_h264(head: bytes) -> bool:
    """Tell H.264 in the byte stream format (Annex B)."""
    units = _first_bytes(head)
    return bool(units) and not units[0] & 0x80 and units[0] & 0x1F in _H264_FIRST and not is_hevc(head)


def is_hevc(head: bytes) -> bool:
    """Tell HEVC in the byte stream format: the first NAL unit is one that H.264 cannot have there."""
    at = _START_CODE.match(head)
    if at is None or len(head) < at.end() + 2:
        return False
    unit = head[at.end() : at.end() + 2]
    plain = unit[0] & 0x81 == 0 and unit[1] & 0xF8 == 0 and unit[1] & 7 != 0  # layer 0, a temporal id
    return plain and hevc.nal_type(unit) in _HEVC_FIRST


def is_mpeg_video(head: bytes) -> bool:
    """Tell an MPEG-1 or MPEG-2 video stream: a sequence header."""
    return re.match(rb"\x00{2,}\x01\xb3", head) is not None


def is_ivf(head: bytes) -> bool:
    """Tell IVF: its signature and version 0."""
    return head.startswith(b"DKIF\x00\x00")


def is_web_vtt(head: bytes) -> bool:
    """Tell WebVTT."""
    return _WEBVTT.match(head.removeprefix(_BOM)) is not None


def is_subrip(head: bytes) -> bool:
    """Tell SubRip: a number, and below it the times of a cue."""
    return _SUBRIP.match(head.removeprefix(_BOM)) is not None


def is_for_libav(head: bytes) -> bool:
    """Tell the formats that are left to libav (`mist.formats.libav.FORMATS`), but DV, which has no mark."""
    return head.startswith(_LIBAV) or head[8:12] in _LIBAV_FORMS.get(head[:4], ())


def never(_head: bytes) -> bool:
    """Tell nothing: a format that cannot be told by its first bytes."""
    return False


def _behind_id3(head: bytes) -> bytes:
    """Return what follows an ID3v2 tag, b"" if it is beyond the head; the head itself without a tag."""
    if not head.startswith(b"ID3") or len(head) < _ID3_HEADER_BYTES or max(head[6:10]) > 0x7F:
        return head
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    footer = _ID3_HEADER_BYTES if head[5] & 0x10 else 0
    return head[_ID3_HEADER_BYTES + size + footer :]


def _mpeg_audio_bytes(data: bytes, at: int) -> int:
    header = mpeg_audio.parse_header(data, at)
    if not header.frame_bytes:
        raise RemoteProtocolError("free format", offset=at)
    return header.frame_bytes


def _chain(data: bytes, frame_bytes: Callable[[bytes, int], int]) -> bool:
    """Tell whether data is frames one behind the other: _CHAINED_FRAMES of them, or all that fit."""
    at = found = 0
    while found < _CHAINED_FRAMES and at < len(data):
        try:
            at += frame_bytes(data, at)
        except RemoteProtocolError:
            break
        found += 1
    return found >= _CHAINED_FRAMES or (found > 0 and at >= len(data))


def _first_bytes(head: bytes) -> list[int]:
    """Return the first byte of each NAL unit of a head that begins with a start code."""
    if _START_CODE.match(head) is None:
        return []
    return [head[found.end()] for found in _START_CODE.finditer(head) if found.end() < len(head)]
