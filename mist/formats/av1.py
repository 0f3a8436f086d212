"""AV1 open bitstream units, sequence headers and configuration records.

Spec: AV1 Bitstream & Decoding Process Specification 1.0.0 errata 1; AV1 Codec ISO Media File Format Binding 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.core.bits import BitReader
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError
from mist.formats.h264 import MAX_RECORD_BYTES, check_record_size, frame_rate_mhz

SEQUENCE_HEADER: Final = 1
TEMPORAL_DELIMITER: Final = 2
FRAME_HEADER: Final = 3
TILE_GROUP: Final = 4
METADATA: Final = 5
FRAME: Final = 6
REDUNDANT_FRAME_HEADER: Final = 7
TILE_LIST: Final = 8
PADDING: Final = 15

MAX_LEB128_BYTES: Final = 8  # section 4.10.5
MAX_OBUS: Final = 65536  # in one temporal unit; 4096 tiles in own groups and a few layers stay far below
CONFIGURATION_BYTES: Final = 4  # of av1C before its OBUs

_SELECT_SCREEN_CONTENT_TOOLS: Final = 2
_SRGB: Final = (
    1,
    13,
    0,
)  # BT.709 primaries, sRGB transfer, identity matrix: 4:4:4 without saying so
_DROPPED: Final = frozenset({TEMPORAL_DELIMITER, TILE_LIST, PADDING})


@dataclass(frozen=True, slots=True)
class Obu:
    """Where one OBU is: from begin (its header) to end, its payload from payload on.

    extension: the second header byte, or None.
    """

    type: int
    begin: int
    payload: int
    end: int
    has_size: bool
    extension: int | None = None

    @property
    def temporal_id(self) -> int:
        """The temporal layer."""
        return (self.extension or 0) >> 5

    @property
    def spatial_id(self) -> int:
        """The spatial layer."""
        return ((self.extension or 0) >> 3) & 3


@dataclass(frozen=True, slots=True)
class ColourConfig:
    """color_config() of a sequence header. subsampling_x, subsampling_y: 1 where chroma is halved."""

    bit_depth: int = 8
    monochrome: bool = False
    described: bool = False
    colour_primaries: int = 2
    transfer_characteristics: int = 2
    matrix_coefficients: int = 2
    full_range: bool = False
    subsampling_x: int = 1
    subsampling_y: int = 1
    chroma_sample_position: int = 0


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """A sequence header OBU. width, height: the maximum frame size. level, tier: of operating point 0."""

    profile: int
    still_picture: bool
    reduced_still_picture: bool
    level: int
    tier: int
    initial_presentation_delay: int | None
    frame_rate_mhz: int
    width: int
    height: int
    film_grain: bool
    colour: ColourConfig


@dataclass(frozen=True, slots=True)
class Av1Configuration:
    """An AV1CodecConfigurationRecord. obus: its configOBUs."""

    profile: int
    level: int
    tier: int
    bit_depth: int
    monochrome: bool
    subsampling_x: int
    subsampling_y: int
    chroma_sample_position: int
    obus: bytes


def read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a leb128 number and the offset behind it; raise RemoteProtocolError.   Spec: AV1 section 4.10.5."""
    value = 0
    for index in range(MAX_LEB128_BYTES):
        if at + index >= len(data):
            raise TruncatedError("an OBU ends inside its size", offset=at)
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                break
            return value, at + index + 1
    raise RemoteProtocolError("a leb128 number over 32 bits", offset=at, spec="AV1 section 4.10.5")


