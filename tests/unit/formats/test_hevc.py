"""HEVC headers: golden sets of x265, records, codec strings and random access points."""

from __future__ import annotations

import pytest

from mist.core.nal import join_length_prefixed
from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats import hevc
from tests.support.codec_samples import golden, names

GENERAL = hevc.ProfileTierLevel(0, 0, 1, 0x60000000, 0xB00000000000, 93)


def configuration(general: hevc.ProfileTierLevel) -> hevc.HevcConfiguration:
    return hevc.HevcConfiguration(general, 1, 8, 8, 0, 4, ())


@pytest.mark.parametrize(
    ("general", "text"),
    [
        (GENERAL, "hvc1.1.6.L93.B0"),  # the examples of ISO/IEC 14496-15 annex E and of Apple's HLS specification
        (hevc.ProfileTierLevel(0, 0, 2, 0x20000000, 0xB00000000000, 120), "hvc1.2.4.L120.B0"),
        (hevc.ProfileTierLevel(1, 1, 4, 0x08000000, 0x90000000000 << 4, 120), "hvc1.A4.10.H120.90"),
        (hevc.ProfileTierLevel(0, 0, 1, 0x60000000, 0, 30), "hvc1.1.6.L30"),
        (hevc.ProfileTierLevel(0, 0, 4, 0x08000000, 0x998800000000, 60), "hvc1.4.10.L60.99.88"),
    ],
)
def test_codec_strings(general: hevc.ProfileTierLevel, text: str) -> None:
    assert hevc.codec_string(configuration(general)) == text
    assert hevc.codec_string(configuration(general), "hev1") == text.replace("hvc1", "hev1")


@pytest.mark.parametrize(
    ("name", "chroma", "depth"), [("main", 1, 8), ("main10", 1, 10), ("422", 2, 10), ("12", 1, 12), ("high_tier", 1, 8)]
)
def test_sps(name: str, chroma: int, depth: int) -> None:
    sps = hevc.configured_sps(golden("hevc", name).init_data)
    assert (sps.chroma_format_idc, sps.bit_depth_luma, sps.bit_depth_chroma) == (chroma, depth, depth)
    assert sps.vui.frame_rate_mhz == 25000


def test_what_the_vui_says() -> None:
    vui = hevc.configured_sps(golden("hevc", "main10").init_data).vui
    assert (vui.colour_primaries, vui.transfer_characteristics, vui.matrix_coefficients) == (9, 16, 9)
    assert not vui.full_range
    assert hevc.configured_sps(golden("hevc", "scaling").init_data).vui.sar_width == 2
    assert hevc.configured_sps(golden("hevc", "field").init_data).vui.field_seq
    assert hevc.configured_sps(golden("hevc", "nob").init_data).max_num_reorder_pics == 0
    assert hevc.configured_sps(golden("hevc", "layers").init_data).max_sub_layers == 2
    assert hevc.configured_sps(golden("hevc", "high_tier").init_data).profile_tier_level.tier == 1


@pytest.mark.parametrize("name", names("hevc"))
def test_record_round_trip(name: str) -> None:
    record = golden("hevc", name).init_data
    parsed = hevc.parse_hvcc(record)
    sets = [parsed.of_type(kind) for kind in (hevc.VPS, hevc.SPS, hevc.PPS)]
    assert [len(units) for units in sets] == [1, 1, 1]
    assert hevc.build_hvcc(*sets) == record
    video = hevc.parse_vps(sets[0][0])
    sps = hevc.parse_sps(sets[1][0])
    assert (video.id, hevc.parse_pps_ids(sets[2][0])) == (sps.vps_id, (0, sps.id))
    assert video.profile_tier_level == sps.profile_tier_level
    with_sei = hevc.build_hvcc(sets[0], sets[1], sets[2], [b"\x4e\x01\x05\x01\x00\x80"])
    assert hevc.parse_hvcc(with_sei).of_type(hevc.PREFIX_SEI) == (b"\x4e\x01\x05\x01\x00\x80",)


@pytest.mark.parametrize("name", names("hevc"))
def test_every_cut_of_the_sets(name: str) -> None:
    parsed = hevc.parse_hvcc(golden("hevc", name).init_data)
    for kind, parse in ((hevc.VPS, hevc.parse_vps), (hevc.SPS, hevc.parse_sps), (hevc.PPS, hevc.parse_pps_ids)):
        unit = parsed.of_type(kind)[0]
        for size in range(len(unit)):
            try:
                parse(unit[:size])
            except RemoteProtocolError:
                continue


def test_wrong_data() -> None:
    for parse in (hevc.parse_vps, hevc.parse_sps, hevc.parse_pps_ids):
        for unit in (b"", b"\x00", b"\x02\x01\xff\xff"):
            with pytest.raises(RemoteProtocolError):
                parse(unit)
    with pytest.raises(RemoteProtocolError):
        hevc.parse_hvcc(b"\x02" + bytes(40))
    with pytest.raises(RemoteProtocolError):
        hevc.configured_sps(b"\x01" + bytes(22))
    with pytest.raises(LocalProtocolError):
        hevc.build_hvcc([], [], [])


@pytest.mark.parametrize(
    ("unit_type", "key"),
    [(0, False), (1, False), (9, False), (16, True), (19, True), (20, True), (21, True), (24, False)],
)
def test_keyframes(unit_type: int, key: bool) -> None:
    payload = join_length_prefixed([b"\x46\x01\x50", bytes((unit_type << 1, 1, 0xAF))])
    assert hevc.is_keyframe(payload) is key
    assert not hevc.is_keyframe(payload[:-1])
