"""VP9 uncompressed headers, superframes and configuration records.

Spec: VP9 Bitstream & Decoding Process Specification 0.6; VP Codec ISO Media File Format Binding 1.0 (vpcC).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from mist.core.bits import BitReader
from mist.errors import RemoteProtocolError, TruncatedError

FRAME_MARKER: Final = 2
SYNC_CODE: Final = 0x498342
CONFIGURATION_BYTES: Final = 12
MAX_SUPERFRAME_FRAMES: Final = 8  # annex B.2
CS_RGB: Final = 7

# Primaries, transfer and matrix (ISO/IEC 23091-2) of color_space, section 7.2.2.
_COLOURS: Final = (
    (2, 2, 2),
    (5, 6, 5),
    (1, 1, 1),
    (6, 6, 6),
    (7, 7, 7),
    (9, 14, 9),
    (2, 2, 2),
    (1, 13, 0),
)

# vpcC's number by subsampling_x and subsampling_y; it has none for 4:4:0.
_CHROMA: Final = (3, 3, 2, 1)

# Level (ten times), largest luma picture, largest luma samples a second: annex A of the specification.
_LEVELS: Final = (
    (10, 36864, 829440),
    (11, 73728, 2764800),
    (20, 122880, 4608000),
    (21, 245760, 9216000),
    (30, 552960, 20736000),
    (31, 983040, 36864000),
    (40, 2228224, 83558400),
    (41, 2228224, 160432128),
    (50, 8912896, 311951360),
    (51, 8912896, 588251136),
    (52, 8912896, 1176502272),
    (60, 35651584, 1176502272),
    (61, 35651584, 2353004544),
    (62, 35651584, 4706009088),
)
_ASSUMED_RATE_MHZ: Final = 30_000  # to pick a level where the frame rate is not known


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The uncompressed header of one frame, as far as it says something without the frames before it.

    width, height: pixels, 0 but for keyframes and intra-only frames. chroma: 0 4:2:0 vertical, 1 4:2:0 colocated,
    2 4:2:2, 3 4:4:4 (the numbers of vpcC).
    """

    profile: int
    show_existing: bool
    keyframe: bool
    shown: bool
    bit_depth: int = 8
    chroma: int = 1
    colour_space: int = 0
    full_range: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class VpcConfiguration:
    """A VPCodecConfigurationRecord. level: ten times the level."""

    profile: int
    level: int
    bit_depth: int
    chroma: int
    full_range: bool
    colour_primaries: int
    transfer_characteristics: int
    matrix_coefficients: int


def parse_frame_header(payload: bytes) -> FrameHeader:
    """Parse the uncompressed header at the start of a frame or superframe.

    Raises RemoteProtocolError.   Spec: VP9 section 6.2.
    """
    bits = BitReader(payload[:32])
    if bits.u(2) != FRAME_MARKER:
        raise RemoteProtocolError("not a VP9 frame", offset=0, spec="VP9 section 6.2")
    profile = bits.u(1) | bits.u(1) << 1
    if profile == 3 and bits.flag():
        raise RemoteProtocolError("a VP9 profile over 3", offset=0, spec="VP9 section 6.2")
    if bits.flag():
        return FrameHeader(profile, True, False, True)
    inter, shown, error_resilient = bits.flag(), bits.flag(), bits.flag()
    if inter:
        intra_only = not shown and bits.flag()
        if not intra_only:
            return FrameHeader(profile, False, False, shown)
        bits.skip(0 if error_resilient else 2)  # reset_frame_context
    if bits.u(24) != SYNC_CODE:
        raise RemoteProtocolError("a VP9 frame without sync code", offset=1, spec="VP9 section 6.2")
    header = FrameHeader(profile, False, not inter, shown)
    if not inter or profile > 0:
        header = _parse_colour(bits, header)
    if inter:
        bits.skip(8)  # refresh_frame_flags
    return replace(header, width=bits.u(16) + 1, height=bits.u(16) + 1)


def _parse_colour(bits: BitReader, header: FrameHeader) -> FrameHeader:
    """Read color_config().   Spec: VP9 section 6.2.2."""
    depth = (12 if bits.flag() else 10) if header.profile >= 2 else 8
    space = bits.u(3)
    if space == CS_RGB:
        if not header.profile & 1:
            raise RemoteProtocolError("RGB in a 4:2:0 profile of VP9", offset=0, spec="VP9 section 7.2.2")
        bits.skip(1)
        return replace(header, bit_depth=depth, chroma=3, colour_space=space, full_range=True)
    full_range = bits.flag()
    chroma = 1
    if header.profile & 1:
        chroma = _CHROMA[bits.u(2)]
        bits.skip(1)
    return replace(
        header,
        bit_depth=depth,
        chroma=chroma,
        colour_space=space,
        full_range=full_range,
    )


