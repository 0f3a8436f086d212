"""Delivery: what viewers get, when they join, lag, leave, and when the stream ends or changes."""

from __future__ import annotations

import itertools
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mist.core.arena import ARENA_BYTES
from mist.core.demuxer import PacketList
from mist.core.dtsc import DtscMuxer
from mist.core.fanout import MAX_LAG_US, Fanout
from mist.core.flv import FlvMuxer, FlvReader
from mist.core.packet import Packet
from mist.core.subscription import OUT_OF_BAND_LIMIT, Subscription
from mist.errors import LimitExceededError
from mist.formats.dtsc import DtscDemuxer
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from mist.stream.publisher import StreamPublisher, remove_stream
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus
from tests.support.shared_memory import FRAME_US, GOP_FRAMES, make_publisher, shared_instance, write_frames

AVCC = bytes.fromhex("0164001fffe1001b6764001facd9405005bb016a02020280000003008000001e078c18cb01000568ebecb22c")
VIDEO_TRACK = TrackInfo(VIDEO, H264, AVCC, track_id=1, width=1280, height=720)
AUDIO_TRACK = TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=2, sample_rate_hz=48000, channels=2)
SMALL_BUFFER_BYTES = 4096


class Stage:
    """A publisher, a fan-out and its viewers in one process."""

    def __init__(self, instance: str, folder: Path) -> None:
        self.instance = instance
        self.publisher: StreamPublisher = make_publisher(instance, folder)
        self.video = self.publisher.add_track(VIDEO_TRACK)
        self.audio = self.publisher.add_track(AUDIO_TRACK)
        self.publisher.set_status(StreamStatus.READY)
        self.fanout = Fanout(str(folder), 0)
        self.reader = StreamReader(instance, "live")
        self.closed: list[str] = []
        self.sockets: list[socket.socket] = []

    def write(self, numbers: range, size: int = 1000) -> None:
        write_frames(self.publisher, self.video, self.audio, numbers, size)

    def join(self, head: bytes = b"", small: bool = False, **options: Any) -> tuple[socket.socket, Subscription]:
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
        self.sockets.append(theirs)
        options.setdefault("on_close", self.closed.append)
        indexes = options.pop("indexes", [self.video, self.audio])
        viewer = self.fanout.join(
            self.reader, indexes, "flv", lambda tracks: FlvMuxer(tracks), ours.detach(), head, **options
        )
        return theirs, viewer

    def run(self) -> None:
        while select.select([self.fanout.fileno()], [], [], 0)[0]:
            self.fanout.run()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with shared_instance() as instance:
        made = Stage(instance, tmp_path)
        yield made
        made.fanout.close()
        for sock in made.sockets:
            sock.close()
        assert list((tmp_path).iterdir()) == []


def drain(sock: socket.socket, keep_going: Callable[[], None] = lambda: None) -> bytes:
    """Read until nothing comes any more."""
    received = bytearray()
    while True:
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            keep_going()
            try:
                data = sock.recv(1 << 20)
            except BlockingIOError:
                return bytes(received)
        if not data:
            return bytes(received)
        received += data


def tag_times(data: bytes) -> list[tuple[int, int]]:
    """Return (type, ms) of the FLV tags in data, which must be whole."""
    tags = []
    position = 13
    assert data[:3] == b"FLV"
    while position < len(data):
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time_ms = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        tags.append((data[position], time_ms))
        position += 11 + size + 4
    assert position == len(data)
    return tags


def media_times(data: bytes, kind: int = 9) -> list[int]:
    """Return the times of one type's tags without the first, its sequence header."""
    return [time for tag, time in tag_times(data) if tag == kind][1:]


def test_a_viewer_begins_at_the_newest_keyframe(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES * 2 + 7))
    sock, _ = stage.join()
    stage.run()
    first = GOP_FRAMES * 2 * FRAME_US // 1000
    assert media_times(drain(sock)) == [first + 40 * n for n in range(7)]


def test_all_viewers_of_a_group_get_the_same_bytes_one_frame_later(stage: Stage) -> None:
    stage.write(range(10))
    first, _ = stage.join(b"one")
    second, _ = stage.join(b"two")
    stage.run()
    assert drain(first)[3:] == drain(second)[3:]
    stage.write(range(10, 11))
    stage.run()
    media = drain(first)
    assert media == drain(second)
    assert media


def test_who_joins_later_begins_at_a_keyframe_of_the_running_group(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES))
    early, _ = stage.join()
    stage.run()
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 5))
    late, _ = stage.join()
    stage.run()
    assert media_times(drain(late)) == [2000 + 40 * n for n in range(5)]
    assert len(media_times(drain(early))) == GOP_FRAMES + 5


