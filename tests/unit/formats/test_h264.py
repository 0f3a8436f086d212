"""H.264 headers: golden sets of x264, sets built by hand, records and random access points."""

from __future__ import annotations

import pytest

from mist.core.bits import BitWriter
from mist.core.nal import escape, join_length_prefixed
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from mist.formats import h264
from tests.support.codec_samples import golden, names


def make_sps(
    *, profile: int = 77, flags: int = 0, map_units: int = 44, mbs: int = 79, crop: bool = False, vui: bytes | None = None,
    poc_type: int = 0, number: int = 0,
) -> bytes:  # fmt: skip
    bits = BitWriter()
    for value in (0x67, profile, flags, 31):
        bits.u(value, 8)
    bits.ue(number)
    bits.ue(0)
    bits.ue(poc_type)
    if poc_type == 0:
        bits.ue(2)
    elif poc_type == 1:
        bits.u(1, 1)
        bits.se(-3)
        bits.se(4)
        bits.ue(2)
        bits.se(1)
        bits.se(-1)
    bits.ue(4)
    bits.u(0, 1)
    bits.ue(mbs)
    bits.ue(map_units)
    bits.u(0b11, 2)  # frame_mbs_only, direct_8x8
    bits.u(crop, 1)
    for value in (1, 2, 0, 4) if crop else ():
        bits.ue(value)
    bits.u(vui is not None, 1)
    for value in vui or b"":
        bits.u(value, 8)
    bits.u(1, 1)
    return escape(bits.getvalue())


def test_sps_of_the_interlaced_sample() -> None:
    sps = h264.configured_sps(golden("h264", "interlaced").init_data)
    assert (sps.width, sps.height, sps.frame_mbs_only, sps.profile_idc, sps.level_idc) == (322, 180, False, 100, 21)
    assert (sps.vui.frame_rate_mhz, sps.vui.max_num_reorder_frames) == (25000, 2)


def test_sps_with_hrd_aspect_and_colour() -> None:
    hrd = h264.configured_sps(golden("h264", "hrd").init_data)
    assert (hrd.vui.sar_width, hrd.vui.sar_height, hrd.vui.frame_rate_mhz) == (4, 3, 25000)
    colour = h264.configured_sps(golden("h264", "colour").init_data).vui
    assert colour.full_range
    assert (colour.colour_primaries, colour.transfer_characteristics, colour.matrix_coefficients) == (1, 1, 1)
    assert h264.configured_sps(golden("h264", "ntsc").init_data).vui.sar_width == 40


@pytest.mark.parametrize(
    ("name", "chroma", "depth"), [("444", 3, 8), ("grey", 0, 8), ("high10", 1, 10), ("matrix", 1, 8), ("main", 1, 8)]
)
def test_chroma_and_depth(name: str, chroma: int, depth: int) -> None:
    sps = h264.configured_sps(golden("h264", name).init_data)
    assert (sps.chroma_format_idc, sps.bit_depth_luma, sps.bit_depth_chroma) == (chroma, depth, depth)


def test_cropping_and_picture_order() -> None:
    assert h264.parse_sps(make_sps()).height == 720
    cropped = h264.parse_sps(make_sps(crop=True))
    assert (cropped.width, cropped.height) == (1280 - 6, 720 - 8)
    assert h264.parse_sps(make_sps(poc_type=1)).pic_order_cnt_type == 1
    assert h264.reorders(h264.parse_sps(make_sps(poc_type=2))) is False
    assert h264.reorders(h264.parse_sps(make_sps())) is None
    assert h264.reorders(h264.parse_sps(make_sps(profile=66))) is False


def test_a_vui_cut_short_keeps_what_it_said() -> None:
    # aspect ratio 14 (4:3), no overscan, no video signal type, no chroma location, timing that ends too early
    sps = h264.parse_sps(make_sps(vui=bytes((0b10000111, 0b00000100))))
    assert (sps.vui.sar_width, sps.vui.sar_height, sps.vui.frame_rate_mhz) == (4, 3, 0)


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        h264.parse_sps(make_sps(mbs=5000))
    with pytest.raises(LimitExceededError):
        h264.parse_sps(make_sps(number=32))
    with pytest.raises(RemoteProtocolError):
        h264.parse_sps(make_sps(mbs=0, map_units=0, crop=True)[:7])
    for unit in (b"", b"\x68\xce", b"\x67"):
        with pytest.raises(RemoteProtocolError):
            h264.parse_sps(unit)
    with pytest.raises(LimitExceededError):
        h264.parse_avcc(b"\1" + bytes(h264.MAX_RECORD_BYTES))


