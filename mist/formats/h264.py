"""H.264 parameter sets, decoder configuration records and random access points.

Spec: ITU-T H.264 (08/2021), ISO/IEC 14496-15 clause 5.3.3.1 (avcC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mist.core.bits import BitReader
from mist.core.nal import nal_types, select_units, unescape
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
)

SLICE: Final = 1
PARTITION_A: Final = 2
IDR: Final = 5
SEI: Final = 6
SPS: Final = 7
PPS: Final = 8
ACCESS_UNIT_DELIMITER: Final = 9
SPS_EXTENSION: Final = 13

MAX_SPS_ID: Final = 31  # clause 7.4.2.1.1
MAX_PPS_ID: Final = 255  # clause 7.4.2.2
MAX_DIMENSION_PIXELS: Final = 65535  # what an MP4 sample entry can say; level 6.2 ends at 16880
MAX_CYCLE: Final = 255  # num_ref_frames_in_pic_order_cnt_cycle, clause 7.4.2.1.1
MAX_CPB_COUNT: Final = 32  # cpb_cnt_minus1 is 0 to 31, clause E.2.2
MAX_SEI_MESSAGES: Final = 256  # in one NAL unit; encoders send a handful
MAX_SEI_SCAN_BYTES: Final = 4096  # a recovery point stands before long user data
MAX_PARAMETER_SETS: Final = 255
MAX_RECORD_BYTES: Final = 65535  # of a decoder configuration record: as much as DTSC can carry

_CHROMA_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_CONFIG_EXTENSION_PROFILES: Final = frozenset({100, 110, 122, 144, 244, 44})
_INTRA_PROFILES: Final = frozenset({44, 86, 100, 110, 122, 244})
_I_SLICES: Final = frozenset({2, 4, 7, 9})
_EXTENDED_SAR: Final = 255

# Sample aspect ratios by aspect_ratio_idc, table E-1.
SAMPLE_ASPECT_RATIOS: Final = (
    (0, 0), (1, 1), (12, 11), (10, 11), (16, 11), (40, 33), (24, 11), (20, 11), (32, 11),
    (80, 33), (18, 11), (15, 11), (64, 33), (160, 99), (4, 3), (3, 2), (2, 1),
)  # fmt: skip

PROFILE_NAMES: Final = {
    44: "CAVLC 4:4:4",
    66: "Baseline",
    77: "Main",
    83: "Scalable Baseline",
    86: "Scalable High",
    88: "Extended",
    100: "High",
    110: "High 10",
    118: "Multiview High",
    122: "High 4:2:2",
    128: "Stereo High",
    144: "High 4:4:4",
    244: "High 4:4:4 Predictive",
}


@dataclass(frozen=True, slots=True)
class Vui:
    """What the video usability information says (annex E); the defaults are what its absence means.

    sar_width, sar_height: 0 when unspecified. frame_rate_mhz: frames per 1000 seconds, 0 when unknown.
    max_num_reorder_frames: None when not said. time_scale, units_in_tick: the exact rate of fields is their ratio; 0 not said.
    """

    sar_width: int = 0
    sar_height: int = 0
    full_range: bool = False
    colour_primaries: int = 2
    transfer_characteristics: int = 2
    matrix_coefficients: int = 2
    frame_rate_mhz: int = 0
    fixed_frame_rate: bool = False
    max_num_reorder_frames: int | None = None
    max_dec_frame_buffering: int | None = None
    time_scale: int = 0
    units_in_tick: int = 0


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """How slice headers say the order of pictures.   Spec: H.264 clauses 7.4.2.1.1 and 8.2.1.

    log2_max_lsb: of type 0. delta_always_zero, offset_for_non_ref, offset_for_bottom, cycle_offsets: of type 1.
    """

    type: int = 0
    log2_max_lsb: int = 0
    delta_always_zero: bool = False
    offset_for_non_ref: int = 0
    offset_for_bottom: int = 0
    cycle_offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceParameterSet:
    """A sequence parameter set. width, height: after cropping, in pixels."""

    profile_idc: int
    constraint_flags: int
    level_idc: int
    id: int
    chroma_format_idc: int
    bit_depth_luma: int
    bit_depth_chroma: int
    log2_max_frame_num: int
    pic_order_cnt_type: int
    max_num_ref_frames: int
    width: int
    height: int
    frame_mbs_only: bool
    separate_colour_planes: bool
    vui: Vui
    picture_order: PictureOrder = PictureOrder()


@dataclass(frozen=True, slots=True)
class PictureParameterSet:
    """The start of a picture parameter set. order_in_frame: bottom_field_pic_order_in_frame_present_flag."""

    id: int
    sps_id: int
    cabac: bool
    order_in_frame: bool = False


@dataclass(frozen=True, slots=True)
class AvcConfiguration:
    """An AVCDecoderConfigurationRecord. sps, pps, sps_extensions: whole NAL units."""

    profile_idc: int
    constraint_flags: int
    level_idc: int
    length_size: int
    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    sps_extensions: tuple[bytes, ...] = ()


def parse_sps(unit: bytes) -> SequenceParameterSet:
    """Parse a sequence parameter set NAL unit (header and escaped payload).

    A VUI that ends too early counts up to where it ends, as cameras cut it (decoders do the same).
    Raises RemoteProtocolError; LimitExceededError for a picture over MAX_DIMENSION_PIXELS.   Spec: H.264 clause 7.3.2.1.1.
    """
    if not unit or unit[0] & 0x1F not in (SPS, 15):
        raise RemoteProtocolError("not a sequence parameter set", spec="H.264 clause 7.4.1")
    bits = BitReader(unescape(unit), 1)
    profile_idc, constraint_flags, level_idc = bits.u(8), bits.u(8), bits.u(8)
    sps_id = _bounded(bits.ue(), MAX_SPS_ID, "seq_parameter_set_id")
    chroma_format_idc, luma, chroma, planes = 1, 8, 8, False
    if profile_idc in _CHROMA_PROFILES:
        chroma_format_idc, luma, chroma, planes = _parse_chroma(bits)
    log2_max_frame_num = _bounded(bits.ue(), 12, "log2_max_frame_num_minus4") + 4
    order = _parse_picture_order(bits)
    max_num_ref_frames = bits.ue()
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    width, height, frame_mbs_only = _parse_size(bits, 0 if planes else chroma_format_idc)
    vui = _parse_vui(bits) if bits.flag() else Vui()
    return SequenceParameterSet(
        profile_idc, constraint_flags, level_idc, sps_id, chroma_format_idc, luma, chroma,
        log2_max_frame_num, order.type, max_num_ref_frames, width, height, frame_mbs_only, planes, vui, order,
    )  # fmt: skip


def _bounded(value: int, limit: int, name: str) -> int:
    if value > limit:
        raise LimitExceededError(f"{name} is {value}, over {limit}", spec="H.264 clause 7.4.2.1.1")
    return value


def _parse_chroma(bits: BitReader) -> tuple[int, int, int, bool]:
    chroma_format_idc = _bounded(bits.ue(), 3, "chroma_format_idc")
    planes = chroma_format_idc == 3 and bits.flag()
    luma = _bounded(bits.ue(), 6, "bit_depth_luma_minus8") + 8
    chroma = _bounded(bits.ue(), 6, "bit_depth_chroma_minus8") + 8
    bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
    if bits.flag():
        for index in range(12 if chroma_format_idc == 3 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma_format_idc, luma, chroma, planes


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    """Pass over a scaling list.   Spec: H.264 clause 7.3.2.1.1.1."""
    last, following = 8, 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) & 0xFF
        last = following or last


def _parse_picture_order(bits: BitReader) -> PictureOrder:
    poc_type = _bounded(bits.ue(), 2, "pic_order_cnt_type")
    if poc_type == 0:
        return PictureOrder(0, _bounded(bits.ue(), 12, "log2_max_pic_order_cnt_lsb_minus4") + 4)
    if poc_type == 2:
        return PictureOrder(2)
    always_zero, non_ref, bottom = bits.flag(), bits.se(), bits.se()
    count = _bounded(bits.ue(), MAX_CYCLE, "num_ref_frames_in_pic_order_cnt_cycle")
    return PictureOrder(1, 0, always_zero, non_ref, bottom, tuple(bits.se() for _ in range(count)))


def _parse_size(bits: BitReader, chroma_array_type: int) -> tuple[int, int, bool]:
    """Return cropped width and height and frame_mbs_only_flag.   Spec: H.264 equations 7-13 to 7-22."""
    width = (bits.ue() + 1) * 16
    map_units = bits.ue() + 1
    frame_mbs_only = bits.flag()
    height = map_units * 16 * (1 if frame_mbs_only else 2)
    if not frame_mbs_only:
        bits.skip(1)  # mb_adaptive_frame_field_flag
    bits.skip(1)  # direct_8x8_inference_flag
    if bits.flag():
        unit_x = 2 if chroma_array_type in (1, 2) else 1
        unit_y = (2 if chroma_array_type == 1 else 1) * (1 if frame_mbs_only else 2)
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width -= (left + right) * unit_x
        height -= (top + bottom) * unit_y
    if width <= 0 or height <= 0:
        raise RemoteProtocolError("cropping leaves no picture", spec="H.264 clause 7.4.2.1.1")
    if width > MAX_DIMENSION_PIXELS or height > MAX_DIMENSION_PIXELS:
        raise LimitExceededError(f"a picture of {width} x {height} pixels", spec="H.264 annex A")
    return width, height, frame_mbs_only


def _parse_vui(bits: BitReader) -> Vui:
    said: dict[str, Any] = {}
    try:
        _read_vui(bits, said)
    except TruncatedError:
        # Some cameras end the SPS inside the VUI; what is missing then has its default.
        said.setdefault("frame_rate_mhz", 0)
    return Vui(**said)


def _read_vui(bits: BitReader, said: dict[str, Any]) -> None:
    """Read vui_parameters() as far as it goes.   Spec: H.264 clause E.1.1."""
    read_picture_vui(bits, said)
    if bits.flag():
        units_in_tick, time_scale = bits.u(32), bits.u(32)
        said["frame_rate_mhz"] = frame_rate_mhz(time_scale, 2 * units_in_tick)
        said["time_scale"], said["units_in_tick"] = time_scale, units_in_tick
        said["fixed_frame_rate"] = bits.flag()
    nal_hrd = bits.flag() and _skip_hrd(bits)
    vcl_hrd = bits.flag() and _skip_hrd(bits)
    if nal_hrd or vcl_hrd:
        bits.skip(1)  # low_delay_hrd_flag
    bits.skip(1)  # pic_struct_present_flag
    if bits.flag():
        bits.skip(1)  # motion_vectors_over_pic_boundaries_flag
        for _ in range(4):
            bits.ue()
        reorder, buffering = bits.ue(), bits.ue()
        if reorder <= buffering <= 16:
            said["max_num_reorder_frames"], said["max_dec_frame_buffering"] = (
                reorder,
                buffering,
            )


def read_picture_vui(bits: BitReader, said: dict[str, Any]) -> None:
    """Read what both standards begin vui_parameters() with, up to the chroma location.

    Spec: H.264 clause E.1.1, H.265 clause E.2.1.
    """
    if bits.flag():
        said["sar_width"], said["sar_height"] = parse_sample_aspect_ratio(bits)
    if bits.flag():
        bits.skip(1)  # overscan_appropriate_flag
    if bits.flag():
        bits.skip(3)  # video_format
        said["full_range"] = bits.flag()
        if bits.flag():
            said["colour_primaries"] = bits.u(8)
            said["transfer_characteristics"] = bits.u(8)
            said["matrix_coefficients"] = bits.u(8)
    if bits.flag():
        bits.ue()
        bits.ue()


def parse_sample_aspect_ratio(bits: BitReader) -> tuple[int, int]:
    """Read aspect_ratio_idc and what follows it; (0, 0) for unspecified.   Spec: H.264 table E-1, HEVC table E.1."""
    idc = bits.u(8)
    if idc == _EXTENDED_SAR:
        return bits.u(16), bits.u(16)
    return SAMPLE_ASPECT_RATIOS[idc] if idc < len(SAMPLE_ASPECT_RATIOS) else (0, 0)


def frame_rate_mhz(time_scale: int, units: int) -> int:
    """Return frames per 1000 seconds, rounded; 0 where the numbers say nothing or over 10,000 frames a second."""
    if not units or not time_scale:
        return 0
    rate = (time_scale * 1000 + units // 2) // units
    return rate if rate <= 10_000_000 else 0


def _skip_hrd(bits: BitReader) -> bool:
    """Pass over hrd_parameters().   Spec: H.264 clause E.1.2."""
    count = _bounded(bits.ue() + 1, MAX_CPB_COUNT, "cpb_cnt_minus1")
    bits.skip(8)
    for _ in range(count):
        bits.ue()
        bits.ue()
        bits.skip(1)
    bits.skip(20)
    return True


def parse_pps(unit: bytes) -> PictureParameterSet:
    """Parse the start of a picture parameter set NAL unit.   Spec: H.264 clause 7.3.2.2."""
    if not unit or unit[0] & 0x1F != PPS:
        raise RemoteProtocolError("not a picture parameter set", spec="H.264 clause 7.4.1")
    bits = BitReader(unescape(unit[:16]), 1)
    pps_id = _bounded(bits.ue(), MAX_PPS_ID, "pic_parameter_set_id")
    sps_id = _bounded(bits.ue(), MAX_SPS_ID, "seq_parameter_set_id")
    return PictureParameterSet(pps_id, sps_id, bits.flag(), bits.flag())


def check_record_size(record: bytes) -> None:
    """Raise LimitExceededError for a decoder configuration record over MAX_RECORD_BYTES."""
    if len(record) > MAX_RECORD_BYTES:
        raise LimitExceededError(f"a decoder configuration record of {len(record)} bytes")


@lru_cache(maxsize=64)
def parse_avcc(record: bytes) -> AvcConfiguration:
    """Parse an AVCDecoderConfigurationRecord.   Spec: ISO/IEC 14496-15 clause 5.3.3.1.2."""
    check_record_size(record)
    bits = BitReader(record)
    if bits.u(8) != 1:
        raise RemoteProtocolError(
            "not an AVC decoder configuration record",
            offset=0,
            spec="ISO/IEC 14496-15 5.3.3.1",
        )
    profile_idc, constraint_flags, level_idc = bits.u(8), bits.u(8), bits.u(8)
    length_size = (bits.u(8) & 3) + 1
    sps = _parse_units(bits, bits.u(8) & 0x1F)
    pps = _parse_units(bits, bits.u(8))
    extensions: tuple[bytes, ...] = ()
    if profile_idc in _CONFIG_EXTENSION_PROFILES and bits.remaining >= 32:
        # Writers leave these four bytes out or garble them, so they count only where they fit.
        bits.skip(24)
        try:
            extensions = _parse_units(bits, bits.u(8))
        except TruncatedError:
            extensions = ()
    return AvcConfiguration(profile_idc, constraint_flags, level_idc, length_size, sps, pps, extensions)


def _parse_units(bits: BitReader, count: int) -> tuple[bytes, ...]:
    return tuple(unit for unit in [bits.take(bits.u(16)) for _ in range(count)] if unit)


@lru_cache(maxsize=64)
def configured_sps(record: bytes) -> SequenceParameterSet:
    """Return the first sequence parameter set of an avcC; raise RemoteProtocolError where there is none."""
    configuration = parse_avcc(record)
    if not configuration.sps:
        raise RemoteProtocolError("the decoder configuration has no sequence parameter set")
    return parse_sps(configuration.sps[0])


def build_avcc(sps: Iterable[bytes], pps: Iterable[bytes], sps_extensions: Iterable[bytes] = ()) -> bytes:
    """Return the AVCDecoderConfigurationRecord (4-byte lengths) of parameter set NAL units.

    Raises LocalProtocolError without an SPS and for more or larger sets than the record can hold; RemoteProtocolError
    for an SPS that does not parse.   Spec: ISO/IEC 14496-15 clause 5.3.3.1.2.
    """
    sets, pictures, extensions = list(sps), list(pps), list(sps_extensions)
    if not sets or len(sets) > MAX_SPS_ID or len(pictures) > MAX_PARAMETER_SETS or len(extensions) > MAX_PARAMETER_SETS:
        raise LocalProtocolError(f"{len(sets)} SPS and {len(pictures)} PPS in a decoder configuration record")
    if any(len(unit) > 0xFFFF for unit in sets + pictures + extensions):
        raise LocalProtocolError("a parameter set of more than 65535 bytes")
    first = parse_sps(sets[0])
    record = bytearray(
        (
            1,
            first.profile_idc,
            first.constraint_flags,
            first.level_idc,
            0xFF,
            0xE0 | len(sets),
        )
    )
    _put_units(record, sets)
    record.append(len(pictures))
    _put_units(record, pictures)
    if first.profile_idc in _CONFIG_EXTENSION_PROFILES:
        record += bytes((0xFC | first.chroma_format_idc, 0xF8 | (first.bit_depth_luma - 8)))
        record += bytes((0xF8 | (first.bit_depth_chroma - 8), len(extensions)))
        _put_units(record, extensions)
    return bytes(record)


def _put_units(record: bytearray, units: list[bytes]) -> None:
    for unit in units:
        record += len(unit).to_bytes(2, "big") + unit


def updated_avcc(record: bytes, units: Iterable[bytes]) -> bytes | None:
    """Return the avcC after the parameter sets among units arrived in band; None where nothing changes.

    record: the present avcC, or b"". A set that does not parse changes nothing. A changed SPS that arrives with a PPS
    replaces everything; otherwise a set replaces the one with its number.
    """
    new_sps = [unit for unit in units if unit and unit[0] & 0x1F == SPS]
    new_pps = [unit for unit in units if unit and unit[0] & 0x1F == PPS]
    extensions = [unit for unit in units if unit and unit[0] & 0x1F == SPS_EXTENSION]
    old = parse_avcc(record) if record else AvcConfiguration(0, 0, 0, 4, (), ())
    if set(new_sps) <= set(old.sps) and set(new_pps) <= set(old.pps):
        return None
    try:
        if new_sps and new_pps and not set(new_sps) <= set(old.sps):
            sps, pps = merged((), new_sps, _sps_key), merged((), new_pps, _pps_key)
        else:
            sps, pps = (
                merged(old.sps, new_sps, _sps_key),
                merged(old.pps, new_pps, _pps_key),
            )
            extensions = list(dict.fromkeys((*old.sps_extensions, *extensions)))
        changed = build_avcc(sps, pps, extensions) if sps and pps and len(sps) <= MAX_SPS_ID else b""
        return changed if 0 < len(changed) <= MAX_RECORD_BYTES else None
    except (RemoteProtocolError, LocalProtocolError):
        return None


def _sps_key(unit: bytes) -> int:
    return parse_sps(unit).id


def _pps_key(unit: bytes) -> int:
    return parse_pps(unit).id


def merged(old: Iterable[bytes], new: Iterable[bytes], key: Callable[[bytes], int]) -> list[bytes]:
    """Return the parameter sets old and new together, where a new one replaces the old one of the same key."""
    sets = {key(unit): unit for unit in old}
    sets.update((key(unit), unit) for unit in new)
    return [sets[number] for number in sorted(sets)]


def is_keyframe(payload: bytes) -> bool:
    """Tell whether an access unit (4-byte lengths) is a random access point.

    It is one with an IDR picture, with a recovery point SEI (open GOP, periodic intra refresh), or with an SPS and an
    I slice first (cameras that use neither). Broken lengths: False.   Spec: H.264 clauses 7.4.1.2.4, D.2.8.
    """
    types = nal_types(payload, False)
    if types & (1 << IDR):
        return True
    if not types & (1 << SEI | 1 << SPS) or not types & (1 << SLICE | 1 << PARTITION_A):
        return False
    wanted = 1 << SEI | 1 << SLICE | 1 << PARTITION_A
    for unit in select_units(payload, wanted, False, MAX_SEI_SCAN_BYTES):
        unit_type = unit[0] & 0x1F
        if unit_type == SEI and recovery_point(unit) is not None:
            return True
        if unit_type in (SLICE, PARTITION_A):
            return bool(types & (1 << SPS)) and slice_type(unit) in _I_SLICES
    return False


def begins_recovery(payload: bytes) -> bool:
    """Tell whether an access unit (4-byte lengths) has a recovery point SEI. Broken lengths: False.   Spec: H.264 clause D.2.8."""
    if not nal_types(payload, False) & 1 << SEI:
        return False
    units = select_units(payload, 1 << SEI, False, MAX_SEI_SCAN_BYTES)
    return any(recovery_point(unit) is not None for unit in units)


def slice_type(unit: bytes) -> int:
    """Return slice_type (0 to 9) of a slice NAL unit; -1 where it does not parse.   Spec: H.264 table 7-6."""
    try:
        bits = BitReader(unescape(unit[:16]), 1)
        bits.ue()  # first_mb_in_slice
        kind = bits.ue()
    except RemoteProtocolError:
        return -1
    return kind if kind <= 9 else -1


def recovery_point(unit: bytes) -> int | None:
    """Return recovery_frame_cnt of the recovery point message in an SEI NAL unit; None without one.

    Spec: H.264 clauses 7.3.2.3.1 and D.1.8.
    """
    data = unescape(unit[:MAX_SEI_SCAN_BYTES])
    at = 1
    for _ in range(MAX_SEI_MESSAGES):
        kind, at = _sei_number(data, at)
        size, at = _sei_number(data, at)
        if at >= len(data) or (kind, size) == (0x80, 0):
            return None
        if kind == 6:
            try:
                return BitReader(data[at : at + size]).ue()
            except RemoteProtocolError:
                return None
        at += size
    return None


def _sei_number(data: bytes, at: int) -> tuple[int, int]:
    """Read a payload type or size: bytes of 255 and a last one.   Spec: H.264 clause 7.3.2.3.1."""
    value = 0
    while at < len(data) and data[at] == 0xFF:
        value += 0xFF
        at += 1
    return (value + data[at], at + 1) if at < len(data) else (value, at)


def reorders(sps: SequenceParameterSet) -> bool | None:
    """Tell whether pictures are presented in another order than decoded; None where the SPS does not say.

    Spec: H.264 clauses A.2.1, E.2.1, 8.2.1.3.
    """
    if sps.profile_idc == 66 or sps.pic_order_cnt_type == 2:
        return False
    if sps.vui.max_num_reorder_frames is not None:
        return sps.vui.max_num_reorder_frames > 0
    if sps.profile_idc in _INTRA_PROFILES and sps.constraint_flags & 0x10:
        return False
    return None


def profile_name(profile_idc: int, constraint_flags: int) -> str:
    """Return the profile's name, such as "High"; "" for one that is not known.   Spec: H.264 annex A.2."""
    name = PROFILE_NAMES.get(profile_idc, "")
    if profile_idc == 66 and constraint_flags & 0x40:
        return "Constrained Baseline"
    if profile_idc in (110, 122, 244) and constraint_flags & 0x10:
        return name.removesuffix(" Predictive") + " Intra"
    return name


def level_name(level_idc: int, constraint_flags: int = 0, profile_idc: int = 100) -> str:
    """Return the level's name, such as "3.1" or "1b".   Spec: H.264 clause A.3."""
    if level_idc == 9 or (level_idc == 11 and constraint_flags & 0x10 and profile_idc in (66, 77, 88)):
        return "1b"
    return f"{level_idc // 10}.{level_idc % 10}"


def codec_string(configuration: AvcConfiguration) -> str:
    """Return "avc1." and the profile, constraint and level bytes in hexadecimal.   Spec: RFC 6381 section 3.3."""
    return f"avc1.{configuration.profile_idc:02X}{configuration.constraint_flags:02X}{configuration.level_idc:02X}"