def test_without_a_keyframe_a_viewer_waits_for_one(stage: Stage) -> None:
    sock, _ = stage.join(b"")
    stage.write(range(1, 4))
    stage.run()
    assert drain(sock) == b""
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 1))
    stage.run()
    assert media_times(drain(sock)) == [2000]


def test_a_slow_viewer_skips_to_a_keyframe_and_stays_in_step(stage: Stage) -> None:
    stage.write(range(1))
    slow, _viewer = stage.join(small=True)
    quick, _ = stage.join()
    quick_bytes = 0
    frames = MAX_LAG_US // FRAME_US + GOP_FRAMES * 3
    for number in range(1, frames):
        stage.write(range(number, number + 1))
        stage.run()
        quick_bytes += len(drain(quick))
    received = drain(slow, stage.run)
    times = media_times(received)
    gaps = [b - a for a, b in itertools.pairwise(times) if b - a != 40]
    assert len(gaps) == 1
    assert times[-1] == (frames - 1) * 40
    landed = next(b for a, b in itertools.pairwise(times) if b - a != 40)
    assert landed % (GOP_FRAMES * 40) == 0
    assert len(received) < quick_bytes


def test_memory_of_the_arena_is_given_back(stage: Stage) -> None:
    stage.write(range(1))
    sock, _ = stage.join()
    for number in range(1, ARENA_BYTES // 50_000 * 2):
        stage.write(range(number, number + 1), 50_000)
        stage.run()
        drain(sock)
    arena = 0
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for place, line in enumerate(lines):
        if "mist-arena" in line:
            arena = max(arena, next(int(rest.split()[1]) for rest in lines[place:] if rest.startswith("Rss")))
    assert 0 < arena < 8 << 10  # kB, of which a GOP is 2.5 MB


def test_out_of_band_bytes_go_between_packets(stage: Stage) -> None:
    stage.write(range(1))
    sock, viewer = stage.join(small=True)
    stage.run()
    for number in range(1, 20):
        stage.write(range(number, number + 1), 20_000)
        stage.run()
        viewer.send(b"<%d>" % number)
    received = drain(sock, stage.run)
    for number in range(1, 20):
        mark = b"<%d>" % number
        assert received.count(mark) == 1
        received = received.replace(mark, b"")
    assert len(media_times(received)) == 20


def test_out_of_band_bytes_are_bounded(stage: Stage) -> None:
    stage.write(range(1), 1 << 20)
    _sock, viewer = stage.join(small=True)
    stage.run()
    with pytest.raises(LimitExceededError):
        for _ in range(OUT_OF_BAND_LIMIT + 1):
            viewer.send(b"x")


def test_the_end_of_the_stream_ends_viewers_after_the_last_byte(stage: Stage) -> None:
    stage.write(range(30), 10_000)
    sock, _ = stage.join(small=True)
    stage.run()
    stage.publisher.set_status(StreamStatus.OFF)
    stage.run()
    assert stage.closed == []
    assert len(media_times(drain(sock, stage.run))) == 30
    stage.run()
    assert stage.closed == ["CLEAN_EOF"]


def test_a_removed_stream_ends_its_viewers(stage: Stage, tmp_path: Path) -> None:
    from mist.core.doorbell import Ringer

    stage.write(range(3))
    sock, _ = stage.join()
    stage.run()
    remove_stream(stage.instance, "live", Ringer(str(tmp_path)))
    stage.run()
    assert stage.closed == ["CLEAN_EOF"]
    assert len(media_times(drain(sock))) == 3
    assert len(stage.fanout) == 0


def test_a_viewer_that_leaves_is_closed_once(stage: Stage) -> None:
    stage.write(range(1))
    sock, _ = stage.join()
    stage.run()
    sock.close()
    stage.run()
    assert stage.closed == ["CLEAN_REMOTE_CLOSE"]
    assert stage.publisher.table.subscribers() == []


def test_leave_gives_the_socket_back(stage: Stage) -> None:
    stage.write(range(1))
    sock, viewer = stage.join()
    stage.run()
    drain(sock)
    ours = socket.socket(fileno=viewer.leave())
    stage.write(range(1, 2))
    stage.run()
    ours.send(b"mine")
    assert drain(sock) == b"mine"
    ours.close()
    assert stage.closed == []


def test_a_new_track_reaches_viewers_who_reselect(stage: Stage) -> None:
    stage.publisher.remove_track(stage.video)
    stage.publisher.write(Packet(stage.audio, 0, 0, True, b"a" * 10))
    sock, _ = stage.join(indexes=[stage.audio], reselect=lambda states: [state.index for state in states])
    stage.run()
    stage.video = stage.publisher.add_track(VIDEO_TRACK)
    stage.write(range(1, 4))
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 2))
    stage.run()
    received = drain(sock)
    assert len([1 for kind, _ in tag_times(received) if kind == 8]) >= 4
    assert [kind for kind, _ in tag_times(received)].count(9) >= 3


