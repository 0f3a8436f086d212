"""The index of an on-demand stream: how packets are grouped into spans, and when a span is published."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest

from mist.core.demuxer import Demuxer, demux
from mist.core.packet import Packet
from mist.core.span import SpanWriter, open_span
from mist.core.span_index import SpanIndex, SpanIndexer, create_index, open_index, sum_ends
from mist.errors import NotFound
from mist.formats.flv import FlvDemuxer
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK, audio, by_track, flv_file, interleaved, video
from tests.support.shared_memory import shared_instance

SEGMENT_US = 1_900_000


@pytest.fixture
def name() -> Iterator[str]:
    with shared_instance() as instance:
        yield f"mist.{instance}.film.spans"


def build(name: str, data: bytes, *, main: int = 0, step: int = 1 << 14) -> tuple[SpanIndex, SpanIndexer]:
    index = create_index(name, (1, len(data), 3), main)
    demuxer = FlvDemuxer()
    at = 0
    while not demuxer.ready:
        demuxer.feed(data[at : at + step])
        at += step
    indexer = SpanIndexer(index, demuxer, SEGMENT_US)
    demuxer.attach(indexer)
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        demuxer.feed(data[position : position + min(count, step)])
    indexer.finish()
    return index, indexer


def load(data: bytes, index: SpanIndex, number: int, demuxer: Demuxer) -> list[Packet]:
    """Read one span as an input does."""
    from_us, to_us, position, size, packets, _, _ = index[number]
    demuxer.attach(SpanWriter(0, 0, 0, 0, 1))
    demuxer.seek(from_us, position)
    writer = SpanWriter(from_us, to_us, packets, size, len(demuxer.tracks))
    demuxer.attach(writer)
    while not writer.whole and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + 4096])
    assert writer.whole, (number, writer.count, packets)
    writer.finish()
    return open_span(writer.fileno()).packet_list()


def loader(data: bytes) -> FlvDemuxer:
    demuxer = FlvDemuxer()
    while not demuxer.ready:
        wanted = demuxer.want()
        assert wanted is not None
        demuxer.feed(data[wanted[0] : wanted[0] + 4096])
    return demuxer


@pytest.mark.parametrize("audio_lead_ms", [0, 500, -500, 1500, -1500, 3000, -3000])
@pytest.mark.parametrize("gop", [25, 60, 200])
def test_spans_together_hold_every_packet_once(name: str, gop: int, audio_lead_ms: int) -> None:
    data = flv_file(interleaved(20, gop, audio_lead_ms=audio_lead_ms))
    index, indexer = build(name, data)
    wanted = by_track(demux(FlvDemuxer(), data))
    demuxer = loader(data)
    spans = [load(data, index, number, demuxer) for number in range(len(index))]
    assert by_track([packet for span in spans for packet in span]) == wanted
    assert indexer.late == 0
    for number, span in enumerate(spans):
        from_us, to_us, *_ = index[number]
        assert all(from_us <= packet.dts_us < to_us for packet in span)
        assert [packet.dts_us for packet in span] == sorted(packet.dts_us for packet in span)


def test_spans_begin_with_keyframes_and_last_a_segment(name: str) -> None:
    index, _ = build(name, flv_file(interleaved(11)))
    assert [(record[0], record[1], record[5]) for record in index] == [
        (0, 2_000_000, True),
        (2_000_000, 4_000_000, True),
        (4_000_000, 6_000_000, True),
        (6_000_000, 8_000_000, True),
        (8_000_000, 10_000_000, True),
        (10_000_000, 11_000_000, True),
    ]
    assert index.end_us == 11_000_000
    assert sum(record[4] for record in index) == 11 * 75


def test_random_access_in_any_order(name: str) -> None:
    data = flv_file(interleaved(20, audio_lead_ms=300))
    index, _ = build(name, data)
    demuxer = loader(data)
    spans = {number: load(data, index, number, demuxer) for number in (9, 0, 5, 4, 5, 9, 1)}
    for number, packets in spans.items():
        assert packets == load(data, index, number, loader(data))


def test_find(name: str) -> None:
    index, _ = build(name, flv_file(interleaved(11)))
    found = [index.find(time) for time in (-5, 0, 1_999_999, 2_000_000, 9_999_999, 10_000_000, 99_000_000)]
    assert found == [0, 0, 0, 1, 4, 5, 5]


def test_nothing_to_find_in_an_empty_index(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    with pytest.raises(NotFound):
        index.find(0)
    with pytest.raises(IndexError):
        index[0]


def test_audio_alone_is_cut_by_time(name: str) -> None:
    data = flv_file([audio(number, track=0) for number in range(500)], [AUDIO_TRACK])
    index, _ = build(name, data)
    assert [record[0] for record in index] == [0, 1_900_000, 3_800_000, 5_700_000, 7_600_000, 9_500_000]
    assert index.end_us == 10_000_000


def test_a_silent_main_track_does_not_hold_the_others(name: str) -> None:
    """One picture, then sound only: cover art, or a camera that was switched off."""
    data = flv_file([video(0), *(audio(number) for number in range(2000))])
    index, _ = build(name, data)
    assert len(index) > 10
    assert all(record[5] for record in index)
    assert sum(record[4] for record in index) == 2001


def test_a_span_is_published_once_all_tracks_are_past_it(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    demuxer = loader(flv_file(interleaved(1)))
    indexer = SpanIndexer(index, demuxer, SEGMENT_US)
    for number in range(51):
        indexer.write(video(number))
    assert index.count == 0
    for number in range(99):
        indexer.write(audio(number))
    assert index.count == 0
    indexer.write(audio(100))
    assert index.count == 1 and index[0][4] == 50 + 99
    assert not index.complete


def test_a_track_that_stalls_is_not_waited_for(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    indexer = SpanIndexer(index, loader(flv_file(interleaved(1))), SEGMENT_US)
    for number in range(50):
        indexer.write(audio(number))
    for number in range(25 * 20):
        indexer.write(video(number))
    assert index.count >= 6
    indexer.write(audio(51))  # much too late
    assert indexer.late == 1
    indexer.finish()
    assert index.complete and index.end_us == 20_000_000


def test_what_comes_before_the_first_keyframe_is_in_the_first_span(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    indexer = SpanIndexer(index, loader(flv_file(interleaved(1))), SEGMENT_US)
    indexer.write(video(0))
    indexer.write(audio(0, shift_ms=-60))
    for number in range(1, 100):
        indexer.write(video(number))
        indexer.write(audio(number * 2))
    indexer.finish()
    assert index[0][0] == -60_000


def test_changed_init_data_begins_a_span(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    indexer = SpanIndexer(index, loader(flv_file(interleaved(1))), SEGMENT_US)
    for number in range(150):
        if number == 70:
            indexer.new_version()
        indexer.write(video(number))
        indexer.write(audio(number * 2))
    indexer.finish()
    assert [(record[0], record[6]) for record in index] == [
        (0, 0),
        (2_000_000, 0),
        (3_000_000, 1),
        (5_000_000, 1),
    ]
    assert index.versions == 1


def test_one_long_keyframe_interval_is_cut_by_size(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    indexer = SpanIndexer(index, loader(flv_file([video(0), video(1)], [VIDEO_TRACK])), SEGMENT_US)
    payload = bytes(1 << 20)
    for number in range(80):
        indexer.write(Packet(0, number * 40_000, 0, number == 0, payload))
    indexer.finish()
    assert [record[5] for record in index] == [True, False, False]
    assert index.find(3_000_000) == 0 and index.find(3_000_000, False) == 2


def test_readers_see_what_the_writer_publishes(name: str) -> None:
    writer, _ = build(name, flv_file(interleaved(6)))
    reader = open_index(name)
    assert [reader[number] for number in range(3)] == [writer[number] for number in range(3)]
    assert reader.identity == writer.identity and reader.complete and reader.main == 0
    writer.retire()
    assert reader.stale


def test_ten_hours_fit_into_two_megabytes(name: str) -> None:
    index = create_index(name, (1, 2, 3), 0)
    indexer = SpanIndexer(index, loader(flv_file([video(0), video(1)], [VIDEO_TRACK])), SEGMENT_US)
    for number in range(36_000):
        indexer.write(Packet(0, number * 1_000_000, 0, True, b"x"))
    indexer.finish()
    assert index.bytes_used < 2 << 20


def test_an_index_of_another_layout_is_refused(name: str) -> None:
    with pytest.raises(NotFound):
        open_index(name)


def test_figures(name: str) -> None:
    _, indexer = build(name, flv_file(interleaved(10)))
    packets, size, first_us, last_us, mean, highest, frames, reorders = indexer.figures(0)
    assert (packets, first_us, last_us, frames, reorders) == (250, 0, 9_960_000, 25_000, False)
    assert size == 250 * 205 and mean == 5125 and highest >= mean


def test_more_tracks_than_there_is_room_for(name: str) -> None:
    class Many(Demuxer):
        pass

    demuxer = Many()
    demuxer.tracks = [TrackInfo(AUDIO if number else VIDEO, "x") for number in range(65)]
    with pytest.raises(Exception, match="the limit is 64"):
        SpanIndexer(create_index(name, (1, 2, 3), 0), demuxer, SEGMENT_US)


def test_ends_of_parts_add_up() -> None:
    one, other = array("q", [0, 5, 1 << 40]), memoryview(array("q", [0, 7, 9]))
    assert list(sum_ends([one, other], 13)) == [13, 25, (1 << 40) + 22]
    assert list(sum_ends([one], 0)) == list(one)
    with pytest.raises(ValueError, match="2 numbers instead of 3"):
        sum_ends([one, array("q", [1, 2])], 0)
