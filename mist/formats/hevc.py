"""HEVC parameter sets, decoder configuration records and random access points.

Spec: ITU-T H.265 (08/2021), ISO/IEC 14496-15 clause 8.3.3.1 (hvcC) and annex E (codec strings).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mist.core.bits import BitReader
from mist.core.nal import nal_types, unescape
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
)
from mist.formats.h264 import (
    MAX_RECORD_BYTES,
    check_record_size,
    frame_rate_mhz,
    merged,
    read_picture_vui,
)

VPS: Final = 32
SPS: Final = 33
PPS: Final = 34
PREFIX_SEI: Final = 39
SUFFIX_SEI: Final = 40

# BLA, IDR and CRA pictures and the two reserved IRAP types, table 7-1.
IRAP_MASK: Final = 0xFF << 16
PARAMETER_SET_MASK: Final = 1 << VPS | 1 << SPS | 1 << PPS

MAX_VPS_ID: Final = 15
MAX_SPS_ID: Final = 15  # clause 7.4.3.2.1
MAX_PPS_ID: Final = 63  # clause 7.4.3.3.1
MAX_DIMENSION_PIXELS: Final = 65535  # what an MP4 sample entry can say; level 6.2 ends at 16888
MAX_SHORT_TERM_SETS: Final = 64  # num_short_term_ref_pic_sets
MAX_PICTURES: Final = 16  # in one reference picture set: sps_max_dec_pic_buffering_minus1
MAX_LONG_TERM: Final = 32  # num_long_term_ref_pics_sps
MAX_LAYER_SETS: Final = 1024  # vps_num_layer_sets_minus1 is below
MAX_CPB_COUNT: Final = 32  # cpb_cnt_minus1 is 0 to 31, clause E.3.2
MAX_ARRAYS: Final = 64  # hvcC: one for each NAL unit type that there is
MAX_UNITS_IN_ARRAY: Final = 256

_PROFILE_SPACES: Final = ("", "A", "B", "C")


@dataclass(frozen=True, slots=True)
class ProfileTierLevel:
    """The general part of profile_tier_level().

    compatibility_flags: 32 bits, flag 0 first. constraint_flags: the 48 bits after them. level_idc: 30 times the level.
    """

    profile_space: int
    tier: int
    profile_idc: int
    compatibility_flags: int
    constraint_flags: int
    level_idc: int


@dataclass(frozen=True, slots=True)
class Vui:
    """What the video usability information says (annex E); the defaults are what its absence means.

    time_scale, units_in_tick: the exact rate of pictures is their ratio; 0 not said.
    """

    sar_width: int = 0
    sar_height: int = 0
    full_range: bool = False
    colour_primaries: int = 2
    transfer_characteristics: int = 2
    matrix_coefficients: int = 2
    field_seq: bool = False
    frame_rate_mhz: int = 0
    min_spatial_segmentation_idc: int = 0
    time_scale: int = 0
    units_in_tick: int = 0


@dataclass(frozen=True, slots=True)
class VideoParameterSet:
    """A video parameter set. frame_rate_mhz: frames per 1000 seconds, 0 when not said."""

    id: int
    max_sub_layers: int
    temporal_id_nesting: bool
    profile_tier_level: ProfileTierLevel
    frame_rate_mhz: int


@dataclass(frozen=True, slots=True)
class SequenceParameterSet:
    """A sequence parameter set. width, height: inside the conformance window, in pixels.

    max_num_reorder_pics: of the highest temporal sub-layer. log2_max_poc_lsb: width of the order number in slice headers.
    """

    id: int
    vps_id: int
    max_sub_layers: int
    temporal_id_nesting: bool
    profile_tier_level: ProfileTierLevel
    chroma_format_idc: int
    bit_depth_luma: int
    bit_depth_chroma: int
    width: int
    height: int
    max_num_reorder_pics: int
    max_dec_pic_buffering: int
    vui: Vui
    log2_max_poc_lsb: int = 0
    separate_colour_planes: bool = False


@dataclass(frozen=True, slots=True)
class PictureParameterSet:
    """The start of a picture parameter set: what slice headers need of it."""

    id: int
    sps_id: int
    dependent_slices: bool
    output_flag: bool
    extra_slice_header_bits: int


@dataclass(frozen=True, slots=True)
class HevcConfiguration:
    """An HEVCDecoderConfigurationRecord. units: whole NAL units by NAL unit type, in the order of the record."""

    profile_tier_level: ProfileTierLevel
    chroma_format_idc: int
    bit_depth_luma: int
    bit_depth_chroma: int
    average_frame_rate: int
    length_size: int
    units: tuple[tuple[int, tuple[bytes, ...]], ...]

    def of_type(self, unit_type: int) -> tuple[bytes, ...]:
        """Return the NAL units of one type."""
        return tuple(unit for kind, units in self.units if kind == unit_type for unit in units)


def nal_type(unit: bytes) -> int:
    """Return nal_unit_type; -1 for an empty unit."""
    return (unit[0] >> 1) & 0x3F if unit else -1


def _begin(unit: bytes, unit_type: int, name: str) -> BitReader:
    if nal_type(unit) != unit_type:
        raise RemoteProtocolError(f"not a {name} parameter set", spec="H.265 clause 7.4.2.2")
    return BitReader(unescape(unit), min(2, len(unit)))


def _bounded(value: int, limit: int, name: str) -> int:
    if value > limit:
        raise LimitExceededError(f"{name} is {value}, over {limit}", spec="H.265 clause 7.4.3")
    return value


def _parse_profile_tier_level(bits: BitReader, max_sub_layers: int) -> ProfileTierLevel:
    """Read profile_tier_level(1, max_sub_layers - 1).   Spec: H.265 clause 7.3.3."""
    space, tier, profile = bits.u(2), bits.u(1), bits.u(5)
    general = ProfileTierLevel(space, tier, profile, bits.u(32), bits.u(48), bits.u(8))
    present = [(bits.flag(), bits.flag()) for _ in range(max_sub_layers - 1)]
    if present:
        bits.skip(2 * (8 - len(present)))
    for has_profile, has_level in present:
        bits.skip((88 if has_profile else 0) + (8 if has_level else 0))
    return general


def _parse_ordering(bits: BitReader, max_sub_layers: int) -> tuple[int, int]:
    """Return max_dec_pic_buffering and max_num_reorder_pics of the highest sub-layer."""
    buffering, reorder = 0, 0
    for _ in range(max_sub_layers if bits.flag() else 1):
        buffering, reorder = bits.ue() + 1, bits.ue()
        bits.ue()  # max_latency_increase_plus1
    return buffering, reorder


def parse_vps(unit: bytes) -> VideoParameterSet:
    """Parse a video parameter set NAL unit; raise RemoteProtocolError.   Spec: H.265 clause 7.3.2.1."""
    bits = _begin(unit, VPS, "video")
    vps_id = bits.u(4)
    bits.skip(8)  # base layer flags, vps_max_layers_minus1
    max_sub_layers = _bounded(bits.u(3), 6, "vps_max_sub_layers_minus1") + 1
    nesting = bits.flag()
    bits.skip(16)
    general = _parse_profile_tier_level(bits, max_sub_layers)
    rate = 0
    try:
        rate = _parse_vps_timing(bits, max_sub_layers)
    except TruncatedError:
        # The part that matters was there; timing is then left to the SPS.
        rate = 0
    return VideoParameterSet(vps_id, max_sub_layers, nesting, general, rate)


def _parse_vps_timing(bits: BitReader, max_sub_layers: int) -> int:
    _parse_ordering(bits, max_sub_layers)
    max_layer_id = bits.u(6)
    layer_sets = _bounded(bits.ue(), MAX_LAYER_SETS - 1, "vps_num_layer_sets_minus1")
    bits.skip(layer_sets * (max_layer_id + 1))
    if not bits.flag():
        return 0
    units_in_tick, time_scale = bits.u(32), bits.u(32)
    return frame_rate_mhz(time_scale, units_in_tick)


def parse_sps(unit: bytes) -> SequenceParameterSet:
    """Parse a sequence parameter set NAL unit; a VUI that ends too early counts up to there.

    Raises RemoteProtocolError; LimitExceededError for a picture over MAX_DIMENSION_PIXELS.   Spec: H.265 clause 7.3.2.2.
    """
    bits = _begin(unit, SPS, "sequence")
    vps_id = bits.u(4)
    max_sub_layers = _bounded(bits.u(3), 6, "sps_max_sub_layers_minus1") + 1
    nesting = bits.flag()
    general = _parse_profile_tier_level(bits, max_sub_layers)
    sps_id = _bounded(bits.ue(), MAX_SPS_ID, "sps_seq_parameter_set_id")
    chroma_format_idc, planes, width, height = _parse_size(bits)
    luma = _bounded(bits.ue(), 8, "bit_depth_luma_minus8") + 8
    chroma = _bounded(bits.ue(), 8, "bit_depth_chroma_minus8") + 8
    log2_max_poc_lsb = _bounded(bits.ue(), 12, "log2_max_pic_order_cnt_lsb_minus4") + 4
    buffering, reorder = _parse_ordering(bits, max_sub_layers)
    vui = _parse_tail(bits, log2_max_poc_lsb, max_sub_layers)
    return SequenceParameterSet(
        sps_id, vps_id, max_sub_layers, nesting, general, chroma_format_idc, luma, chroma,
        width, height, reorder, buffering, vui, log2_max_poc_lsb, planes,
    )  # fmt: skip


def _parse_size(bits: BitReader) -> tuple[int, bool, int, int]:
    """Return chroma_format_idc, separate_colour_plane_flag and the size of the conformance window.   Spec: H.265 clause 7.4.3.2.1."""
    chroma_format_idc = _bounded(bits.ue(), 3, "chroma_format_idc")
    planes = chroma_format_idc == 3 and bits.flag()
    width, height = bits.ue(), bits.ue()
    if bits.flag():
        unit_x = 2 if chroma_format_idc in (1, 2) and not planes else 1
        unit_y = 2 if chroma_format_idc == 1 else 1
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width -= (left + right) * unit_x
        height -= (top + bottom) * unit_y
    if width <= 0 or height <= 0:
        raise RemoteProtocolError("the conformance window holds no picture", spec="H.265 clause 7.4.3.2.1")
    if width > MAX_DIMENSION_PIXELS or height > MAX_DIMENSION_PIXELS:
        raise LimitExceededError(f"a picture of {width} x {height} pixels", spec="H.265 annex A")
    return chroma_format_idc, planes, width, height


def _parse_tail(bits: BitReader, log2_max_poc_lsb: int, max_sub_layers: int) -> Vui:
    """Read the SPS from log2_min_luma_coding_block_size_minus3 to the VUI."""
    for _ in range(6):
        bits.ue()
    if bits.flag() and bits.flag():  # scaling_list_enabled_flag, sps_scaling_list_data_present_flag
        _skip_scaling_lists(bits)
    bits.skip(2)  # amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.flag():
        bits.skip(8)  # pcm bit depths
        bits.ue()
        bits.ue()
        bits.skip(1)
    _skip_reference_sets(bits)
    if bits.flag():
        for _ in range(_bounded(bits.ue(), MAX_LONG_TERM, "num_long_term_ref_pics_sps")):
            bits.skip(log2_max_poc_lsb + 1)
    bits.skip(2)  # sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    said: dict[str, Any] = {}
    if bits.flag():
        try:
            _read_vui(bits, said, max_sub_layers)
        except TruncatedError:
            # What is missing of the VUI has its default.
            said.setdefault("frame_rate_mhz", 0)
    return Vui(**said)


def _skip_scaling_lists(bits: BitReader) -> None:
    """Pass over scaling_list_data().   Spec: H.265 clause 7.3.4."""
    for size_id in range(4):
        for _ in range(0, 6, 3 if size_id == 3 else 1):
            if not bits.flag():
                bits.ue()
                continue
            if size_id > 1:
                bits.se()
            for _ in range(min(64, 1 << (4 + (size_id << 1)))):
                bits.se()


def _skip_reference_sets(bits: BitReader) -> None:
    """Pass over the short-term reference picture sets.   Spec: H.265 clauses 7.3.7 and 7.4.8."""
    pictures = 0  # NumDeltaPocs of the set before
    for index in range(_bounded(bits.ue(), MAX_SHORT_TERM_SETS, "num_short_term_ref_pic_sets")):
        if index and bits.flag():
            bits.skip(1)
            bits.ue()
            kept = 0
            for _ in range(pictures + 1):
                used = bits.flag()
                if used or bits.flag():
                    kept += 1
            pictures = _bounded(kept, MAX_PICTURES, "NumDeltaPocs")
            continue
        negative, positive = bits.ue(), bits.ue()
        pictures = _bounded(negative + positive, MAX_PICTURES, "NumDeltaPocs")
        for _ in range(pictures):
            bits.ue()
            bits.skip(1)


def _read_vui(bits: BitReader, said: dict[str, Any], max_sub_layers: int) -> None:
    """Read vui_parameters() as far as it goes.   Spec: H.265 clause E.2.1."""
    read_picture_vui(bits, said)
    bits.skip(1)  # neutral_chroma_indication_flag
    said["field_seq"] = bits.flag()
    bits.skip(1)  # frame_field_info_present_flag
    if bits.flag():
        for _ in range(4):
            bits.ue()
    if bits.flag():
        units_in_tick, time_scale = bits.u(32), bits.u(32)
        said["frame_rate_mhz"] = frame_rate_mhz(time_scale, units_in_tick)
        said["time_scale"], said["units_in_tick"] = time_scale, units_in_tick
        if bits.flag():
            bits.ue()
        if bits.flag():
            _skip_hrd(bits, max_sub_layers)
    if bits.flag():
        bits.skip(3)
        said["min_spatial_segmentation_idc"] = min(bits.ue(), 4095)


def _skip_hrd(bits: BitReader, max_sub_layers: int) -> None:
    """Pass over hrd_parameters(1, max_sub_layers - 1).   Spec: H.265 clause E.2.2."""
    nal, vcl = bits.flag(), bits.flag()
    sub_picture = False
    if nal or vcl:
        sub_picture = bits.flag()
        bits.skip(19 if sub_picture else 0)
        bits.skip(8)
        bits.skip(4 if sub_picture else 0)
        bits.skip(15)
    for _ in range(max_sub_layers):
        general_fixed = bits.flag()
        fixed = general_fixed or bits.flag()
        low_delay = False
        if fixed:
            bits.ue()
        else:
            low_delay = bits.flag()
        count = 1 if low_delay else _bounded(bits.ue() + 1, MAX_CPB_COUNT, "cpb_cnt_minus1")
        for _ in range(count * (nal + vcl)):
            for _ in range(4 if sub_picture else 2):
                bits.ue()
            bits.skip(1)


def parse_pps(unit: bytes) -> PictureParameterSet:
    """Parse the start of a picture parameter set NAL unit; raise RemoteProtocolError.   Spec: H.265 clause 7.3.2.3."""
    bits = _begin(unit[:16], PPS, "picture")
    number, sps = (
        _bounded(bits.ue(), MAX_PPS_ID, "pps_pic_parameter_set_id"),
        _bounded(bits.ue(), MAX_SPS_ID, "SPS number"),
    )
    return PictureParameterSet(number, sps, bits.flag(), bits.flag(), bits.u(3))


def parse_pps_ids(unit: bytes) -> tuple[int, int]:
    """Return the numbers of a picture parameter set and of its SPS.   Spec: H.265 clause 7.3.2.3."""
    bits = _begin(unit[:16], PPS, "picture")
    return _bounded(bits.ue(), MAX_PPS_ID, "pps_pic_parameter_set_id"), _bounded(bits.ue(), MAX_SPS_ID, "SPS number")


def _parallelism(unit: bytes) -> int:
    """Return parallelismType of a PPS: 1 slices, 2 tiles, 3 wavefronts, 0 mixed.   Spec: ISO/IEC 14496-15 8.3.3.1.3."""
    bits = _begin(unit, PPS, "picture")
    bits.ue()
    bits.ue()
    bits.skip(7)  # up to cabac_init_present_flag
    bits.ue()
    bits.ue()
    bits.se()
    bits.skip(2)
    if bits.flag():
        bits.ue()
    bits.se()
    bits.se()
    bits.skip(4)
    tiles, wavefronts = bits.flag(), bits.flag()
    return (0 if wavefronts else 2) if tiles else (3 if wavefronts else 1)


@lru_cache(maxsize=64)
def parse_hvcc(record: bytes) -> HevcConfiguration:
    """Parse an HEVCDecoderConfigurationRecord.   Spec: ISO/IEC 14496-15 clause 8.3.3.1.2."""
    check_record_size(record)
    bits = BitReader(record)
    if bits.u(8) > 1:
        # Version 0 was written before the standard was final, with the same layout.
        raise RemoteProtocolError(
            "not an HEVC decoder configuration record",
            offset=0,
            spec="ISO/IEC 14496-15 8.3.3.1",
        )
    space, tier, profile = bits.u(2), bits.u(1), bits.u(5)
    general = ProfileTierLevel(space, tier, profile, bits.u(32), bits.u(48), bits.u(8))
    bits.skip(16 + 8)  # min_spatial_segmentation_idc, parallelismType
    chroma_format_idc = bits.u(8) & 3
    luma, chroma = (bits.u(8) & 7) + 8, (bits.u(8) & 7) + 8
    average_frame_rate = bits.u(16)
    length_size = (bits.u(8) & 3) + 1
    units = []
    for _ in range(_bounded(bits.u(8), MAX_ARRAYS, "numOfArrays")):
        unit_type = bits.u(8) & 0x3F
        count = _bounded(bits.u(16), MAX_UNITS_IN_ARRAY, "numNalus")
        units.append(
            (
                unit_type,
                tuple(unit for unit in [bits.take(bits.u(16)) for _ in range(count)] if unit),
            )
        )
    return HevcConfiguration(
        general,
        chroma_format_idc,
        luma,
        chroma,
        average_frame_rate,
        length_size,
        tuple(units),
    )


@lru_cache(maxsize=64)
def configured_sps(record: bytes) -> SequenceParameterSet:
    """Return the first sequence parameter set of an hvcC; raise RemoteProtocolError where there is none."""
    found = parse_hvcc(record).of_type(SPS)
    if not found:
        raise RemoteProtocolError("the decoder configuration has no sequence parameter set")
    return parse_sps(found[0])


@lru_cache(maxsize=64)
def configured_frame_rate_mhz(record: bytes) -> int:
    """Return the frame rate that an hvcC says in its SPS or VPS, in frames per 1000 seconds; 0 for none."""
    rate = configured_sps(record).vui.frame_rate_mhz
    video = parse_hvcc(record).of_type(VPS)
    return rate or (parse_vps(video[0]).frame_rate_mhz if video else 0)


def build_hvcc(
    vps: Iterable[bytes],
    sps: Iterable[bytes],
    pps: Iterable[bytes],
    sei: Iterable[bytes] = (),
) -> bytes:
    """Return the HEVCDecoderConfigurationRecord (4-byte lengths, complete arrays) of parameter set NAL units.

    sei: declarative prefix SEI units. Raises LocalProtocolError without an SPS and for more or larger units than the
    record can hold; RemoteProtocolError for an SPS that does not parse.   Spec: ISO/IEC 14496-15 clause 8.3.3.1.2.
    """
    arrays = [(kind, list(units)) for kind, units in ((VPS, vps), (SPS, sps), (PPS, pps), (PREFIX_SEI, sei))]
    if not arrays[1][1] or any(len(units) > MAX_UNITS_IN_ARRAY for _, units in arrays):
        raise LocalProtocolError("no SPS, or too many parameter sets, for a decoder configuration record")
    if any(len(unit) > 0xFFFF for _, units in arrays for unit in units):
        raise LocalProtocolError("a parameter set of more than 65535 bytes")
    first = parse_sps(arrays[1][1][0])
    general = first.profile_tier_level
    segmentation = first.vui.min_spatial_segmentation_idc
    parallelism = _common_parallelism(arrays[2][1]) if segmentation else 0
    record = bytearray((1, general.profile_space << 6 | general.tier << 5 | general.profile_idc))
    record += general.compatibility_flags.to_bytes(4, "big") + general.constraint_flags.to_bytes(6, "big")
    record += bytes(
        (
            general.level_idc,
            0xF0 | segmentation >> 8,
            segmentation & 0xFF,
            0xFC | parallelism,
        )
    )
    record += bytes((0xFC | first.chroma_format_idc, 0xF8 | (first.bit_depth_luma - 8) & 7))
    record += bytes((0xF8 | (first.bit_depth_chroma - 8) & 7, 0, 0))
    record.append(first.max_sub_layers << 3 | first.temporal_id_nesting << 2 | 3)
    present = [(kind, units) for kind, units in arrays if units]
    record.append(len(present))
    for kind, units in present:
        record += bytes((0x80 | kind if kind != PREFIX_SEI else kind,)) + len(units).to_bytes(2, "big")
        for unit in units:
            record += len(unit).to_bytes(2, "big") + unit
    return bytes(record)


def _common_parallelism(pps: list[bytes]) -> int:
    try:
        kinds = {_parallelism(unit) for unit in pps}
    except RemoteProtocolError:
        return 0  # "unknown", which is always true
    return kinds.pop() if len(kinds) == 1 else 0


def updated_hvcc(record: bytes, units: Iterable[bytes]) -> bytes | None:
    """Return the hvcC after the parameter sets among units arrived in band; None where nothing changes.

    record: the present hvcC, or b"". A set that does not parse changes nothing. A changed SPS that arrives with a PPS
    replaces everything (but a VPS, where none came); otherwise a set replaces the one with its number.
    """
    found = {kind: [unit for unit in units if nal_type(unit) == kind] for kind in (VPS, SPS, PPS)}
    old = {kind: parse_hvcc(record).of_type(kind) if record else () for kind in (VPS, SPS, PPS, PREFIX_SEI)}
    if all(set(found[kind]) <= set(old[kind]) for kind in found):
        return None
    replace = found[PPS] and not set(found[SPS]) <= set(old[SPS])
    base = {kind: () if replace and found[kind] else old[kind] for kind in found}
    try:
        vps = merged(base[VPS], found[VPS], lambda unit: parse_vps(unit).id)
        sps = merged(base[SPS], found[SPS], lambda unit: parse_sps(unit).id)
        pps = merged(base[PPS], found[PPS], lambda unit: parse_pps_ids(unit)[0])
        changed = build_hvcc(vps, sps, pps, () if replace else old[PREFIX_SEI]) if vps and sps and pps else b""
        return changed if 0 < len(changed) <= MAX_RECORD_BYTES else None
    except (RemoteProtocolError, LocalProtocolError):
        return None


def is_keyframe(payload: bytes) -> bool:
    """Tell whether an access unit (4-byte lengths) is an IRAP picture: IDR, BLA or CRA.   Spec: H.265 table 7-1."""
    return bool(nal_types(payload, True) & IRAP_MASK)


def codec_string(configuration: HevcConfiguration, entry: str = "hvc1") -> str:
    """Return the codec string, such as "hvc1.1.6.L93.B0".

    entry: the sample entry, hvc1 (parameter sets out of band only) or hev1.   Spec: ISO/IEC 14496-15 clause E.3.
    """
    general = configuration.profile_tier_level
    reversed_flags = int(f"{general.compatibility_flags:032b}"[::-1], 2)
    constraints = general.constraint_flags.to_bytes(6, "big").rstrip(b"\0")
    text = f"{entry}.{_PROFILE_SPACES[general.profile_space]}{general.profile_idc}.{reversed_flags:X}"
    text += f".{'LH'[general.tier]}{general.level_idc}"
    return text + "".join(f".{value:X}" for value in constraints)