def test_a_track_that_came_between_the_choice_and_the_joining_is_taken_up(stage: Stage) -> None:
    """Whoever chose the tracks did not see it, and nothing more is announced of it."""
    stage.write(range(3))
    sock, _ = stage.join(indexes=[stage.audio], reselect=lambda states: [state.index for state in states])
    stage.write(range(30, 32))
    stage.run()
    assert {9, 8} == {kind for kind, _ in tag_times(drain(sock))} - {18}


def test_a_track_in_the_place_of_another_begins_after_its_last_packet(stage: Stage) -> None:
    sock, _ = stage.join(reselect=lambda states: [state.index for state in states])
    stage.write(range(2))
    stage.run()
    drain(sock)
    stage.write(range(2, 5))
    stage.publisher.remove_track(stage.video)
    stage.video = stage.publisher.add_track(VIDEO_TRACK)
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 3))
    stage.run()
    body = b"FLV" + bytes(10) + drain(sock)
    times = [time_ms for kind, time_ms in tag_times(body) if kind == 9]
    assert times == [one * FRAME_US // 1000 for one in (2, 3, 4, *range(GOP_FRAMES, GOP_FRAMES + 3))]


def test_who_is_behind_when_a_track_is_removed_loses_no_more_than_that(stage: Stage) -> None:
    """What it had not opened yet is gone; the viewer stays, and has what comes after it."""
    sock, _ = stage.join(reselect=lambda states: [state.index for state in states])
    stage.write(range(2))
    stage.run()
    drain(sock)
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 1), size=9 << 20)
    stage.publisher.remove_track(stage.video)
    stage.video = stage.publisher.add_track(VIDEO_TRACK)
    stage.write(range(2 * GOP_FRAMES, 2 * GOP_FRAMES + 3))
    stage.run()
    times = [time_ms for kind, time_ms in tag_times(b"FLV" + bytes(10) + drain(sock)) if kind == 9]
    assert times == [one * FRAME_US // 1000 for one in range(2 * GOP_FRAMES, 2 * GOP_FRAMES + 3)]
    assert stage.closed == []


def test_changed_init_data_is_announced_before_its_first_packet(stage: Stage) -> None:
    stage.write(range(2))
    sock, _ = stage.join()
    stage.run()
    drain(sock)
    stage.publisher.update_track(stage.video, VIDEO_TRACK.changed(init_data=AVCC[:-1] + b"\x2d"))
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 1))
    stage.run()
    assert AVCC[:-1] + b"\x2d" in drain(sock)


def test_a_start_in_the_window_is_a_group_of_its_own(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES * 5))
    sock, _ = stage.join(start_us=2_100_000, rate=0.0)
    times = media_times(drain(sock, stage.run))
    assert times == [2000 + 40 * n for n in range(GOP_FRAMES * 4)]


def test_stop_ends_the_connection(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES * 5))
    sock, _ = stage.join(start_us=2_000_000, stop_us=4_000_000, rate=0.0)
    times = media_times(drain(sock, stage.run))
    assert times == [2000 + 40 * n for n in range(GOP_FRAMES)]
    stage.run()
    assert stage.closed == ["CLEAN_EOF"]


def test_pace_holds_back_what_is_too_early(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES * 5))
    sock, _ = stage.join(start_us=0, rate=1.0, ahead_us=1_000_000)
    stage.run()
    assert 20 <= len(media_times(drain(sock))) <= 35


def test_what_a_group_sends_is_valid_flv(stage: Stage) -> None:
    stage.write(range(GOP_FRAMES))
    sock, _ = stage.join()
    stage.run()
    reader = FlvReader()
    assert reader.feed(drain(sock))


