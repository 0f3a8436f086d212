"""Recording a stream in memory: where it begins and ends, what each file holds, and what happens when the stream changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from mist.core.buffer import ByteBuffer
from mist.core.demuxer import PacketList
from mist.core.flv import FlvMuxer
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.errors import NoSuitableTrack, NotReady
from mist.formats.containers import Container
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.stream.recorder import AHEAD_US, Recorder, Span
from mist.stream.recording import parse_target
from mist.stream.state import StreamStatus
from tests.support.fake_stream import FakeStream

TRACKS = [TrackInfo(VIDEO, "H264", b"one"), TrackInfo(AUDIO, "AAC", b"aac")]
FRAME_US = 40_000
GOP = 25


@dataclass
class FakeFiles:
    """Keeps what is opened and closed."""

    begins: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    def choose(self, begin_us: int) -> None:
        assert len(self.begins) == len(self.spans)
        self.begins.append(begin_us)

    def open(self) -> None:
        """Nothing is to be made."""

    def vanished(self) -> bool:
        return False

    def write(self, output: ByteBuffer) -> None:
        self.data += output.take()

    def close(self, patches: Sequence[tuple[int, bytes]], span: Span) -> None:
        self.spans.append(span)


class Bench:
    """A stream of 25 frames a second with an audio packet behind each frame, and a recorder of it."""

    def __init__(
        self, query: str = "", *, name: str = "any", make: Callable[[list[TrackInfo]], Muxer] | None = None
    ) -> None:
        self.stream = FakeStream("live", TRACKS)
        self.reader = self.stream.reader()
        self.files = FakeFiles()
        self.sinks: list[PacketList] = []
        self._taken: list[list[Packet]] = []
        self.told: list[str] = []
        self.clock_us = 0
        self.number = 0
        self._query = query
        self._name = name
        self._make = make or self.keep
        self._recorder: Recorder | None = None

    def keep(self, _tracks: list[TrackInfo]) -> PacketList:
        self.sinks.append(PacketList())
        self._taken.append([])
        return self.sinks[-1]

    @property
    def recorder(self) -> Recorder:
        """The recorder, which begins when it is first used."""
        if self._recorder is None:
            container = Container(self._name, (".x",), "", make_muxer=self._make, codecs=((("+H264",), ("+AAC",)),))
            self._recorder = Recorder(
                self.reader,
                container,
                parse_target(f"/m/$segmentCounter.x?{self._query}"),
                self.files,
                clock_us=lambda: self.clock_us,
                unix_us=lambda: self.stream.wall_clock_offset_us + self.number * FRAME_US,
                tell=self.told.append,
            )
        return self._recorder

    def frames(self, count: int, *, audio: bool = True) -> None:
        for _ in range(count):
            mark = f"{self.number}".encode()
            self.stream.write(Packet(0, self.number * FRAME_US, 0, self.number % GOP == 0, b"v" + mark))
            if audio:
                self.stream.write(Packet(1, self.number * FRAME_US + 5_000, 0, True, b"a" + mark))
            self.number += 1

    def run(self, count: int, every: int = 7) -> None:
        """Let frames come, and look at every seventh."""
        for begin in range(0, count, every):
            self.frames(min(every, count - begin))
            self.recorder.step()

    def packets(self) -> list[list[Packet]]:
        """Return the packets of each file."""
        for taken, sink in zip(self._taken, self.sinks, strict=True):
            taken += sink.take()
        return self._taken

    def held(self, kind: bytes) -> list[list[int]]:
        """Return the numbers of the packets of a kind, by file."""
        return [[int(p.payload[1:]) for p in file if p.payload[:1] == kind] for file in self.packets()]

    def joined(self, kind: bytes) -> list[int]:
        """Return the numbers of the packets of a kind in all files."""
        return [number for file in self.held(kind) for number in file]


def test_from_the_newest_keyframe_to_the_end() -> None:
    bench = Bench()
    bench.frames(60)
    bench.run(100)
    bench.stream.set_status(StreamStatus.SHUTDOWN)
    assert not bench.recorder.step()
    bench.recorder.finish()
    assert bench.held(b"v") == [list(range(50, 160))]
    assert bench.held(b"a") == [list(range(50, 160))]
    assert bench.files.spans[0].begin_us == 50 * FRAME_US
    assert bench.files.spans[0].end_us == 160 * FRAME_US
    assert bench.files.spans[0].date_us == bench.stream.wall_clock_offset_us + 50 * FRAME_US
    assert bench.packets()[0][0].dts_us == 0


def test_a_transport_stream_keeps_its_times() -> None:
    bench = Bench(name="ts")
    bench.frames(60)
    bench.run(20)
    bench.recorder.finish()
    assert bench.packets()[0][0].dts_us == 50 * FRAME_US


@pytest.mark.parametrize("every", [1, 7, 60])
def test_files_lose_and_repeat_nothing(every: int) -> None:
    bench = Bench("split=1.5")
    bench.frames(30)
    bench.recorder.step()
    bench.run(170, every)
    bench.recorder.finish()
    assert [file[0] for file in bench.held(b"v")] == [25, 75, 125, 175]
    for kind in (b"v", b"a"):
        assert bench.joined(kind) == list(range(25, 200))
        assert bench.held(kind)[0] == list(range(25, 75))
    assert [span.begin_us for span in bench.files.spans] == bench.files.begins
    assert [span.end_us for span in bench.files.spans][:-1] == bench.files.begins[1:]
    assert not any(span.discontinuity for span in bench.files.spans)


def test_split_grows_where_keyframes_are_far_apart() -> None:
    bench = Bench("split=0.2&adjustSplit")
    bench.frames(30)
    bench.run(100)
    assert bench.recorder._split_us == GOP * FRAME_US // 2


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("start=1500", 25, None),
        ("start=1&stop=1200", 0, 29),
        ("duration=2", 75, 124),
        ("recstart=2000&duration=1", 50, 74),
        ("start=5000&stop=6000", 125, 149),
        ("startunix=-2", 25, None),
        ("recstopunix=1", 75, 104),
        ("waitkey", 100, None),
    ],
)
def test_where_it_begins_and_ends(query: str, first: int, last: int | None) -> None:
    bench = Bench(query)
    bench.frames(80)
    bench.recorder.step()
    bench.run(120)
    assert bench.recorder.finished == (last is not None)
    bench.recorder.finish()
    assert bench.held(b"v") == [list(range(first, 200 if last is None else last + 1))]
    assert len(bench.files.spans) == 1


def test_a_silent_track_is_not_waited_for_for_ever() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(20)
    for _ in range(200):
        bench.frames(1, audio=False)
    bench.recorder.step()
    assert len(bench.held(b"v")[0]) > 200
    bench.frames(1)
    bench.recorder.finish()
    assert bench.held(b"v") == [list(range(25, 251))]
    assert bench.held(b"a") == [[*range(25, 50), 250]]


def test_a_silent_stream_is_written_to_its_end() -> None:
    bench = Bench()
    bench.frames(40)
    bench.recorder.step()
    assert bench.held(b"v")[0][-1] == 38 or bench.held(b"v")[0][-1] == 39
    bench.recorder.step()
    bench.clock_us += 1_000_000
    bench.recorder.step()
    assert bench.held(b"v")[0][-1] == bench.held(b"a")[0][-1] == 39


def test_other_init_data_begin_a_new_file() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(45)
    bench.stream.update_track(0, TRACKS[0].changed(init_data=b"two"))
    bench.run(45)
    bench.recorder.finish()
    assert [file[0] for file in bench.held(b"v")] == [25, 75]
    assert bench.joined(b"v") == list(range(25, 120))
    assert bench.joined(b"a") == list(range(25, 120))
    assert bench.files.spans[1].discontinuity


def test_other_init_data_in_the_same_file() -> None:
    bench = Bench(make=FlvMuxer)
    bench.frames(30)
    bench.run(45)
    bench.stream.update_track(0, TRACKS[0].changed(init_data=b"two"))
    bench.run(45)
    bench.recorder.finish()
    data = bytes(bench.files.data)
    assert len(bench.files.spans) == 1
    marks = [data.find(b"v%d" % number) for number in range(25, 120)]
    assert all(mark > 0 for mark in marks)
    assert marks == sorted(marks)
    assert data.find(b"v74") < data.find(b"two") < data.find(b"v75")


def test_a_break_begins_a_new_segment() -> None:
    bench = Bench("m3u8=list.m3u8")
    bench.frames(30)
    bench.run(45)
    bench.stream.mark_discontinuity()
    bench.run(45)
    bench.recorder.finish()
    assert [file[0] for file in bench.held(b"v")] == [25, 75]
    assert [span.discontinuity for span in bench.files.spans] == [False, True]


def test_a_track_that_comes_later_is_in_the_next_file() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(10)
    index = bench.stream.add_track(TRACKS[1])
    for number in range(40, 80):
        bench.frames(1)
        bench.stream.write(Packet(index, number * FRAME_US, 0, True, b"n%d" % number))
        bench.recorder.step()
    bench.recorder.finish()
    assert [file[0] for file in bench.held(b"v")] == [25, 50]
    assert bench.held(b"n") == [[], list(range(50, 80))]


def test_a_track_that_goes() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(10)
    bench.stream.remove_track(1)
    for _ in range(40):
        bench.frames(1, audio=False)
        bench.recorder.step()
    bench.recorder.finish()
    assert bench.joined(b"v") == list(range(25, 80))
    assert [file[0] for file in bench.held(b"v")] == [25, 50]


def test_all_tracks_are_replaced() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(10)
    bench.stream.remove_track(0)
    bench.stream.remove_track(1)
    bench.recorder.step()
    index = bench.stream.add_track(TRACKS[0])
    for number in range(20):
        bench.stream.write(Packet(index, (60 + number) * FRAME_US, 0, number == 0, b"n%d" % number))
        bench.recorder.step()
    bench.recorder.finish()
    assert bench.held(b"n")[-1] == list(range(20))


def test_what_left_the_buffer_is_told() -> None:
    bench = Bench()
    bench.frames(30)
    bench.run(5)
    bench.frames(100)
    bench.stream.trim(0, 4)
    bench.recorder.step()
    assert "packets of track 0" in bench.told[0]


def test_nothing_to_record() -> None:
    bench = Bench()
    assert bench.recorder.step()
    bench.clock_us = 6_000_000
    with pytest.raises(NotReady):
        bench.recorder.step()
    bench.recorder.finish()
    assert not bench.files.begins

    bench = Bench("video=none&audio=none")
    bench.frames(50)
    assert bench.recorder.step()
    bench.clock_us = 6_000_000
    with pytest.raises(NoSuitableTrack):
        bench.recorder.step()

    bench = Bench("start=99000")
    bench.frames(50)
    assert bench.recorder.step()
    bench.stream.set_status(StreamStatus.OFF)
    with pytest.raises(NotReady):
        bench.recorder.step()


# -- a pace of its own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "rate"), [("realtime", 1), ("rate=2", 2), ("rate=0.5&realtime", 0.5)])
def test_a_recording_keeps_its_pace(query: str, rate: float) -> None:
    """What is there already is recorded as fast as it was asked for, and not at once; what is not due at the end is not in it."""
    bench = Bench(f"start=40&{query}")
    bench.frames(10 * GOP)
    for second in range(4):
        bench.clock_us = second * 1_000_000
        bench.recorder.step()
        assert bench.joined(b"v")[-1] == -(-round(second * rate * 1_000_000 + AHEAD_US) // FRAME_US) - 1
    bench.recorder.finish()
    held = bench.joined(b"v")
    assert held == list(range(len(held)))
    assert bench.files.spans[0].end_us <= 3 * rate * 1_000_000 + AHEAD_US + FRAME_US


def test_a_recording_at_its_own_pace_takes_the_rest_when_the_stream_ends() -> None:
    bench = Bench("start=40&realtime")
    bench.frames(10 * GOP)
    bench.recorder.step()
    bench.stream.set_status(StreamStatus.OFF)
    assert not bench.recorder.step()
    assert bench.joined(b"v") == list(range(10 * GOP))


def test_a_recording_without_a_rate_is_as_fast_as_it_can_be() -> None:
    bench = Bench("start=40&realtime&rate=0")
    bench.frames(10 * GOP)
    bench.recorder.step()
    assert bench.joined(b"v")[-1] >= 10 * GOP - 2


def test_a_delayed_recording_begins_when_the_stream_is_that_long_and_stays_behind() -> None:
    bench = Bench("pushdelay=3")
    bench.frames(3 * GOP)
    bench.recorder.step()
    assert not bench.recorder.recording
    for _ in range(10):
        bench.frames(GOP)
        bench.clock_us += 1_000_000
        bench.recorder.step()
    held = bench.joined(b"v")
    assert held == list(range(held[0], held[-1] + 1))
    assert held[0] % GOP == 0
    assert 3 * GOP - AHEAD_US // FRAME_US - 1 <= bench.number - held[-1] <= 4 * GOP
