"""What is known of one track, in the project's own terms. The one place where codec names are spelled."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

VIDEO: Final = "video"
AUDIO: Final = "audio"
META: Final = "meta"

H264: Final = "H264"
HEVC: Final = "HEVC"
AV1: Final = "AV1"
VP8: Final = "VP8"
VP9: Final = "VP9"
AAC: Final = "AAC"
MP3: Final = "MP3"
AC3: Final = "AC3"
EAC3: Final = "EAC-3"
OPUS: Final = "opus"
FLAC: Final = "FLAC"
MPEG2: Final = "MPEG2"
THEORA: Final = "theora"
JPEG: Final = "JPEG"
VORBIS: Final = "vorbis"
MP2: Final = "MP2"
DTS: Final = "DTS"
PCM: Final = "PCM"
FLOAT: Final = "FLOAT"
ALAW: Final = "ALAW"
ULAW: Final = "ULAW"
SPEEX: Final = "Speex"
SUBTITLE: Final = "subtitle"
JSON: Final = "JSON"
ID3: Final = "ID3"
SCTE35: Final = "SCTE35"
KLV: Final = "KLV"
RAW: Final = "RAW"

NONE_CARRIED: Final = "no track of a codec that is carried"


def left_out(number: int, codec: str) -> str:
    """Return why a track of an input is not among those that are read. number: the input's own. codec: as the input calls it."""
    name = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in codec[:32]).strip()
    return f"track {number} is left out: {name or 'its codec'} is not carried"


def none_carried(reasons: Sequence[str]) -> str:
    """Return why an input without any track that is read cannot be. reasons: of `left_out`."""
    return "; ".join((NONE_CARRIED, *reasons))


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """Properties of one track.

    type, codec: internal names, exact case; codecs not in this module (ALAW, Speex …) keep their reference names.
    init_data: codec set-up as the project stores it: avcC, hvcC, av1C, vpcC (whole record, without an MP4 box header), AudioSpecificConfig,
        OpusHead (with its magic), FLAC stream-info block (34 bytes, no header), the three header packets of Vorbis and Theora as Matroska
        joins them (Xiph lacing), Speex's header packet; b"" for MP3, MP2, AC-3, E-AC-3, DTS, PCM, A-law, mu-law, VP8, MPEG-2, JPEG.
    Packets of PCM hold samples with the most significant byte first (those of 8 bits unsigned), of FLOAT with the least significant first.
    track_id: the source's own number. language: ISO 639-2, "und" when unknown.
    width, height: pixels. frame_rate_mhz: nominal frames per 1000 seconds, 0 when unknown.
    sample_rate_hz, channels, sample_bits: of audio; 0 when unknown.
    bandwidth_bps: bits a second if the source announced it, else 0.
    delay_us: of sound, how much of its beginning is for the decoder alone, and has times before zero; Opus says that in its init data.
    rotation_degrees: by which pictures are turned clockwise to be shown: 0, 90, 180 or 270. Formats of files alone say it.
    """

    type: str
    codec: str
    init_data: bytes = b""
    track_id: int = 0
    language: str = "und"
    width: int = 0
    height: int = 0
    frame_rate_mhz: int = 0
    sample_rate_hz: int = 0
    channels: int = 0
    sample_bits: int = 0
    bandwidth_bps: int = 0
    rotation_degrees: int = 0
    delay_us: int = 0

    def changed(self, **fields: object) -> TrackInfo:
        """Return a copy with some fields replaced."""
        return replace(self, **fields)  # type: ignore[arg-type]

    def export_state(self) -> dict[str, Any]:
        """Return the fields as JSON has them, for another process."""
        return {**asdict(self), "init_data": b64encode(self.init_data).decode()}

    @classmethod
    def restore(cls, fields: Mapping[str, Any]) -> TrackInfo:
        """Return the track that `export_state` described. Raises ValueError, TypeError, KeyError."""
        return cls(**{**fields, "init_data": b64decode(fields["init_data"])})