def leb128(value: int) -> bytes:
    """Return a number below 2**32 as leb128 in as few bytes as possible."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def iterate_obus(data: bytes) -> Iterator[Obu]:
    """Yield the OBUs of low-overhead data in order; one without a size goes to the end.

    Raises RemoteProtocolError; LimitExceededError for more than MAX_OBUS.   Spec: AV1 sections 5.3.1 and 5.3.2.
    """
    at = 0
    for _ in range(MAX_OBUS):
        if at >= len(data):
            return
        obu = _read_obu(data, at)
        yield obu
        at = obu.end
    if at < len(data):
        raise LimitExceededError(f"more than {MAX_OBUS} OBUs in a packet", offset=at)


def _read_obu(data: bytes, begin: int) -> Obu:
    first = data[begin]
    if first & 0x80:
        raise RemoteProtocolError("the forbidden bit of an OBU is set", offset=begin, spec="AV1 section 5.3.2")
    at = begin + 1
    extension = None
    if first & 4:
        if at >= len(data):
            raise TruncatedError("an OBU ends inside its header", offset=begin)
        extension = data[at]
        at += 1
    size = len(data) - at
    if first & 2:
        size, at = read_leb128(data, at)
        if size > len(data) - at:
            raise TruncatedError(
                "an OBU goes past the end of its packet",
                offset=begin,
                spec="AV1 section 5.3.1",
            )
    return Obu((first >> 3) & 15, begin, at, at + size, bool(first & 2), extension)


def strip_temporal_delimiters(data: bytes) -> bytes:
    """Return a temporal unit as mist stores it: no temporal delimiters, tile lists or padding, a size in every OBU.

    Raises RemoteProtocolError.   Spec: AV1 in ISOBMFF section 2.4.
    """
    obus = list(iterate_obus(data))
    if all(obu.type not in _DROPPED and obu.has_size for obu in obus):
        return data
    return b"".join([_sized(data, obu) for obu in obus if obu.type not in _DROPPED])


def _sized(data: bytes, obu: Obu) -> bytes:
    if obu.has_size:
        return data[obu.begin : obu.end]
    header = bytes((data[obu.begin] | 2,)) + data[obu.begin + 1 : obu.payload]
    return header + leb128(obu.end - obu.payload) + data[obu.payload : obu.end]


def find_sequence_header(data: bytes) -> bytes | None:
    """Return the whole first sequence header OBU (with size) that stands before any frame; None without one.

    Raises RemoteProtocolError.
    """
    for obu in iterate_obus(data):
        if obu.type == SEQUENCE_HEADER:
            return _sized(data, obu)
        if obu.type in (FRAME, FRAME_HEADER):
            return None
    return None


def parse_sequence_header(obu: bytes) -> SequenceHeader:
    """Parse a whole sequence header OBU.   Raises RemoteProtocolError.   Spec: AV1 section 5.5.1."""
    place = next(iterate_obus(obu), None)
    if place is None or place.type != SEQUENCE_HEADER:
        raise RemoteProtocolError("not a sequence header OBU", offset=0, spec="AV1 section 5.5.1")
    bits = BitReader(obu[place.payload : place.end])
    profile = bits.u(3)
    if profile > 2:
        raise RemoteProtocolError(f"AV1 profile {profile}", spec="AV1 section 6.4.1")
    still, reduced = bits.flag(), bits.flag()
    if reduced:
        level, tier, delay, rate = bits.u(5), 0, None, 0
    else:
        level, tier, delay, rate = _parse_operating_points(bits)
    width_bits, height_bits = bits.u(4) + 1, bits.u(4) + 1
    width, height = bits.u(width_bits) + 1, bits.u(height_bits) + 1
    _skip_tools(bits, reduced)
    colour = _parse_colour(bits, profile)
    return SequenceHeader(
        profile,
        still,
        reduced,
        level,
        tier,
        delay,
        rate,
        width,
        height,
        bits.flag(),
        colour,
    )


def _parse_operating_points(bits: BitReader) -> tuple[int, int, int | None, int]:
    """Return level, tier and initial presentation delay of operating point 0, and the frame rate."""
    rate, delay_bits, model = 0, 0, False
    if bits.flag():
        rate = _parse_timing(bits)
        model = bits.flag()
        if model:
            delay_bits = bits.u(5) + 1
            bits.skip(32 + 5 + 5)
    delay_present = bits.flag()
    points = []
    for _ in range(bits.u(5) + 1):
        bits.skip(12)  # operating_point_idc
        level = bits.u(5)
        tier = bits.u(1) if level > 7 else 0
        if model and bits.flag():
            bits.skip(2 * delay_bits + 1)
        delay = bits.u(4) + 1 if delay_present and bits.flag() else None
        points.append((level, tier, delay))
    return (*points[0], rate)


def _parse_timing(bits: BitReader) -> int:
    """Read timing_info(); return the frame rate where every picture lasts as long.   Spec: AV1 section 5.5.3."""
    units_in_tick, time_scale = bits.u(32), bits.u(32)
    if not bits.flag():
        return 0
    zeros = 0
    while not bits.flag():
        zeros += 1
        if zeros > 31:
            return 0
    ticks = (1 << zeros) + bits.u(zeros)
    return frame_rate_mhz(time_scale, units_in_tick * ticks)


def _skip_tools(bits: BitReader, reduced: bool) -> None:
    """Pass over what stands between the frame size and color_config()."""
    if not reduced and bits.flag():
        bits.skip(4 + 3)  # frame id lengths
    bits.skip(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if not reduced:
        bits.skip(4)  # interintra, masked compound, warped motion, dual filter
        order_hint = bits.flag()
        bits.skip(2 if order_hint else 0)
        screen_content = _SELECT_SCREEN_CONTENT_TOOLS if bits.flag() else bits.u(1)
        if screen_content and not bits.flag():
            bits.skip(1)  # seq_force_integer_mv
        bits.skip(3 if order_hint else 0)
    bits.skip(3)  # enable_superres, enable_cdef, enable_restoration


def _parse_colour(bits: BitReader, profile: int) -> ColourConfig:
    """Read color_config().   Spec: AV1 section 5.5.2."""
    high = bits.flag()
    depth = 12 if profile == 2 and high and bits.flag() else 10 if high else 8
    monochrome = profile != 1 and bits.flag()
    described = bits.flag()
    colours = (bits.u(8), bits.u(8), bits.u(8)) if described else (2, 2, 2)
    if monochrome:
        full_range = bits.flag()
        return ColourConfig(depth, True, described, *colours, full_range)
    if colours == _SRGB:
        bits.skip(1)
        return ColourConfig(depth, False, described, *colours, True, 0, 0)
    full_range = bits.flag()
    if profile < 2:
        x = y = 1 - profile
    elif depth == 12:
        x = bits.u(1)
        y = bits.u(1) if x else 0
    else:
        x, y = 1, 0
    position = bits.u(2) if x and y else 0
    bits.skip(1)  # separate_uv_delta_q
    return ColourConfig(depth, False, described, *colours, full_range, x, y, position)


@lru_cache(maxsize=64)
def parse_av1c(record: bytes) -> Av1Configuration:
    """Parse an AV1CodecConfigurationRecord.   Spec: AV1 in ISOBMFF section 2.3.3."""
    check_record_size(record)
    if len(record) < CONFIGURATION_BYTES:
        raise TruncatedError("an AV1 configuration record of under 4 bytes", offset=len(record))
    if record[0] != 0x81:
        raise RemoteProtocolError(
            "not an AV1 configuration record",
            offset=0,
            spec="AV1 in ISOBMFF section 2.3.3",
        )
    flags = record[2]
    depth = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return Av1Configuration(
        record[1] >> 5, record[1] & 31, flags >> 7, depth, bool(flags & 0x10), (flags >> 3) & 1, (flags >> 2) & 1,
        flags & 3, record[CONFIGURATION_BYTES:],
    )  # fmt: skip


def build_av1c(sequence_header: bytes) -> bytes:
    """Return the AV1CodecConfigurationRecord of a whole sequence header OBU (with size).

    Raises RemoteProtocolError.   Spec: AV1 in ISOBMFF section 2.3.3.
    """
    header = parse_sequence_header(sequence_header)
    colour = header.colour
    flags = header.tier << 7 | (colour.bit_depth > 8) << 6 | (colour.bit_depth == 12) << 5 | colour.monochrome << 4
    flags |= colour.subsampling_x << 3 | colour.subsampling_y << 2 | colour.chroma_sample_position
    delay = 0 if header.initial_presentation_delay is None else 0x10 | header.initial_presentation_delay - 1
    return bytes((0x81, header.profile << 5 | header.level, flags, delay)) + sequence_header


@lru_cache(maxsize=64)
def configured_sequence_header(record: bytes) -> bytes | None:
    """Return the sequence header OBU in an av1C; None where it holds none.   Raises RemoteProtocolError."""
    return find_sequence_header(parse_av1c(record).obus)


def updated_av1c(record: bytes, payload: bytes) -> bytes | None:
    """Return the av1C after the sequence header in a temporal unit; None where there is none, or no new one.

    record: the present av1C, or b"". A sequence header that does not parse changes nothing.
    """
    try:
        found = find_sequence_header(payload)
        if found is None or (record and found == configured_sequence_header(record)):
            return None
        changed = build_av1c(found)
        return changed if len(changed) <= MAX_RECORD_BYTES else None
    except RemoteProtocolError:
        return None


def is_keyframe(payload: bytes, reduced_still_picture: bool = False) -> bool:
    """Tell whether a temporal unit begins with a shown key frame; broken OBUs: False.

    reduced_still_picture: from the sequence header, where the payload holds none.   Spec: AV1 sections 5.9.2, 7.6.2.
    """
    try:
        for obu in iterate_obus(payload):
            if obu.type == SEQUENCE_HEADER:
                reduced_still_picture = obu.payload < obu.end and bool(payload[obu.payload] & 8)
            elif obu.type in (FRAME, FRAME_HEADER):
                # show_existing_frame 0, frame_type KEY_FRAME 00, show_frame 1
                return reduced_still_picture or (obu.payload < obu.end and payload[obu.payload] >> 4 == 1)
    except RemoteProtocolError:
        return False
    return False


def codec_string(configuration: Av1Configuration) -> str:
    """Return the codec string, such as "av01.0.04M.08", with the optional part where it says something.

    Spec: AV1 in ISOBMFF section 5.
    """
    tier = "H" if configuration.tier else "M"
    text = f"av01.{configuration.profile}.{configuration.level:02d}{tier}.{configuration.bit_depth:02d}"
    x, y = configuration.subsampling_x, configuration.subsampling_y
    mono = int(configuration.monochrome)
    position = configuration.chroma_sample_position if x and y else 0
    colour = _configured_colour(configuration)
    colours = (
        colour.colour_primaries,
        colour.transfer_characteristics,
        colour.matrix_coefficients,
    )
    if not colour.described:
        colours = (1, 1, 1)  # what the string means without the optional part
    optional = (mono, x, y, position, colours, int(colour.full_range))
    if optional == (0, 1, 1, 0, (1, 1, 1), 0):
        return text
    return f"{text}.{mono}.{x}{y}{position}.{colours[0]:02d}.{colours[1]:02d}.{colours[2]:02d}.{int(colour.full_range)}"


def _configured_colour(configuration: Av1Configuration) -> ColourConfig:
    try:
        found = find_sequence_header(configuration.obus)
        return parse_sequence_header(found).colour if found else ColourConfig()
    except RemoteProtocolError:
        return ColourConfig()
