"""Packets of chosen tracks and times passed on to a muxer."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from mist.core.demuxer import PacketList
from mist.core.flv import FlvMuxer
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.core.packet_filter import (
    KEEP_TIMES,
    MAX_GOP_BYTES,
    NO_NEGATIVE_TIMES,
    TIMES_FROM_ZERO,
    PacketFilter,
)
from mist.errors import LimitExceededError
from mist.formats.tracks import TrackInfo

GOP = 25


def video(number: int, track: int = 0, first_us: int = 0) -> Packet:
    return Packet(track, first_us + number * 40_000, 0, number % GOP == 0, b"v%03d" % number)


def audio(number: int, track: int = 1, first_us: int = 0) -> Packet:
    return Packet(track, first_us + number * 20_000, 0, True, b"a%03d" % number)


def stream(seconds: int = 4, first_us: int = 0) -> list[Packet]:
    packets = [video(number, first_us=first_us) for number in range(seconds * 25)]
    packets += [audio(number, first_us=first_us) for number in range(seconds * 50)]
    return sorted(packets, key=lambda packet: packet.dts_us)


def opened(sink: Muxer, places: list[int], **options: object) -> PacketFilter:
    chosen = PacketFilter(lambda: chosen.open(sink, places, **options))  # type: ignore[arg-type]
    return chosen


def passed(packets: Iterable[Packet], places: list[int] | None = None, **options: object) -> list[Packet]:
    sink = PacketList()
    chosen = opened(sink, [0, 1] if places is None else places, **options)
    for packet in packets:
        chosen.write(packet)
    chosen.release()
    return sink.take()


def test_everything_passes_unchanged() -> None:
    assert passed(stream()) == stream()


def test_tracks_are_left_out_and_numbered_anew() -> None:
    got = passed([*stream(), video(0, track=2), video(0, track=7)], [-1, 0, -1])
    assert [(p.track, p.payload) for p in got] == [(0, p.payload) for p in stream() if p.track == 1]


def test_negative_times_move_everything_by_whole_milliseconds() -> None:
    source = stream(first_us=-83_333)
    assert passed(source, times=KEEP_TIMES) == source
    got = passed(source, times=NO_NEGATIVE_TIMES)
    assert [p.dts_us for p in got] == [p.dts_us + 84_000 for p in source]
    assert passed(stream(first_us=5), times=NO_NEGATIVE_TIMES) == stream(first_us=5)


def test_the_earliest_track_counts_even_if_it_comes_second() -> None:
    source = [audio(0), audio(1), video(0, first_us=-80_000), audio(2)]
    got = passed(source, times=NO_NEGATIVE_TIMES)
    assert [p.dts_us for p in got] == [80_000, 100_000, 0, 120_000]


def test_a_track_that_never_begins_is_not_waited_for() -> None:
    sink = PacketList()
    chosen = opened(sink, [0, 1], times=NO_NEGATIVE_TIMES)
    for number in range(100):
        chosen.write(video(number))
    assert len(sink.take()) == 100
    late = Packet(1, -500, 0, True, b"late")
    chosen.write(late)
    assert [(p.dts_us, p.offset_us) for p in sink.take()] == [(0, -500)]


def test_a_sparse_track_is_not_waited_for() -> None:
    sink = PacketList()
    chosen = opened(sink, [0, 1], sparse=[1])
    chosen.write(video(0))
    assert sink.take() == [video(0)]


def test_start_is_the_keyframe_before_and_all_tracks_from_there() -> None:
    got = passed(stream(), main=0, start_us=1_500_000)
    assert got == [p for p in stream() if p.dts_us >= 1_000_000]


def test_start_on_a_keyframe_is_that_keyframe() -> None:
    assert passed(stream(), main=0, start_us=2_000_000)[0].dts_us == 2_000_000


def test_audio_that_comes_earlier_in_the_file_is_not_lost() -> None:
    source = sorted(stream(), key=lambda p: p.dts_us - (600_000 if p.track == 1 else 0))
    got = passed(source, main=0, start_us=1_500_000)
    assert sorted(p.payload for p in got) == sorted(p.payload for p in stream() if p.dts_us >= 1_000_000)


def test_start_counts_from_the_earliest_packet_and_times_can_begin_at_zero() -> None:
    got = passed(stream(first_us=3_600_000_000), main=0, start_us=1_500_000, times=TIMES_FROM_ZERO)
    assert [p.payload for p in got] == [p.payload for p in stream() if p.dts_us >= 1_000_000]
    assert got[0].dts_us == 0 and got[-1].dts_us == 3_980_000 - 1_000_000


def test_start_without_video_is_exact() -> None:
    source = [audio(number, track=0) for number in range(200)]
    assert passed(source, [0], start_us=1_510_000)[0].dts_us == 1_520_000


def test_start_within_the_last_gop_and_past_the_end() -> None:
    got = passed(stream(), main=0, start_us=3_980_000)
    assert got == [p for p in stream() if p.dts_us >= 3_000_000]
    assert passed(stream(), main=0, start_us=3_000_001)[0].dts_us == 3_000_000
    assert passed([audio(number, track=0) for number in range(10)], [0], start_us=9_000_000) == []


def test_a_stream_without_keyframe_before_the_start_begins_at_the_first() -> None:
    source = [p for p in stream() if p.track == 1 or p.dts_us >= 1_320_000]
    got = passed(source, main=0, start_us=500_000)
    assert got[0].dts_us == 2_000_000 and got[0].keyframe


def test_stop_ends_each_track_and_then_all() -> None:
    sink = PacketList()
    chosen = opened(sink, [0, 1], main=0, stop_us=1_000_000)
    for packet in stream():
        chosen.write(packet)
        if chosen.done:
            break
    assert sink.take() == [p for p in stream() if p.dts_us < 1_000_000]
    assert chosen.done and packet.dts_us < 1_100_000
    assert chosen.position_us >= 1_000_000 and chosen.packets == 75


def test_a_track_that_is_over_early_does_not_keep_it_going() -> None:
    source = [p for p in stream(20) if p.track == 0 or p.dts_us < 500_000]
    sink = PacketList()
    chosen = opened(sink, [0, 1], stop_us=1_000_000)
    for packet in source:
        chosen.write(packet)
    assert chosen.done
    assert max(p.dts_us for p in sink.take()) < 1_000_000


def test_the_header_comes_first_and_knows_the_first_time() -> None:
    tracks = [TrackInfo("video", "VP9", width=64, height=64)]
    muxer = FlvMuxer(tracks)
    chosen = opened(muxer, [0])
    assert muxer.take_output() == b""
    chosen.write(video(0, first_us=7_000_000))
    assert muxer.take_output().startswith(muxer.header(7_000_000))


def test_a_gop_without_end_is_bounded() -> None:
    chosen = opened(PacketList(), [0], main=0, start_us=10**15)
    block = bytes(16 << 20)
    chosen.write(video(0))
    with pytest.raises(LimitExceededError):
        for number in range(1, MAX_GOP_BYTES // len(block) + 2):
            chosen.write(Packet(0, number, 0, False, block))


def test_an_input_without_packets() -> None:
    assert passed([]) == []
    assert passed([], start_us=5, main=0) == []
