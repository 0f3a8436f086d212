"""The fragment muxer: golden bytes, times, durations, and going on from a state."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist.core.mp4_mux import MAX_TRACKS, Mp4FragmentMuxer
from mist.core.packet import Packet
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats import h264, opus
from mist.formats.mp4_boxes import LiveMovie
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.mp4_boxes_reader import Fragment, fragments

SPS = bytes.fromhex("67640028acd940780227e5c05a808080a0000003002000000791e30632c0")
SPS_2 = bytes.fromhex("6742c01fda014016e9b808080a0000030002000003007a1e30654000")[:24]
PPS = bytes.fromhex("68ebe3cb22c0")
AVCC = h264.build_avcc([SPS], [PPS])
H264 = TrackInfo(VIDEO, "H264", AVCC, width=1920, height=1080, frame_rate_mhz=25_000)
AAC = TrackInfo(AUDIO, "AAC", bytes.fromhex("1210"), sample_rate_hz=44_100, channels=2)
OPUS = TrackInfo(AUDIO, "opus", opus.build_head(opus.OpusHead(2, coupled=1)), sample_rate_hz=48_000, channels=2)
MP3 = TrackInfo(AUDIO, "MP3", sample_rate_hz=44_100, channels=2)
AC3 = TrackInfo(AUDIO, "AC3", sample_rate_hz=48_000, channels=6)
EAC3 = TrackInfo(AUDIO, "EAC-3", sample_rate_hz=48_000, channels=2)
FLAC = TrackInfo(
    AUDIO,
    "FLAC",
    struct.pack(">HH6x", 4096, 4096) + bytes.fromhex("0ac442f000000000") + bytes(16),
    sample_rate_hz=44_100,
    channels=2,
)


def muxer(*tracks: TrackInfo) -> Mp4FragmentMuxer:
    return Mp4FragmentMuxer(tracks, LiveMovie())


def written(engine: Mp4FragmentMuxer, *packets: Packet) -> list[Fragment]:
    for packet in packets:
        engine.write(packet)
    return fragments(engine.take_output())


def video(dts_us: int, *, offset_us: int = 0, keyframe: bool = False, payload: bytes = b"\0\0\0\2\x41\x9a") -> Packet:
    return Packet(0, dts_us, offset_us, keyframe, payload)


def test_golden_keyframe() -> None:
    engine = muxer(H264, AAC)
    engine.write(video(2_000_000, offset_us=80_000, keyframe=True, payload=b"\0\0\0\2\x65\x88"))
    assert engine.take_output() == bytes.fromhex(
        "00000064 6d6f6f66  00000010 6d666864 00000000 00000001"
        "0000004c 74726166  00000010 74666864 00020000 00000001"
        "00000010 74666474 00000000 0002bf20"
        "00000024 7472756e 01000b05 00000001 0000006c 02000000 00000e10 00000006 00001c20"
        "0000000e 6d646174 000000026588"
    )


def test_golden_audio_of_96_bytes_overhead() -> None:
    engine = muxer(H264, AAC)
    engine.write(Packet(1, 1_000_000, 0, True, b"\x21\x10"))
    assert engine.take_output() == bytes.fromhex(
        "00000058 6d6f6f66  00000010 6d666864 00000000 00000001"
        "00000040 74726166  00000010 74666864 00020000 00000002"
        "00000010 74666474 00000000 0000ac44"
        "00000018 7472756e 01000201 00000001 00000060 00000002"
        "0000000a 6d646174 2110"
    )


def test_times_do_not_add_up_errors() -> None:
    engine = muxer(H264)
    exact = [round(number * 1001 / 30_000 * 1_000_000) for number in range(5000)]
    found = written(engine, *(video(time) for time in exact))
    assert [fragment.dts for fragment in found] == [3003 * number for number in range(5000)]
    assert [fragment.sequence for fragment in found] == list(range(1, 5001))
    assert {fragment.sync for fragment in found} == {None}


def test_numbers_leave_one_out_where_viewers_begin() -> None:
    """So that VLC looks at the times of each track's first fragment; the rest of a GOP has one after the other."""
    engine = muxer(H264, AAC)
    order = "V a v a v a V a v a"
    packets = [
        video(40_000 * number, keyframe=kind == "V")
        if kind in "Vv"
        else Packet(1, 40_000 * number, 0, True, b"\x21\x10")
        for number, kind in enumerate(order.split())
    ]
    found = [fragment.sequence for fragment in written(engine, *packets[:7])]
    assert found == [1, 3, 4, 5, 6, 7, 9]
    other = muxer(H264, AAC)
    other.restore(engine.state())
    assert [fragment.sequence for fragment in written(other, *packets[7:])] == [11, 12, 13]


