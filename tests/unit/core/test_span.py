"""A span in memory: written once, read by descriptor."""

from __future__ import annotations

import os

import pytest

from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.core.packet_log import PayloadSink
from mist.core.span import Span, SpanWriter, open_span
from mist.errors import LimitExceededError, NotFound
from tests.support.flv_files import audio, video

pytestmark = pytest.mark.usefixtures("no_leaks")
PACKETS = [video(0), audio(0), video(1), audio(2), audio(1), video(2), audio(3), video(25), audio(4)]


def written(packets: list[Packet], from_us: int = 0, to_us: int = 2_000_000, *, room: int | None = None) -> Span:
    size = sum(len(packet.payload) for packet in packets)
    writer = SpanWriter(from_us, to_us, len(packets) if room is None else room, size, 2)
    for packet in packets:
        writer.write(packet)
    writer.finish()
    return open_span(writer.fileno())


def test_packets_come_back_in_the_order_of_decode_times() -> None:
    span = written(PACKETS)
    assert len(span) == len(PACKETS)
    assert span.packet_list() == sorted(PACKETS, key=lambda packet: packet.dts_us)
    assert (span.from_us, span.to_us) == (0, 2_000_000)


def payload_of(span: Span, places: list[int], from_us: int = -(1 << 63), to_us: int = (1 << 63) - 1) -> bytes:
    sink = PayloadSink()
    span.mux(sink, places, 0, from_us, to_us)
    return sink.take_output()


def test_payload_lies_in_the_order_of_the_packets() -> None:
    size = sum(len(packet.payload) for packet in PACKETS)
    writer = SpanWriter(0, 2_000_000, len(PACKETS), size, 2)
    for packet in PACKETS:
        writer.write(packet)
    writer.finish()
    span = open_span(writer.fileno())
    windows: tuple[dict[str, int], ...] = ({}, {"from_us": 20_000}, {"from_us": 20_000, "to_us": 80_000})
    for window in windows:
        run = span.payload_run([0, 1], **window)
        assert run is not None
        position, count = run
        assert os.pread(writer.fileno(), count, position) == payload_of(span, [0, 1], **window) != b""
    assert span.payload_run([0, 1], from_us=1_900_000) is not None
    assert span.payload_run([-1, 0]) is None, "one track's packets lie between those of another"
    assert written([audio(0), audio(1), video(2)]).payload_run([-1, 0]) is not None


def test_equal_times_keep_the_order_of_the_file() -> None:
    span = written([audio(0), video(0), audio(2), video(1)])
    assert [packet.track for packet in span.packet_list()] == [1, 0, 1, 0]


def test_only_what_belongs_to_the_span_is_kept() -> None:
    span = written(PACKETS, 40_000, 80_000)
    assert [packet.dts_us for packet in span.packet_list()] == [40_000, 40_000, 60_000]


def test_more_packets_than_announced_are_left_out() -> None:
    writer = SpanWriter(0, 1_000_000, 2, 10_000, 2)
    for number in range(4):
        writer.write(audio(number))
    assert writer.whole and writer.refused == 2 and writer.count == 2
    writer.finish()
    assert len(open_span(writer.fileno())) == 2


def test_packets_larger_than_announced_make_the_span_grow() -> None:
    packets = [Packet(0, number, 0, True, bytes([number]) * 50_000) for number in range(20)]
    writer = SpanWriter(0, 100, len(packets), 10, 1)
    for packet in packets:
        writer.write(packet)
    writer.finish()
    assert writer.whole and open_span(writer.fileno()).packet_list() == packets


def test_fewer_packets_than_announced_are_a_smaller_span() -> None:
    assert len(written(PACKETS, room=100)) == len(PACKETS)


def test_a_writer_tells_when_all_tracks_are_past_its_end() -> None:
    writer = SpanWriter(0, 100_000, 100, 10_000, 2)
    writer.write(video(3))
    assert not writer.passed
    writer.write(audio(10))
    assert writer.passed and not writer.whole


def test_mux_selects_tracks_and_times() -> None:
    span = written(PACKETS)
    sink = PacketList()
    end = span.mux(sink, [-1, 0], 0, 20_000, 80_000)
    assert end == len(span)
    assert [(packet.track, packet.dts_us) for packet in sink.take()] == [(0, 20_000), (0, 40_000), (0, 60_000)]


def test_mux_goes_on_where_it_stopped() -> None:
    from mist.core.flv import FlvMuxer
    from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK

    span = written(PACKETS)
    whole, pieces = FlvMuxer([VIDEO_TRACK, AUDIO_TRACK]), FlvMuxer([VIDEO_TRACK, AUDIO_TRACK])
    span.mux(whole, [0, 1])
    data, number, steps = b"", 0, 0
    while number < len(span):
        number = span.mux(pieces, [0, 1], number, limit=300)
        data += pieces.take_output()
        steps += 1
    assert data == whole.take_output() and steps == 3


def test_the_keyframe_before_a_time() -> None:
    span = written(PACKETS)
    assert [span.key_before(0, time) for time in (-1, 0, 999_999, 1_000_000, 9_000_000)] == [
        0,
        0,
        0,
        1_000_000,
        1_000_000,
    ]
    assert span.key_before(5, 0) is None


def test_memory_stays_when_the_writer_is_gone() -> None:
    writer = SpanWriter(0, 1_000_000, 1, 1000, 2)
    writer.write(video(0))
    writer.finish()
    fd = os.dup(writer.fileno())
    del writer
    try:
        span = open_span(fd)
    finally:
        os.close(fd)
    assert span.packet_list() == [video(0)]


@pytest.mark.parametrize("data", [b"", b"x", bytes(4096)])
def test_what_is_no_span_is_refused(data: bytes) -> None:
    fd = os.memfd_create("test")
    try:
        os.write(fd, data)
        with pytest.raises(NotFound):
            open_span(fd)
    finally:
        os.close(fd)


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        SpanWriter(0, 1, 1, 1 << 40, 1)
    with pytest.raises(LimitExceededError):
        SpanWriter(0, 1, 1, 1, 65)
    with pytest.raises(IndexError):
        written(PACKETS).time_of(100)