class ByTime:
    """A stage whose viewers get DTSC, so that the order of packets can be seen."""

    def __init__(self, stage: Stage, by_time: bool) -> None:
        self.stage = stage
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        stage.sockets.append(theirs)
        indexes = [stage.video, stage.audio]
        stage.fanout.join(
            stage.reader,
            indexes,
            f"dtsc{by_time}",
            DtscMuxer,
            ours.detach(),
            b"",
            by_time=by_time,
            on_close=stage.closed.append,
        )
        self.socket = theirs
        self.demuxer, self.packets = DtscDemuxer(), PacketList()
        self.demuxer.attach(self.packets)

    def times(self) -> list[int]:
        """Return the times, ms, of the packets that came."""
        self.stage.run()
        self.demuxer.feed(drain(self.socket))
        return [packet.dts_us // 1000 for packet in self.packets.take()]

    def write(self, track: int, *times_ms: int) -> None:
        for time_ms in times_ms:
            self.stage.publisher.write(Packet(track, time_ms * 1000, 0, time_ms == 0, b"x"))


def test_tracks_are_merged_by_time_for_those_who_ask(stage: Stage) -> None:
    viewer = ByTime(stage, True)
    viewer.write(stage.video, 0, 40, 80)
    viewer.write(stage.audio, 0, 20, 50, 90)
    assert viewer.times() == [0, 0, 20, 40, 50, 80]  # the picture after 80 may be before the sound at 90
    viewer.write(stage.video, 85, 120)
    assert viewer.times() == [85, 90]
    viewer.write(stage.audio, 2_300)
    assert viewer.times() == [120]
    viewer.write(stage.audio, *range(2_301, 4_400, 100))
    assert viewer.times()[0] == 2_300, "a silent track is waited for only so long"
    stage.publisher.set_status(StreamStatus.OFF)
    assert viewer.times()[-1] == 4_301
    assert stage.closed == ["CLEAN_EOF"]


def test_tracks_are_merged_by_arrival_for_the_others(stage: Stage) -> None:
    viewer = ByTime(stage, False)
    viewer.write(stage.video, 0, 40, 80)
    viewer.write(stage.audio, 0, 20)
    assert viewer.times() == [0, 40, 80, 0, 20]


@pytest.mark.parametrize("small", [False, True])
def test_a_viewer_that_finishes_gets_what_there_is_to_its_last_byte(stage: Stage, small: bool) -> None:
    stage.write(range(GOP_FRAMES))
    one, viewer = stage.join(small=small)
    other, _ = stage.join()
    stage.write(range(GOP_FRAMES, GOP_FRAMES + 5), 5000)
    stage.run()
    viewer.finish("CLEAN_CONTROLLER_REQ")
    viewer.finish("again")
    stage.write(range(GOP_FRAMES + 5, GOP_FRAMES + 8))
    stage.run()
    times = tag_times(drain(one, stage.run))
    everything = tag_times(drain(other, stage.run))
    assert stage.closed == ["CLEAN_CONTROLLER_REQ"]
    assert times == everything[: len(times)]
    missing = [time_ms for kind, time_ms in everything[len(times) :] if kind == 9]
    assert missing == [number * FRAME_US // 1000 for number in range(GOP_FRAMES + 5, GOP_FRAMES + 8)]


def test_a_viewer_that_finishes_before_it_began_is_closed(stage: Stage) -> None:
    sock, viewer = stage.join(head=b"hello")
    viewer.finish()
    stage.run()
    assert drain(sock) == b"hello"
    assert stage.closed == ["CLEAN_INTENDED_STOP"]


def test_who_is_alone_shares_nothing_and_nothing_is_kept(stage: Stage) -> None:
    """One that is slow goes on at a later keyframe, as all others do."""
    arenas: list[int] = []
    stage.fanout.arena_made = lambda number, fd: arenas.append(fd)
    stage.write(range(1))
    slow, _ = stage.join(small=True, alone=True)
    quick, _ = stage.join(alone=True)
    shared, _ = stage.join()
    assert len(arenas) == 3
    frames = MAX_LAG_US // FRAME_US + GOP_FRAMES * 3
    received = {quick: b"", shared: b""}
    for number in range(1, frames):
        stage.write(range(number, number + 1), 5000)
        stage.run()
        for sock in received:
            received[sock] += drain(sock)
    assert received[quick] == received[shared]
    _, kept_alone, kept_shared = (os.fstat(fd).st_blocks for fd in arenas)
    assert kept_alone < kept_shared
    times = media_times(drain(slow, stage.run))
    gaps = [(before, after) for before, after in itertools.pairwise(times) if after - before != 40]
    assert len(gaps) == 1
    assert gaps[0][1] % (GOP_FRAMES * 40) == 0
    assert times[-1] == (frames - 1) * 40