@pytest.mark.parametrize("clock", [lambda s: s * 1000 // 1, lambda s: s * 1000 + 0.5, lambda s: round(s * 1000 + 0.3)])
def test_audio_of_a_millisecond_clock_is_seamless(clock: Any) -> None:
    engine = muxer(AAC)
    times = [int(clock(number * 1024 / 44_100)) * 1000 for number in range(3000)]
    found = written(engine, *(Packet(0, time, 0, True, b"x") for time in times))
    assert [fragment.dts for fragment in found] == [found[0].dts + 1024 * number for number in range(3000)]


def test_audio_that_jumps_is_not_moved() -> None:
    found = written(
        muxer(AAC), *(Packet(0, time, 0, True, b"x") for time in (0, 23_220, 1_000_000, 1_023_220, 500_000))
    )
    assert [fragment.dts for fragment in found] == [0, 1024, 44_100, 45_124, 45_125]


def test_composition_offsets_have_a_sign() -> None:
    found = written(muxer(H264), video(1_000_000, offset_us=-40_000), video(1_040_000, offset_us=120_000))
    assert [fragment.offset for fragment in found] == [-3600, 10_800]


def test_times_before_zero_become_zero_and_rise() -> None:
    packets = [video(time, offset_us=80_000) for time in (-80_000, -40_000, 0, 40_000)]
    found = written(muxer(H264), *packets)
    assert [fragment.dts for fragment in found] == [0, 1, 2, 3600]
    assert [fragment.dts + fragment.offset for fragment in found] == [0, 3600, 7200, 10_800]


def test_equal_times_become_different() -> None:
    found = written(muxer(H264), video(1_000_000), video(1_000_000), video(1_000_004))
    assert [fragment.dts for fragment in found] == [90_000, 90_001, 90_002]


def test_far_times_take_eight_bytes() -> None:
    late_us = 47_722 * 1_000_000  # 2^32 ticks are 47721.858 s
    found = written(muxer(H264), video(47_721 * 1_000_000), video(late_us))
    assert [fragment.dts for fragment in found] == [47_721 * 90_000, 47_722 * 90_000]
    assert found[1].overhead == found[0].overhead + 4


@pytest.mark.parametrize("dts_us", [(1 << 63) - 1, -(1 << 63), 1 << 62, 0])
@pytest.mark.parametrize("offset_us", [(1 << 63) - 1, -(1 << 63), 0])
@pytest.mark.parametrize("track", [H264, AAC, OPUS])
def test_extreme_times_stay_in_their_fields(track: TrackInfo, dts_us: int, offset_us: int) -> None:
    engine = muxer(track)
    found = written(engine, Packet(0, 5, 0, True, b"\1234567"), Packet(0, dts_us, offset_us, True, b"\1234567"))
    assert len(found) == 2
    assert 0 <= found[1].dts < 1 << 63
    engine.restore(engine.state())


def test_durations_of_video() -> None:
    known = written(
        muxer(H264), *(video(time) for time in (0, 40_000, 80_000, 200_000, 240_000, 280_000, 60_280_000, 60_320_000))
    )
    assert [fragment.duration for fragment in known] == [3600, 3600, 3600, 10_800, 3600, 3600, 3600, 3600]
    unknown = written(muxer(H264.changed(frame_rate_mhz=0)), *(video(time) for time in (0, 20_000, 40_000)))
    assert [fragment.duration for fragment in unknown] == [3600, 1800, 1800]


EAC3_FRAME = bytes.fromhex("0b7700073430") + bytes(10)


@pytest.mark.parametrize(
    ("track", "payload", "duration"),
    [
        (AAC, b"x", None),
        (AC3, b"\x0b\x77" + bytes(30), None),
        (OPUS, b"\x00", 480),
        (OPUS, b"\x08", 960),
        (OPUS, b"\x60", 480),
        (OPUS, b"\x80", 120),
        (OPUS, b"\xfc", 960),
        (OPUS, b"\xfd", 1920),
        (OPUS, b"\xff\x03", 2880),
        (OPUS, b"\xff", 960),
        (OPUS, b"\x1b\x3f", 960),
        (MP3, b"\xff\xfb\x90\x00", 1152),
        (MP3, b"\xff\xf3\x90\x00", 576),
        (MP3, b"\xff\xff\x90\x00", 384),
        (MP3, b"\xff\xfd\x90\x00", 1152),
        (MP3, b"nonsense", 882),
        (MP3, b"\xff\xfb", 882),
        (EAC3, EAC3_FRAME, 1536),
        (EAC3, (b"\x0b\x77\x00\x07\x00\x30" + bytes(10)) * 6, 1536),
        (EAC3, EAC3_FRAME + b"\x0b\x77\x40\x07\x34\x30" + bytes(10), 1536),
        (EAC3, b"\x0b", 960),
        (FLAC, b"\xff\xf8\xc9\x18\x00\xc2\0\0", 4096),
        (FLAC, b"\xff\xf8\x19\x18\x00\xc2\0\0", 192),
        (FLAC, b"\xff\xf8\x39\x18\x00\xc2\0\0", 1152),
        (FLAC, b"\xff\xf8\x69\x18\x00\x0f\0\0", 16),
        (FLAC, b"\xff\xf8\x79\x18\xc4\x80\x01\xff\0", 512),
        (FLAC, b"\xff\xf8\x79\x18\xfe\xff\xff\xff", 882),
        (FLAC, b"\xff\xf8", 882),
    ],
)
def test_durations_of_audio(track: TrackInfo, payload: bytes, duration: int | None) -> None:
    (found,) = written(muxer(track), Packet(0, 0, 0, True, payload))
    assert found.duration == duration


def test_new_parameter_sets_stand_before_every_keyframe() -> None:
    engine = muxer(H264, AAC)
    assert written(engine, video(0, keyframe=True))[0].payload == b"\0\0\0\2\x41\x9a"
    pps = PPS + b"\x80"
    changed = H264.changed(init_data=h264.build_avcc([SPS], [pps]))
    assert engine.set_tracks([changed, AAC])
    sets = struct.pack(">I", len(SPS)) + SPS + struct.pack(">I", len(pps)) + pps
    own = sets + b"\0\0\0\2\x65\x88"
    aud = b"\0\0\0\2\x09\xf0" + own
    found = written(
        engine,
        video(40_000),
        video(80_000, keyframe=True),
        video(120_000, keyframe=True, payload=own),
        video(160_000, keyframe=True, payload=aud),
        video(200_000, keyframe=True, payload=b"\0\0\0\2\x65\x88" + own),
        Packet(1, 200_000, 0, True, b"a"),
    )
    frame = b"\0\0\0\2\x41\x9a"
    assert [fragment.payload for fragment in found] == [
        frame, sets + frame, own, aud, sets + b"\0\0\0\2\x65\x88" + own, b"a"
    ]  # fmt: skip
    other = muxer(changed, AAC)
    other.restore(engine.state())
    assert written(other, video(240_000, keyframe=True)) == written(engine, video(240_000, keyframe=True))
    assert changed.init_data in engine.header()


def test_what_needs_another_movie() -> None:
    engine = muxer(H264, AAC)
    before = engine.header()
    assert engine.set_tracks([H264, AAC])
    assert engine.set_tracks([H264.changed(frame_rate_mhz=50_000), AAC.changed(language="deu")])
    assert engine.set_tracks([H264, AAC])
    for tracks in (
        [H264, AAC, OPUS],
        [H264],
        [AAC, H264],
        [H264, OPUS],
        [TrackInfo(VIDEO, "HEVC", bytes(23)), AAC],
        [H264, AAC.changed(init_data=bytes.fromhex("1190"), sample_rate_hz=48_000)],
        [H264, AAC.changed(init_data=bytes.fromhex("1208"))],
    ):
        assert not engine.set_tracks(tracks)
    assert engine.header() == before
    assert muxer(MP3).set_tracks([MP3.changed(bandwidth_bps=5)])
    assert not muxer(MP3).set_tracks([MP3.changed(channels=1)])


def test_empty_packets_are_left_out() -> None:
    engine = muxer(H264)
    assert written(engine, video(0, payload=b""), video(40_000))[0].sequence == 1


def test_what_is_refused() -> None:
    engine = muxer(H264)
    for track in (-1, 1, 70):
        with pytest.raises(LocalProtocolError):
            engine.write(Packet(track, 0, 0, True, b"x"))
    with pytest.raises(UnsupportedError):
        muxer(TrackInfo(META, "JSON"))
    with pytest.raises(UnsupportedError):
        muxer(TrackInfo(VIDEO, "theora"))
    with pytest.raises(RemoteProtocolError):
        muxer(H264.changed(init_data=b""))
    with pytest.raises(LimitExceededError):
        muxer(*[AAC] * (MAX_TRACKS + 1))
    for state in (b"", engine.state() + b"\0", engine.state()[:-1]):
        with pytest.raises(LocalProtocolError):
            engine.restore(state)


def test_many_tracks() -> None:
    engine = muxer(*[AAC] * MAX_TRACKS)
    found = written(engine, *(Packet(track, 0, 0, True, b"x") for track in range(MAX_TRACKS)))
    assert [fragment.track_id for fragment in found] == list(range(1, MAX_TRACKS + 1))
    assert len(engine.state()) <= 128


def test_the_header_changes_nothing() -> None:
    engine = muxer(H264, AC3)
    state = engine.state()
    assert engine.header(0) == engine.header(10**12)
    assert engine.state() == state
    written(engine, Packet(1, 0, 0, True, bytes.fromhex("0b77000014404000") + bytes(100)))
    assert bytes.fromhex("64616333100900")[:4] in engine.header()


def test_description_from_a_packet() -> None:
    """A 48 kHz stereo frame of 192 kbit/s, bsid 8: fscod 0, bsid 8, bsmod 0, acmod 2, lfeon 0, bit_rate_code 10."""
    engine = muxer(AC3)
    assert b"dac3" + (0b00_01000_000_111_1_01010_00000).to_bytes(3, "big") in engine.header()
    written(engine, Packet(0, 0, 0, True, bytes.fromhex("0b770000 14 40 43 e1") + bytes(760)))
    assert b"dac3" + (0b00_01000_000_010_0_01010_00000).to_bytes(3, "big") in engine.header()


_steps = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(-5_000, 200_000),
        st.integers(-100_000, 100_000),
        st.booleans(),
        st.binary(max_size=12),
    ),
    max_size=40,
)


@given(_steps, st.integers(0, 40))
def test_another_process_goes_on_with_the_same_bytes(steps: list[tuple[int, int, int, bool, bytes]], cut: int) -> None:
    tracks = [H264, AAC, OPUS, MP3, EAC3, FLAC, H264.changed(frame_rate_mhz=0), AC3, AAC, H264, OPUS]
    packets = []
    clock = [0] * len(tracks)
    for track, distance_us, offset_us, keyframe, payload in steps:
        clock[track] += distance_us
        packets.append(Packet(track, clock[track], offset_us, keyframe, payload))
    whole = muxer(*tracks)
    expected = written(whole, *packets)
    first, second = muxer(*tracks), muxer(*tracks)
    found = written(first, *packets[:cut])
    assert len(first.state()) <= 128
    second.restore(first.state())
    found += written(second, *packets[cut:])
    assert found == expected
    assert second.state() == whole.state()
    sent = [packet for packet in packets if packet.payload]
    assert [fragment.payload for fragment in found] == [packet.payload for packet in sent]
