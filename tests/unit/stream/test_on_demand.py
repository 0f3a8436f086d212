"""The reading side of an on-demand stream: spans are shared, waited for, and asked for again from another input."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.core.span import SpanWriter
from mist.core.span_index import SpanIndex, SpanIndexer, create_index
from mist.errors import MistError, NotReady, RemoteProtocolError, TransportError, UnsupportedError
from mist.formats.flv import FlvDemuxer
from mist.formats.tracks import META, TrackInfo
from mist.stream import on_demand
from mist.stream.layouts import Layout
from mist.stream.on_demand import MAX_INPUTS, OnDemandReader, index_name, main_track, pack_tracks, places, unpack_tracks
from mist.stream.publisher import StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus
from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK, audio, flv_file, interleaved, video
from tests.support.shared_memory import make_publisher, shared_instance

TRACKS = [VIDEO_TRACK, AUDIO_TRACK]


class Film:
    """A stream whose input is this object. The index has a span of two seconds for each time that `grow` is called."""

    def __init__(self, instance: str, folder: Path) -> None:
        self.instance = instance
        self.publisher: StreamPublisher = make_publisher(instance, folder, name="film")
        for info in TRACKS:
            self.publisher.add_track(info)
        self.fetched: list[int] = []
        self.failures: list[Exception] = []
        self.hold: asyncio.Event | None = None
        self.frames = 0
        self.new_index()
        self.publisher.play_on_demand()
        self.reader = StreamReader(instance, "film")
        self.conditions: list[Callable[[], bool]] = []

    def new_index(self) -> None:
        demuxer = FlvDemuxer()
        demuxer.feed(flv_file(interleaved(1)))
        self.index: SpanIndex = create_index(index_name(self.instance, "film"), (1, 2, 3), 0)
        self.indexer = SpanIndexer(self.index, demuxer, 1_900_000)
        self.frames = 0

    def grow(self, spans: int) -> None:
        for number in range(self.frames, self.frames + spans * 50 + (not self.frames)):
            self.indexer.write(video(number))
            self.indexer.write(audio(number * 2))
            self.frames = number + 1

    async def fetch(self, wanted: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        number = int(wanted["span"])
        self.fetched.append(number)
        if self.hold is not None:
            await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        from_us, to_us, _, size, packets, _, _ = self.index[number]
        writer = SpanWriter(from_us, to_us, packets, size, 2)
        for frame in range(number * 50, number * 50 + 50):
            writer.write(video(frame))
            writer.write(audio(frame * 2))
        writer.finish()
        return os.dup(writer.fileno()), {"tracks": pack_tracks(TRACKS)}

    async def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        for _ in range(50):
            if condition():
                return True
            await asyncio.sleep(0)
        return condition()

    def media(self) -> OnDemandReader:
        return OnDemandReader(self.reader, self.fetch, self.wait)


@pytest.fixture
def film(tmp_path: Path) -> Iterator[Film]:
    with shared_instance() as instance:
        yield Film(instance, tmp_path)


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(main())


def test_an_on_demand_stream_is_not_live(film: Film) -> None:
    assert not film.reader.live and film.reader.status() == StreamStatus.READY
    film.publisher.describe_track(0, 250, 0, 9_960_000, 5125, 6000, 25_000, True)
    state = film.reader.track(0)
    assert (state.first_us, state.last_us, state.bytes_per_second, state.has_bframes) == (0, 9_960_000, 5125, True)
    assert state.measured_frame_rate_mhz == 25_000 and state.next_sequence == 250


def test_a_span_has_packets_and_tracks(film: Film) -> None:
    film.grow(3)

    async def work() -> None:
        loaded = await film.media().span(1)
        assert loaded.place.from_us == 2_000_000 and loaded.infos == tuple(TRACKS)
        packets: list[Packet] = loaded.span.packet_list()
        assert packets[0] == video(50) and len(packets) == 100

    run(work())


def test_viewers_share_a_span(film: Film) -> None:
    film.grow(2)

    async def work() -> None:
        media = film.media()
        film.hold = asyncio.Event()
        waiting = [asyncio.ensure_future(media.span(0)) for _ in range(5)]
        await asyncio.sleep(0)
        film.hold.set()
        loaded = await asyncio.gather(*waiting)
        assert all(one is loaded[0] for one in loaded) and film.fetched == [0]
        assert await media.span(0) is loaded[0] and film.fetched == [0]

    run(work())


def test_a_viewer_that_leaves_takes_no_span_from_the_others(film: Film) -> None:
    film.grow(2)

    async def work() -> None:
        media = film.media()
        film.hold = asyncio.Event()
        one, other = asyncio.ensure_future(media.span(0)), asyncio.ensure_future(media.span(0))
        await asyncio.sleep(0)
        one.cancel()
        film.hold.set()
        assert (await other).number == 0

    run(work())


def test_spans_that_nobody_uses_are_let_go(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    film.grow(12)

    async def work(fetched: list[int]) -> None:
        film.fetched.clear()
        media = film.media()
        for number in range(10):
            await media.span(number)
        await media.span(9)
        await media.span(0)
        assert film.fetched == fetched

    run(work([*range(10)]))
    monkeypatch.setattr(on_demand, "KEPT_BYTES", 1)
    run(work([*range(10), 0]))
    monkeypatch.undo()
    monkeypatch.setattr(on_demand, "KEPT_SPANS", 9)
    run(work([*range(10), 0]))


def test_what_is_not_in_the_index_yet_is_waited_for(film: Film) -> None:
    film.grow(1)

    async def work() -> None:
        media = film.media()
        waiting = asyncio.ensure_future(media.reaches(3))
        await asyncio.sleep(0)
        assert not waiting.done()
        film.grow(4)
        assert await waiting
        film.indexer.finish()
        assert not await media.reaches(100)
        await media.reaches_time(99_000_000)

    run(work())


def test_an_index_that_stops_growing_is_an_error(film: Film) -> None:
    with pytest.raises(NotReady, match="not read any further"):
        run(film.media().reaches(0))


def test_a_stream_that_ends_is_an_error(film: Film) -> None:
    film.grow(1)
    film.publisher.set_status(StreamStatus.SHUTDOWN)
    with pytest.raises(NotReady, match="has ended"):
        run(film.media().reaches(7))


def test_a_killed_input_is_followed_by_another(film: Film) -> None:
    film.grow(2)
    film.failures = [TransportError("gone")]

    async def work() -> None:
        media = film.media()
        waiting = asyncio.ensure_future(media.span(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        film.publisher.table.set_pids(input=1)
        assert (await waiting).number == 0
        assert film.fetched == [0, 0]

    run(work())


def test_a_killed_input_without_successor_is_an_error(film: Film) -> None:
    film.grow(2)
    film.failures = [TransportError("gone")] * 100
    with pytest.raises(NotReady, match="input"):
        run(film.media().span(0))


def test_a_successor_that_is_not_ready_yet_is_waited_for(film: Film) -> None:
    film.grow(2)
    film.publisher.set_status(StreamStatus.WAIT)

    async def work() -> None:
        waiting = asyncio.ensure_future(film.media().span(0))
        for _ in range(4):
            await asyncio.sleep(0)
        assert not film.fetched
        film.publisher.set_status(StreamStatus.READY)
        assert (await waiting).number == 0 and film.fetched == [0]

    run(work())


def test_a_successor_that_cannot_be_asked_yet_is_waited_for(film: Film) -> None:
    film.grow(2)
    listening: list[bool] = []

    async def work() -> None:
        media = OnDemandReader(film.reader, film.fetch, film.wait, lambda: bool(listening))
        waiting = asyncio.ensure_future(media.span(0))
        for _ in range(4):
            await asyncio.sleep(0)
        assert not film.fetched
        listening.append(True)
        assert (await waiting).number == 0 and film.fetched == [0]

    run(work())


def test_a_span_that_ends_every_input_is_an_error(film: Film) -> None:
    film.grow(2)
    film.failures = [TransportError("gone")] * 100

    async def wait(condition: Callable[[], bool], seconds: float) -> bool:
        film.publisher.table.set_pids(input=len(film.fetched) + 1)
        return condition()

    with pytest.raises(NotReady, match="is gone"):
        run(OnDemandReader(film.reader, film.fetch, wait).span(0))
    assert len(film.fetched) == MAX_INPUTS


def test_a_damaged_span_is_an_error_of_its_viewers_only(film: Film) -> None:
    film.grow(2)
    film.failures = [RemoteProtocolError("/film, byte 7: damaged", offset=7)]

    async def work() -> None:
        media = film.media()
        with pytest.raises(RemoteProtocolError, match="byte 7"):
            await media.span(0)
        assert (await media.span(0)).number == 0

    run(work())


def test_an_index_made_anew_is_followed(film: Film) -> None:
    film.grow(3)
    media = film.media()
    assert len(media) == 3
    old = film.index
    film.new_index()
    old.retire()
    assert len(media) == 0
    film.grow(1)
    assert len(media) == 1 and media.place(0).to_us == 2_000_000


def test_prepare_loads_what_is_there(film: Film) -> None:
    film.grow(2)

    async def work() -> None:
        media = film.media()
        media.prepare(1)
        media.prepare(1)
        media.prepare(55)
        assert (await media.span(1)).number == 1
        assert film.fetched == [1]

    run(work())


def test_tracks_as_text() -> None:
    tracks = [VIDEO_TRACK, AUDIO_TRACK.changed(language="deu")]
    assert unpack_tracks(pack_tracks(tracks)) == tuple(tracks)


def test_places_and_main_track() -> None:
    assert places([2, 0], 4) == [1, -1, 0, -1]
    text = TrackInfo(META, "subtitle")
    assert [main_track(tracks) for tracks in ([text, AUDIO_TRACK, VIDEO_TRACK], [text, AUDIO_TRACK], [text])] == [
        2,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("read", "waits"), [(0, [0.5, 1.5]), (1, [0.5]), (240, [0.5]), (250, [0.5, 1.5]), (900, [0.5, 1.5])]
)
def test_a_length_is_waited_for_as_long_as_it_may_come_in_time(film: Film, read: int, waits: list[float]) -> None:
    index = create_index(index_name(film.instance, "film"), (1, 1000, 3), 0)
    waited: list[float] = []

    async def wait(_condition: Callable[[], bool], seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 1 and read:
            index.add(0, 2_000_000, read, 1, 1, True, 0)
        return False

    media = OnDemandReader(film.reader, film.fetch, wait)
    assert run(media.layout("mp4", [0, 1], None, None)) is None
    assert waited == waits


class Layouts:
    """An input that lays files out: the header of each begins with what its outline says."""

    def __init__(self, film: Film) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.header = b"abcdefgh"
        self.failures: list[Exception] = []
        film.grow(2)
        film.indexer.finish()
        self.media = OnDemandReader(film.reader, self.fetch, film.wait)

    async def fetch(self, wanted: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        self.asked.append(wanted["layout"])
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        fd = os.memfd_create("layout")
        header = self.header if wanted["layout"].get("whole") else self.header[:3]
        os.write(fd, struct.pack("=3q", 8, 50, 99) + header)
        return fd, {"spans": 3, "header_bytes": 8}

    async def layout(self, kind: str = "mp4") -> Layout:
        found = await self.media.layout(kind, [0, 1], None, None)
        assert found is not None
        return found


def test_viewers_share_a_layout_and_its_header(film: Film) -> None:
    async def work() -> None:
        layouts = Layouts(film)
        begun = await asyncio.gather(*(layouts.layout() for _ in range(5)))
        assert len(layouts.asked) == 1 and bytes(begun[0].header) == b"abc" and begun[0].size == 99
        layouts.media.prepare_layout(begun[0])
        whole = await asyncio.gather(*(layouts.media.whole_layout(one) for one in begun))
        assert len(layouts.asked) == 2 and bytes(whole[0].header) == b"abcdefgh"
        assert all(
            one is whole[0] for one in [*whole, await layouts.layout(), await layouts.media.whole_layout(begun[0])]
        )
        assert len(layouts.asked) == 2
        assert (await layouts.layout("3gp")).description["kind"] == "3gp"

    run(work())


def test_a_header_that_goes_on_otherwise_is_refused_and_forgotten(film: Film) -> None:
    async def work() -> None:
        layouts = Layouts(film)
        begun = await layouts.layout()
        layouts.header = b"aXcdefgh"
        with pytest.raises(MistError, match="not what it was"):
            await layouts.media.whole_layout(begun)
        assert bytes((await layouts.layout()).header) == b"aXc"

    run(work())


def test_a_header_that_cannot_be_made_is_asked_for_again(film: Film) -> None:
    async def work() -> None:
        layouts = Layouts(film)
        begun = await layouts.layout()
        layouts.failures = [UnsupportedError("no length"), UnsupportedError("no length")]
        layouts.media.prepare_layout(begun)
        with pytest.raises(UnsupportedError):
            await layouts.media.whole_layout(begun)
        assert await layouts.media.layout("mp4", [0, 1], None, None) is None
        assert (await layouts.media.whole_layout(await layouts.layout())).whole

    run(work())
