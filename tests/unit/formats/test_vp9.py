"""VP9 and VP8 frame headers, superframes, vpcC."""

from __future__ import annotations

import pytest

from mist.core.bits import BitWriter
from mist.errors import RemoteProtocolError
from mist.formats import vp8, vp9
from tests.support.codec_samples import golden, names


def frame(*, profile: int = 0, key: bool = True, shown: bool = True, intra_only: bool = False, space: int = 2) -> bytes:
    bits = BitWriter()
    bits.u(2, 2)
    bits.u(profile & 1, 1)
    bits.u(profile >> 1, 1)
    if profile == 3:
        bits.u(0, 1)
    bits.u(0, 1)
    bits.u(not key, 1)
    bits.u(shown, 1)
    bits.u(0, 1)
    if not key:
        if not shown:
            bits.u(intra_only, 1)
        bits.u(0, 2)
    bits.u(vp9.SYNC_CODE, 24)
    if key or profile:
        if profile >= 2:
            bits.u(1, 1)
        bits.u(space, 3)
        if space != vp9.CS_RGB:
            bits.u(1, 1)
            if profile & 1:
                bits.u(0b100, 3)
        elif profile & 1:
            bits.u(0, 1)
    if not key:
        bits.u(0xFF, 8)
    bits.u(1279, 16)
    bits.u(719, 16)
    return bits.getvalue() + bytes(8)


def test_headers() -> None:
    header = vp9.parse_frame_header(frame())
    assert header == vp9.FrameHeader(0, False, True, True, 8, 1, 2, True, 1280, 720)
    deep = vp9.parse_frame_header(frame(profile=3))
    assert (deep.profile, deep.bit_depth, deep.chroma, deep.width) == (3, 12, 2, 1280)
    hidden = vp9.parse_frame_header(frame(key=False, shown=False, intra_only=True, profile=2))
    assert (hidden.keyframe, hidden.shown, hidden.width, hidden.bit_depth) == (False, False, 1280, 12)
    assert vp9.parse_frame_header(frame(key=False)).width == 0
    assert vp9.parse_frame_header(b"\x88\x00").show_existing
    rgb = vp9.parse_frame_header(frame(profile=1, space=7))
    assert (rgb.chroma, rgb.full_range) == (3, True)


@pytest.mark.parametrize("profile", range(4))
def test_keyframe_bit_agrees_with_the_parser(profile: int) -> None:
    assert vp9.is_keyframe(frame(profile=profile))
    assert not vp9.is_keyframe(frame(profile=profile, key=False))
    assert not vp9.is_keyframe(bytes((0x88 | 0x10, 0)))
    assert not vp9.is_keyframe(b"") and not vp9.is_keyframe(b"\x00")


def test_wrong_frames() -> None:
    good = frame()
    for payload in (b"", b"\x00", b"\xb8\x00", good[:1] + b"\0\0\0" + good[4:], frame(space=7)):
        with pytest.raises(RemoteProtocolError):
            vp9.parse_frame_header(payload)
    for size in range(9):
        with pytest.raises(RemoteProtocolError):
            vp9.parse_frame_header(good[:size])


def test_superframes() -> None:
    first, second = b"\x84" * 300, b"\x86" * 20
    index = bytes((0xC9,)) + (300).to_bytes(2, "little") + (20).to_bytes(2, "little") + bytes((0xC9,))
    whole = first + second + index
    assert vp9.split_superframe(whole) == [first, second]
    assert vp9.split_superframe(first) == [first]
    assert vp9.split_superframe(b"") == [b""]
    assert vp9.split_superframe(whole[1:]) == [whole[1:]]
    assert vp9.split_superframe(b"\xc9") == [b"\xc9"]
    assert vp9.split_superframe(whole[:-6] + b"\xc8" + whole[-5:]) == [whole[:-6] + b"\xc8" + whole[-5:]]
    altref = golden("vp9", "altref")
    assert vp9.split_superframe(altref.payload) == [altref.payload]


@pytest.mark.parametrize(
    ("width", "height", "rate", "level"),
    [(320, 180, 25000, 11), (1280, 720, 30000, 31), (1920, 1080, 30000, 40), (1920, 1080, 60000, 41), (3840, 2160, 0, 50),
     (16384, 8704, 120000, 62)],
)  # fmt: skip
def test_levels(width: int, height: int, rate: int, level: int) -> None:
    assert vp9.level_for(width, height, rate) == level


@pytest.mark.parametrize("name", names("vp9"))
def test_records(name: str) -> None:
    vector = golden("vp9", name)
    header = vp9.parse_frame_header(vector.payload)
    record = vp9.build_vpcc(header, 25000)
    parsed = vp9.parse_vpcc(record)
    assert len(record) == vp9.CONFIGURATION_BYTES
    assert (parsed.profile, parsed.bit_depth, parsed.chroma) == (header.profile, header.bit_depth, header.chroma)
    assert vp9.codec_string(parsed) == vector.expected["codec_string"]
    assert vp9.updated_vpcc(record, vector.payload) is None
    for wrong in (record[:11], b"\0" + record[1:]):
        with pytest.raises(RemoteProtocolError):
            vp9.parse_vpcc(wrong)


def test_vp8() -> None:
    payload = golden("vp8", "plain").payload
    header = vp8.parse_keyframe(payload)
    assert (header.width, header.height, header.shown) == (322, 182, True)
    assert vp8.is_keyframe(payload) and not vp8.is_keyframe(b"\x01" + payload[1:]) and not vp8.is_keyframe(b"\x00")
    for wrong in (payload[:9], b"\x01" + payload[1:], payload[:3] + bytes(7), payload[:6] + bytes(4)):
        with pytest.raises(RemoteProtocolError):
            vp8.parse_keyframe(wrong)
    assert vp8.codec_string() == "vp8"