@pytest.mark.parametrize("name", names("h264"))
def test_record_round_trip(name: str) -> None:
    record = golden("h264", name).init_data
    parsed = h264.parse_avcc(record)
    assert parsed.length_size == 4
    assert h264.build_avcc(parsed.sps, parsed.pps, parsed.sps_extensions) == record
    assert h264.parse_pps(parsed.pps[0]).cabac == (name not in ("baseline", "colour", "ntsc", "hrd", "444", "grey", "high10",
                                                                "intra", "matrix"))  # fmt: skip


def test_records_of_careless_writers() -> None:
    record = golden("h264", "high10").init_data
    without_tail = record[:-4]
    assert h264.parse_avcc(without_tail).pps == h264.parse_avcc(record).pps
    assert h264.parse_avcc(without_tail + b"\xfd\xf8\xf8\x05").sps_extensions == ()
    with pytest.raises(RemoteProtocolError):
        h264.parse_avcc(b"\0" + record[1:])
    with pytest.raises(RemoteProtocolError):
        h264.configured_sps(b"\1\x42\0\x1f\xff\xe0\0")
    with pytest.raises(LocalProtocolError):
        h264.build_avcc([], [])
    with pytest.raises(LocalProtocolError):
        h264.build_avcc([make_sps()], [b"\x68" + bytes(70000)])


def test_keyframes() -> None:
    idr, inter, intra = b"\x65\x88\x84", b"\x41\x9a\x24", b"\x41\xb8\x20"  # slice types 7, 5 and 2
    recovery, other_sei = b"\x06\x06\x01\xc4\x80", b"\x06\x05\x02\x80\x80\x80"
    assert h264.is_keyframe(join_length_prefixed([b"\x09\xf0", idr]))
    assert not h264.is_keyframe(join_length_prefixed([inter]))
    assert not h264.is_keyframe(join_length_prefixed([intra]))
    assert h264.is_keyframe(join_length_prefixed([make_sps(), intra]))
    assert not h264.is_keyframe(join_length_prefixed([make_sps(), inter]))
    assert h264.is_keyframe(join_length_prefixed([other_sei, recovery, inter]))
    assert not h264.is_keyframe(join_length_prefixed([other_sei, inter]))
    assert not h264.is_keyframe(join_length_prefixed([make_sps(), recovery]))
    assert not h264.is_keyframe(b"\0\0\1\0\x65")
    assert not h264.is_keyframe(b"")


def test_recovery_point_messages() -> None:
    assert h264.recovery_point(b"\x06\x06\x01\xc4\x80") == 0
    assert h264.recovery_point(b"\x06\x05\x02\xaa\xbb\x06\x01\x40\x80") == 1
    assert h264.recovery_point(b"\x06\x05\xff\x01" + bytes([7]) * 256 + b"\x06\x01\xc4\x80") == 0
    for unit in (
        b"",
        b"\x06",
        b"\x06\x80",
        b"\x06\x06\x01",
        b"\x06\xff\xff",
        b"\x06\x06\x01\x00\x80",
        b"\x06\x05\x09\x00",
    ):
        assert h264.recovery_point(unit) is None


@pytest.mark.parametrize(
    ("profile", "flags", "level", "names"),
    [
        (66, 0xC0, 31, ("Constrained Baseline", "3.1")),
        (66, 0x80, 30, ("Baseline", "3.0")),
        (77, 0x10, 11, ("Main", "1b")),
        (100, 0x00, 9, ("High", "1b")),
        (100, 0x00, 40, ("High", "4.0")),
        (244, 0x10, 51, ("High 4:4:4 Intra", "5.1")),
        (99, 0, 52, ("", "5.2")),
    ],
)
def test_names(profile: int, flags: int, level: int, names: tuple[str, str]) -> None:
    assert (h264.profile_name(profile, flags), h264.level_name(level, flags, profile)) == names


def test_codec_string() -> None:
    assert h264.codec_string(h264.parse_avcc(b"\1\x64\0\x28\xff\xe0\0")) == "avc1.640028"
