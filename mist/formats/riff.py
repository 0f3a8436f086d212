"""RIFF/WAVE headers: what the `fmt ` chunk says, and the header of a file.

Specs: Microsoft Multimedia Programming Interface 1.0 (RIFF, WAVE), WAVEFORMATEXTENSIBLE (mmreg.h), EBU Tech 3306 (RF64).
The data is read and written by `mist.core.riff`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mist.core.riff import RiffDemuxer, RiffMuxer
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.audio_files import describe
from mist.formats.tracks import ALAW, AUDIO, FLOAT, MP3, PCM, ULAW, TrackInfo

TAG_PCM: Final = 1
TAG_FLOAT: Final = 3
TAG_ALAW: Final = 6
TAG_ULAW: Final = 7
TAG_MP3: Final = 0x55
TAG_EXTENSIBLE: Final = 0xFFFE
SUBFORMAT_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")  # of a GUID that begins with a format tag
UNKNOWN_SIZE: Final = 0xFFFFFFFF
DS64_BYTES: Final = 28
MAX_CHANNELS: Final = 255
MAX_RATE_HZ: Final = 4_000_000
SOFTWARE: Final = b"mist\0\0"

_SPEC: Final = "RIFF WAVE, chapter 3"
_CODECS: Final = {TAG_PCM: PCM, TAG_FLOAT: FLOAT, TAG_ALAW: ALAW, TAG_ULAW: ULAW}
# Frames that follow each other in the place of samples; of raw AAC (0xff) nothing says where they begin.
_FRAMES: Final = {0x50: "mpeg", TAG_MP3: "mpeg", 0x1600: "adts", 0x2000: "ac3", 0x2001: "dts"}
_TAGS: Final = {codec: tag for tag, codec in _CODECS.items()} | {MP3: TAG_MP3}
_SAMPLE_BYTES: Final = {PCM: (1, 2, 3, 4), FLOAT: (4, 8), ALAW: (1,), ULAW: (1,)}
# Front left 1, right 2, centre 4, low frequency 8, back left 10, right 20 and centre 100, side left 200, right 400 (hexadecimal).
_SPEAKERS: Final = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_MP3_EXTRA: Final = struct.pack("<HIHHH", 1, 2, 1152, 1, 0)  # an unpadded stream of one frame a block
CODECS: Final = (PCM, FLOAT, ALAW, ULAW)


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """A `fmt ` chunk.

    frame_bytes: one sample of every channel. sample_bytes: of one channel; swapped for PCM. frames: which ones are in the place of samples
    (`mist.formats.audio_files.describe`), "" for samples.
    """

    track: TrackInfo
    frame_bytes: int
    sample_bytes: int
    frames: str = ""


def parse_format(data: bytes) -> WaveFormat:
    """Parse the body of a `fmt ` chunk.

    Samples that do not fill their bytes count with all of them. Raises RemoteProtocolError, UnsupportedError.
    """
    if len(data) < 14:
        raise TruncatedError("a WAVE format of under 14 bytes", offset=len(data), spec=_SPEC)
    tag, channels, rate, _, frame_bytes = struct.unpack_from("<HHIIH", data)
    if tag == TAG_EXTENSIBLE:
        if len(data) < 40:
            raise TruncatedError("an extensible WAVE format of under 40 bytes", offset=len(data), spec=_SPEC)
        tag = int.from_bytes(data[24:26], "little") if data[26:40] == SUBFORMAT_TAIL else TAG_EXTENSIBLE
    codec = _CODECS.get(tag)
    if tag in _FRAMES:
        return WaveFormat(TrackInfo(AUDIO, ""), 1, 1, _FRAMES[tag])
    if codec is None:
        raise UnsupportedError(f"WAVE format {tag:#06x}", offset=0, spec=_SPEC)
    if not 1 <= channels <= MAX_CHANNELS or not 1 <= rate <= MAX_RATE_HZ or frame_bytes % channels:
        raise RemoteProtocolError(
            f"a WAVE format of {channels} channels, {rate} Hz and {frame_bytes} bytes", offset=2, spec=_SPEC
        )
    sample_bytes = frame_bytes // channels
    if sample_bytes not in _SAMPLE_BYTES[codec]:
        raise UnsupportedError(f"{codec} samples of {sample_bytes} bytes", offset=12, spec=_SPEC)
    track = TrackInfo(AUDIO, codec, sample_rate_hz=rate, channels=channels, sample_bits=sample_bytes * 8)
    return WaveFormat(track, frame_bytes, sample_bytes)


def format_of(track: TrackInfo) -> WaveFormat:
    """Return the format of a track. frame_bytes is 0 for MP3. Raises UnsupportedError."""
    if (
        track.codec not in _TAGS
        or not 1 <= track.channels <= MAX_CHANNELS
        or not 1 <= track.sample_rate_hz <= MAX_RATE_HZ
    ):
        raise UnsupportedError(f"WAV does not carry {track.codec} of {track.channels} channels")
    if track.codec == MP3:
        return WaveFormat(track, 0, 0)
    sizes = _SAMPLE_BYTES[track.codec]
    sample_bytes = sizes[0] if len(sizes) == 1 else (track.sample_bits + 7) // 8
    if sample_bytes not in sizes:
        raise UnsupportedError(f"WAV does not carry {track.codec} of {track.sample_bits} bits")
    return WaveFormat(track, sample_bytes * track.channels, sample_bytes)


def build_format(track: TrackInfo) -> bytes:
    """Return the body of a `fmt ` chunk; the extensible form for more than two channels or 16 bits. Raises UnsupportedError."""
    found = format_of(track)
    tag, rate = _TAGS[track.codec], track.sample_rate_hz
    bits = found.sample_bytes * 8
    if tag == TAG_MP3:
        fixed = struct.pack("<HHIIHH", tag, track.channels, rate, track.bandwidth_bps // 8 or 16000, 1, 0)
        return fixed + struct.pack("<H", len(_MP3_EXTRA)) + _MP3_EXTRA
    extensible = tag in (TAG_PCM, TAG_FLOAT) and (track.channels > 2 or (tag == TAG_PCM and bits > 16))
    fixed = struct.pack(
        "<HHIIHH", TAG_EXTENSIBLE if extensible else tag, track.channels, rate, rate * found.frame_bytes & UNKNOWN_SIZE,
        found.frame_bytes, bits,
    )  # fmt: skip
    if extensible:
        fixed += struct.pack("<HHIH", 22, bits, _SPEAKERS.get(track.channels, 0), tag) + SUBFORMAT_TAIL
    elif tag != TAG_PCM:
        fixed += bytes(2)
    return fixed


def build_header(track: TrackInfo) -> bytes:
    """Return what stands before the samples, of a file whose size is not known yet.

    Where the sizes are, `mist.core.riff` finds out: in the beginning, in `JUNK` (room for `ds64`), `fact` and before the samples.
    """
    fact = b"" if track.codec == PCM else _chunk(b"fact", struct.pack("<I", UNKNOWN_SIZE))
    unknown = struct.pack("<I", UNKNOWN_SIZE)
    software = _chunk(b"LIST", b"INFO" + _chunk(b"ISFT", SOFTWARE))
    chunks = _chunk(b"JUNK", bytes(DS64_BYTES)) + _chunk(b"fmt ", build_format(track)) + fact + software
    return b"RIFF" + unknown + b"WAVE" + chunks + b"data" + unknown


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)


class _Format:
    """The functions of this module as the engines take them."""

    parse_format = staticmethod(parse_format)
    describe = staticmethod(describe)
    format_of = staticmethod(format_of)
    build_header = staticmethod(build_header)


def make_demuxer() -> RiffDemuxer:
    """Return a demuxer of WAV."""
    return RiffDemuxer(_Format)


def make_muxer(tracks: Sequence[TrackInfo]) -> RiffMuxer:
    """Return a muxer of WAV for one track. Raises UnsupportedError."""
    return RiffMuxer(tracks, _Format)