def split_superframe(payload: bytes) -> list[bytes]:
    """Return the frames of a superframe, or the payload alone where it is a single frame.

    A superframe index that does not fit means a single frame, as decoders take it.   Spec: VP9 annex B.
    """
    if not payload or payload[-1] & 0xE0 != 0xC0:
        return [payload]
    marker = payload[-1]
    count, width = (marker & 7) + 1, ((marker >> 3) & 3) + 1
    index_bytes = 2 + count * width
    if len(payload) < index_bytes or payload[-index_bytes] != marker:
        return [payload]
    at, frames = 0, []
    for number in range(count):
        place = len(payload) - index_bytes + 1 + number * width
        size = int.from_bytes(payload[place : place + width], "little")
        if size > len(payload) - index_bytes - at:
            return [payload]
        if size:
            frames.append(payload[at : at + size])
        at += size
    return frames


def is_keyframe(payload: bytes) -> bool:
    """Tell whether a frame or superframe begins with a keyframe.   Spec: VP9 section 6.2."""
    if not payload or payload[0] >> 6 != FRAME_MARKER:
        return False
    # Bits after marker and profile: [reserved_zero in profile 3,] show_existing_frame, frame_type (0 keyframe).
    shift = 1 if payload[0] & 0x30 == 0x30 else 2
    return payload[0] >> shift & 3 == 0


@lru_cache(maxsize=64)
def parse_vpcc(record: bytes) -> VpcConfiguration:
    """Parse a VPCodecConfigurationRecord with its version and flags.   Spec: VP Codec ISOBMFF section 2.2."""
    if len(record) < CONFIGURATION_BYTES:
        raise TruncatedError("a VP codec configuration record of under 12 bytes", offset=len(record))
    if record[0] != 1:
        raise RemoteProtocolError("not version 1 of vpcC", offset=0, spec="VP Codec ISOBMFF section 2.2")
    depth = record[6] >> 4
    chroma = (record[6] >> 1) & 7
    return VpcConfiguration(
        record[4],
        record[5],
        depth,
        chroma,
        bool(record[6] & 1),
        record[7],
        record[8],
        record[9],
    )


def build_vpcc(header: FrameHeader, frame_rate_mhz: int = 0) -> bytes:
    """Return the VPCodecConfigurationRecord (12 bytes) of a keyframe's header.

    frame_rate_mhz: for the level, 0 when unknown.   Spec: VP Codec ISOBMFF section 2.2.
    """
    level = level_for(header.width, header.height, frame_rate_mhz)
    sample = header.bit_depth << 4 | header.chroma << 1 | header.full_range
    return bytes(
        (
            1,
            0,
            0,
            0,
            header.profile,
            level,
            sample,
            *_COLOURS[header.colour_space],
            0,
            0,
        )
    )


def level_for(width: int, height: int, frame_rate_mhz: int) -> int:
    """Return ten times the lowest level that holds a picture of this size and rate; 62 for anything larger."""
    picture = width * height
    rate = picture * (frame_rate_mhz or _ASSUMED_RATE_MHZ) // 1000
    fits = (level for level, size, samples in _LEVELS if picture <= size and rate <= samples)
    return next(fits, 62)


def codec_string(configuration: VpcConfiguration) -> str:
    """Return the codec string, such as "vp09.00.31.08", with the optional part where it says something.

    Spec: VP Codec ISOBMFF section 3.
    """
    text = f"vp09.{configuration.profile:02d}.{configuration.level:02d}.{configuration.bit_depth:02d}"
    colours = (
        configuration.colour_primaries,
        configuration.transfer_characteristics,
        configuration.matrix_coefficients,
    )
    # Without the optional part the string means BT.709; "unspecified" is no better told by writing it out.
    colours = (1, 1, 1) if colours == (2, 2, 2) else colours
    optional = (configuration.chroma, *colours, int(configuration.full_range))
    if optional in ((0, 1, 1, 1, 0), (1, 1, 1, 1, 0)):
        return text
    return text + "".join(f".{value:02d}" for value in optional)


def updated_vpcc(record: bytes, payload: bytes, frame_rate_mhz: int = 0) -> bytes | None:
    """Return the vpcC that a keyframe needs; None where record serves, or payload is no keyframe.

    record: the present vpcC, or b"". Profile, depth, chroma and range count; a level that was announced stays.
    """
    if not is_keyframe(payload):
        return None
    try:
        header = parse_frame_header(payload)
        old = parse_vpcc(record) if record else None
    except RemoteProtocolError:
        return None
    said = (
        header.profile,
        header.bit_depth,
        header.full_range,
        header.chroma in (0, 1),
        header.chroma > 2,
    )
    if old and said == (
        old.profile,
        old.bit_depth,
        old.full_range,
        old.chroma in (0, 1),
        old.chroma > 2,
    ):
        return None
    return build_vpcc(header, frame_rate_mhz)
