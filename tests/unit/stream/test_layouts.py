"""Whole files from on-demand streams: what the layout says is what the spans give."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Iterator

import pytest

from mist.core.demuxer import demux
from mist.core.flv import FlvMuxer
from mist.core.packet import Packet
from mist.core.packet_log import PacketLog, PayloadSink, packed_log
from mist.core.span import Span, SpanWriter, open_span
from mist.core.span_index import SpanIndex, SpanIndexer, create_index
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.flv import FlvDemuxer
from mist.formats.mp4_movie import make_demuxer
from mist.formats.tracks import AUDIO, META, SUBTITLE, TrackInfo
from mist.stream import layouts
from mist.stream.layouts import (
    Layout,
    layout_of_ends,
    layout_of_outline,
    make_layout,
    make_outline,
    open_layout,
    track_ends,
)
from mist.stream.on_demand import places
from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK, by_track, flv_file, interleaved
from tests.support.shared_memory import shared_instance

TRACKS = [VIDEO_TRACK, AUDIO_TRACK]
Made = tuple[SpanIndex, PacketLog, list[Span]]


@pytest.fixture(params=[0, 700, -700], ids=lambda lead: f"lead{lead}")
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """An indexed file, its log and its spans. The parameter: how much earlier in the file sound comes than pictures."""
    data = flv_file(interleaved(11, audio_lead_ms=request.param))
    packets = demux(FlvDemuxer(), data)
    with shared_instance() as instance:
        index, log, demuxer = create_index(f"mist.{instance}.x", (1, 2, 3), 0), PacketLog(), FlvDemuxer()
        demuxer.tracks = TRACKS
        indexer = SpanIndexer(index, demuxer, 1_900_000, log)
        for packet in packets:
            indexer.write(packet)
        indexer.finish()
        spans = []
        for from_us, to_us, _, size, count, _, _ in index:
            writer = SpanWriter(from_us, to_us, count, size, 2)
            for packet in packets:
                writer.write(packet)
            writer.finish()
            spans.append(open_span(writer.fileno()))
        yield index, log, spans


async def no_payload(_track: int) -> bytes:
    return b""


def made_layout(
    description: dict[str, object], log: PacketLog, index: SpanIndex, tracks: list[TrackInfo] = TRACKS
) -> Layout:
    return open_layout(*asyncio.run(make_layout(description, log, index, tracks, no_payload)))


def laid_out(made: Made, indexes: list[int], **window: int) -> Layout:
    index, log, _ = made
    description = {"kind": "mp4", "indexes": indexes, "from_us": None, "to_us": None, **window}
    return made_layout(description, log, index)


@pytest.mark.parametrize("indexes", [[0, 1], [1, 0], [1], [0]])
@pytest.mark.parametrize("window", [{}, {"from_us": 3_000_000}, {"from_us": 1_000_000, "to_us": 7_500_000}])
def test_spans_fill_the_layout_exactly(made: Made, indexes: list[int], window: dict[str, int]) -> None:
    layout = laid_out(made, indexes, **window)
    data = bytes(layout.header)
    for number, span in enumerate(made[2]):
        assert layout.positions[number] == len(data)
        sink = PayloadSink()
        span.mux(sink, places(indexes, 2), **window)
        data += sink.take_output()
    assert len(data) == layout.size
    found = by_track(demux(make_demuxer(), data))
    low, high = window.get("from_us", -1), window.get("to_us", 1 << 60)
    packets = [packet for span in made[2] for packet in span.packet_list() if low <= packet.dts_us < high]
    for place, index in enumerate(indexes):
        assert [packet.payload for packet in found[place]] == [one.payload for one in packets if one.track == index]


@pytest.mark.parametrize("indexes", [[0, 1], [1, 0], [1], [0]])
@pytest.mark.parametrize("window", [{}, {"from_us": 1_000_000, "to_us": 7_500_000}])
def test_tracks_in_order_are_merged_as_if_all_were_sorted(
    made: Made, indexes: list[int], window: dict[str, int]
) -> None:
    index, log, spans = made
    assert log.ordered
    found = []
    for one in (log, packed_log(log.pack(), ordered=True), packed_log(log.pack())):
        layout = laid_out((index, one, spans), indexes, **window)
        found.append((bytes(layout.header), list(layout.positions)))
    assert found[0] == found[1] == found[2]


def test_a_log_notices_a_track_that_is_not_in_order(made: Made) -> None:
    log = PacketLog()
    for track, time_us in ((0, 5), (1, 3), (0, 5), (1, 4)):
        log.write(Packet(track, time_us, 0, True, b"x"))
    assert log.ordered
    log.write(Packet(1, 3, 0, True, b"x"))
    assert not log.ordered
    with pytest.raises(RemoteProtocolError, match="not in order"):
        laid_out((made[0], packed_log(log.pack(), ordered=True), []), [0, 1])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_log_that_is_cut_off_is_noticed_while_it_is_merged(made: Made, cut: int) -> None:
    index, log, _ = made
    with pytest.raises(TruncatedError):
        laid_out((index, packed_log(log.pack()[:-cut], ordered=True), []), [0, 1])


@pytest.mark.parametrize("window", [{}, {"from_us": 1_000_000, "to_us": 7_500_000}])
def test_streamed_spans_lie_where_the_layout_says(made: Made, window: dict[str, int]) -> None:
    """Of a log that is there, and of one that was kept packed: both are read in the order of the file, which is not that of the spans."""
    index, log, spans = made
    found = []
    for one in (log, packed_log(log.pack())):
        description = {"kind": "flv", "indexes": [0, 1], "from_us": None, "to_us": None, **window}
        layout = made_layout(description, one, index)
        found.append((bytes(layout.header), list(layout.positions)))
    assert found[0] == found[1]
    header, positions = found[0]
    muxer, end = FlvMuxer(TRACKS), len(header)
    for position, span in zip(positions, spans, strict=False):
        assert position == end
        span.mux(muxer, [0, 1], **window)
        end += len(muxer.take_output())
    assert positions[-1] == end > len(header)


@pytest.mark.parametrize("indexes", [[0, 1], [1, 0], [1], [0]])
def test_ends_that_were_kept_say_the_same_as_the_log(made: Made, indexes: list[int]) -> None:
    index, log, _ = made
    description = {"kind": "flv", "indexes": indexes, "from_us": None, "to_us": None}
    ends = track_ends(log, index, TRACKS)
    found = layout_of_ends(description, ends, index, TRACKS)
    assert found is not None
    kept, computed = open_layout(*found), made_layout(description, log, index)
    assert (bytes(kept.header), list(kept.positions)) == (bytes(computed.header), list(computed.positions))


def test_kept_ends_do_not_say_everything(made: Made) -> None:
    index, log, _ = made
    ends = track_ends(log, index, TRACKS)
    whole = {"kind": "flv", "indexes": [0, 1], "from_us": None, "to_us": None}
    for other in ({"from_us": 0}, {"to_us": 9}, {"kind": "mp4"}, {"indexes": [0, 0]}):
        assert layout_of_ends({**whole, **other}, ends, index, TRACKS) is None
    assert layout_of_ends(whole, {0: ends[0]}, index, TRACKS) is None
    assert set(track_ends(log, index, [VIDEO_TRACK, TrackInfo(META, SUBTITLE)])) == {0}


def test_an_outline_begins_the_usual_file(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    index, log, _ = made
    monkeypatch.setattr(layouts, "OUTLINE_BYTES", 500)
    outline = asyncio.run(make_outline(log, index, TRACKS, no_payload))
    description = {"kind": "mp4", "indexes": [0, 1], "from_us": None, "to_us": None}
    found = layout_of_outline(description, outline)
    assert outline is not None and found is not None
    begun, whole = open_layout(*found, description), made_layout(description, log, index)
    assert (len(begun.header), begun.whole, whole.whole) == (500, False, True)
    assert (begun.size, begun.header_bytes, list(begun.positions)) == (
        whole.size, len(whole.header), list(whole.positions),
    )  # fmt: skip
    assert begun.begins(whole) and not whole.begins(begun)
    for other in (
        outline._replace(beginning=bytes(500)),
        outline._replace(positions=outline.positions[:-1]),
        outline._replace(
            header_bytes=outline.header_bytes + 1, positions=array("q", [one + 1 for one in outline.positions])
        ),
    ):
        made_of_other = layout_of_outline(description, other)
        assert made_of_other is not None and not open_layout(*made_of_other).begins(whole)


def test_an_outline_does_not_say_everything(made: Made) -> None:
    index, log, _ = made
    outline = asyncio.run(make_outline(log, index, TRACKS, no_payload))
    usual = {"kind": "mp4", "indexes": [0, 1], "from_us": None, "to_us": None}
    for other in ({"from_us": 0}, {"to_us": 9}, {"kind": "3gp"}, {"indexes": [0]}, {"indexes": [1, 0]}):
        assert layout_of_outline({**usual, **other}, outline) is None
    assert layout_of_outline(usual, None) is None
    assert asyncio.run(make_outline(log, index, [TrackInfo(META, SUBTITLE)] * 2, no_payload)) is None
    assert asyncio.run(make_outline(log, index, [TrackInfo(AUDIO, "Speex")] * 2, no_payload)) is None


def test_others_get_turns_while_a_layout_is_made(made: Made) -> None:
    index = made[0]
    log = PacketLog()
    for number in range(200_000):
        log.write(Packet(0, index[0][0] + number, 0, True, b"x"))

    async def work() -> int:
        description = {"kind": "mp4", "indexes": [0], "from_us": None, "to_us": None}
        making = asyncio.ensure_future(make_layout(description, log, index, TRACKS, no_payload))
        turns = 0
        while not making.done():
            await asyncio.sleep(0)
            turns += 1
        os.close((await making)[0])
        return turns

    assert asyncio.run(work()) > 3


def test_the_span_of_a_byte(made: Made) -> None:
    layout = laid_out(made, [0, 1])
    positions = list(layout.positions)
    assert [layout.span_at(one) for one in positions[:-1]] == list(range(len(positions) - 1))
    assert [layout.span_at(one + 1) for one in positions[:-1]] == list(range(len(positions) - 1))
    assert layout.span_at(layout.size - 1) == len(positions) - 2


def test_what_has_no_known_length_is_refused(made: Made) -> None:
    index, log, _ = made
    description = {"kind": "mp4", "indexes": [0], "from_us": None, "to_us": None}
    for wrong, tracks in (({"kind": "other"}, TRACKS), ({}, [TrackInfo(META, SUBTITLE), AUDIO_TRACK])):
        with pytest.raises(UnsupportedError):
            made_layout({**description, **wrong}, log, index, tracks)
