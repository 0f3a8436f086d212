"""AC-3 and E-AC-3 frame headers, substreams, dac3 and dec3."""

from __future__ import annotations

import pytest

from mist.core.bits import BitWriter
from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats import ac3
from tests.support.codec_samples import golden, names


def extended_frame(
    *, stream_type: int = 0, substream: int = 0, mode: int = 7, lfe: int = 1, channel_map: int | None = None,
    mixing: bool = False, complexity: int | None = None, blocks: int = 3, frame_bytes: int = 64, rate: int = 0,
) -> bytes:  # fmt: skip
    bits = BitWriter()
    bits.u(ac3.SYNC_WORD, 16)
    bits.u(stream_type, 2)
    bits.u(substream, 3)
    bits.u(frame_bytes // 2 - 1, 11)
    bits.u(rate, 2)
    bits.u(1 if rate == 3 else blocks, 2)
    bits.u(mode, 3)
    bits.u(lfe, 1)
    bits.u(16, 5)
    for _ in range(1 if mode else 2):
        bits.u(31, 5)
        bits.u(1, 1)
        bits.u(0, 8)
    if stream_type == 1:
        bits.u(channel_map is not None, 1)
        if channel_map is not None:
            bits.u(channel_map, 16)
    bits.u(mixing, 1)
    if mixing:
        bits.u(0, (2 if mode > 2 else 0) + (6 if mode & 1 and mode > 2 else 0) + (6 if mode & 4 else 0))
        if lfe:
            bits.u(1, 1)
            bits.u(0, 5)
        if stream_type == 0:
            for _ in range(2 if mode else 3):
                bits.u(0b1000000, 7)
            bits.u(3, 2)
            bits.u(1, 5)
            bits.u(0, 24)
            for _ in range((1 if mode else 2) if mode < 2 else 0):
                bits.u(1 << 14, 15)
            bits.u(1, 1)
            for _ in range(1, (1, 2, 3, 6)[blocks] + 1) if blocks else ():
                bits.u(1 << 5, 6)
            if not blocks:
                bits.u(0, 5)
    bits.u(1, 1)  # informational metadata
    bits.u(5, 3)
    bits.u(0, 2 + (4 if mode == 2 else 0) + (2 if mode >= 6 else 0))
    for _ in range(1 if mode else 2):
        bits.u(1 << 8, 9)
    if rate < 3:
        bits.u(0, 1)
    if stream_type == 0 and blocks != 3 and rate != 3:
        bits.u(0, 1)
    if stream_type == 2:
        if blocks != 3:
            bits.u(1, 1)
        bits.u(0, 6)
    bits.u(complexity is not None, 1)
    if complexity is not None:
        bits.u(1, 6)
        bits.u(1, 8)
        bits.u(complexity, 8)
    return bits.getvalue().ljust(frame_bytes, b"\0")


@pytest.mark.parametrize("mode", range(8))
@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("blocks", [0, 3])
@pytest.mark.parametrize("stream_type", [0, 2])
def test_everything_before_the_additional_information(mode: int, mixing: bool, blocks: int, stream_type: int) -> None:
    data = extended_frame(mode=mode, mixing=mixing, blocks=blocks, stream_type=stream_type, complexity=12)
    frame = ac3.parse_sync_frame(data)
    assert (frame.channel_mode, frame.bitstream_mode, frame.complexity_index) == (mode, 5, 12)
    assert (frame.frame_bytes, frame.blocks, frame.sample_rate_hz) == (64, (1, 2, 3, 6)[blocks], 48000)
    for size in range(len(data)):
        try:
            ac3.parse_sync_frame(data[:size])
        except RemoteProtocolError:
            continue


def test_reduced_rates() -> None:
    frame = ac3.parse_sync_frame(extended_frame(rate=3))
    assert (frame.sample_rate_hz, frame.blocks) == (22050, 6)


def test_substreams() -> None:
    unit = extended_frame(complexity=16) + extended_frame(stream_type=1, channel_map=0x1A00, lfe=0, mode=2)
    assert [frame.stream_type for frame in ac3.iterate_sync_frames(unit)] == [0, 1]
    assert ac3.channels_of(unit) == 8
    box = ac3.build_dec3(unit)
    assert int.from_bytes(box[:2], "big") >> 3 == 32
    assert box[-2:] == bytes((1, 16))
    second_program = unit + extended_frame(substream=1, mode=2, lfe=0)
    assert ac3.channels_of(second_program) == 8
    assert ac3.build_dec3(second_program)[1] & 7 == 1
    with pytest.raises(LimitExceededError):
        list(ac3.iterate_sync_frames(unit * 40))


@pytest.mark.parametrize(
    ("name", "frame_bytes", "bitrate", "box"),
    [("plain", 768, 192000, "101140"), ("51", 1950, 448000, "503de0"), ("mono", 576, 96000, "9008c0")],
)
def test_plain_golden(name: str, frame_bytes: int, bitrate: int, box: str) -> None:
    frame = ac3.parse_sync_frame(golden("ac3", name).payload)
    assert not frame.extended
    assert (frame.frame_bytes, frame.bitrate_bps, frame.blocks) == (frame_bytes, bitrate, 6)
    assert ac3.build_dac3(frame).hex() == box


def test_wrong_frames() -> None:
    good = golden("ac3", "plain").payload
    for wrong in (
        good[:7],
        b"\0" + good[1:],
        good[:4] + b"\xc0" + good[5:],
        good[:4] + b"\x3f" + good[5:],
        good[:5] + b"\xff" + good[6:],
    ):
        with pytest.raises(RemoteProtocolError):
            ac3.parse_sync_frame(wrong)
    broken = bytearray(extended_frame())
    for byte, value in ((2, 0xC0), (4, 0xF0)):
        damaged = bytearray(broken)
        damaged[byte] |= value
        with pytest.raises(RemoteProtocolError):
            ac3.parse_sync_frame(bytes(damaged))
    assert set(names("ac3")) >= {"eac3", "eac3_51", "eac3_mono"}
    assert (ac3.codec_string(True), ac3.codec_string(False)) == ("ec-3", "ac-3")
