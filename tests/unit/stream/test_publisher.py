"""Streams in shared memory: what a publisher writes is what readers find, within the bounds."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.core.doorbell import Doorbell, Ringer
from mist.core.packet import Packet
from mist.errors import LimitExceededError, NotFound, SharedMemoryFull
from mist.formats.tracks import TrackInfo
from mist.stream import former_properties
from mist.stream.names import SHARED_MEMORY, stream_prefix
from mist.stream.publisher import (
    Limits,
    StreamPublisher,
    create_account,
    create_stream,
    memory_used,
    remove_stream,
)
from mist.stream.reader import StreamReader, list_streams
from mist.stream.state import StreamStatus
from tests.support.shared_memory import (
    AUDIO_TRACK,
    FRAME_US,
    GOP_FRAMES,
    VIDEO_TRACK,
    make_publisher,
    shared_instance,
    video_packet,
    write_frames,
)


@pytest.fixture
def instance() -> Iterator[str]:
    with shared_instance() as name:
        yield name


def test_a_packet_comes_back_as_it_was_written(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    index = publisher.add_track(VIDEO_TRACK)
    packet = Packet(index, -5, 80_000, True, b"payload")
    publisher.write(packet)
    reader = StreamReader(instance, "live")
    assert reader.packets(index, 0, 10) == [packet]
    assert [state.info for state in reader.tracks()] == [VIDEO_TRACK]


def test_payload_sizes_from_nothing_to_the_bound(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    index = publisher.add_track(VIDEO_TRACK)
    sizes = [0, 1, 4095, 4096, 65_536, 8 << 20, (8 << 20) + 1, 32 << 20]
    for number, size in enumerate(sizes):
        publisher.write(Packet(index, number, 0, True, bytes([number]) * size))
    reader = StreamReader(instance, "live")
    found = [(len(packet.payload), set(packet.payload)) for packet in reader.packets(index, 0, len(sizes))]
    assert found == [(size, {number} if size else set()) for number, size in enumerate(sizes)]
    with pytest.raises(LimitExceededError, match="packet_bytes"):
        publisher.write(Packet(index, 99, 0, True, bytes((32 << 20) + 1)))


def test_the_live_window_is_kept_and_no_more(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path, Limits(window_us=20_000_000))
    video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
    write_frames(publisher, video, audio, range(25 * 120))
    reader = StreamReader(instance, "live")
    states = {state.index: state for state in reader.tracks()}
    for state in states.values():
        kept_us = state.last_us - state.first_us
        assert 20_000_000 <= kept_us <= 25_000_000
    assert states[audio].first_us <= states[video].first_us
    assert states[video].first_fragment == reader.keys(video)[0].fragment
    first = reader.packets(video, states[video].first_sequence, states[video].first_sequence + 1)[0]
    assert first.keyframe and first.dts_us == states[video].first_us
    pages = [path for path in Path("/dev/shm").iterdir() if path.name.startswith(f"mist.{instance}.live.{video}.")]
    assert len(pages) <= 12
    assert reader.packets(video, 0, 1) == []


def test_fragments_have_the_same_numbers_for_everybody(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path, Limits(segment_us=4_000_000))
    video = publisher.add_track(VIDEO_TRACK)
    for number in range(GOP_FRAMES * 6):
        publisher.write(video_packet(video, number))
    readers = [StreamReader(instance, "live") for _ in range(2)]
    numbers = [[key.fragment for key in reader.keys(video)] for reader in readers]
    assert numbers == [[0, 0, 1, 1, 2, 2]] * 2


def test_the_index_grows_while_it_is_read(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    video = publisher.add_track(VIDEO_TRACK)
    reader = StreamReader(instance, "live")
    for number in range(5000):
        publisher.write(Packet(video, number * 1000, 0, number == 0, number.to_bytes(4, "big")))
        if number % 997 == 0:
            assert reader.packets(video, number, number + 1)[0].payload == number.to_bytes(4, "big")
    assert reader.track(video).next_sequence == 5000
    assert reader.packets(video, 0, 1)[0].payload == bytes(4)


def test_times_never_go_back_and_presentation_times_stay(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    video = publisher.add_track(VIDEO_TRACK)
    publisher.write(Packet(video, 1000, 0, True, b"a"))
    publisher.write(Packet(video, 400, 100, False, b"b"))
    second = StreamReader(instance, "live").packets(video, 1, 2)[0]
    assert (second.dts_us, second.pts_us) == (1000, 500)


def test_a_dead_publishers_tracks_are_adopted(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
    write_frames(publisher, video, audio, range(60))
    successor = StreamPublisher(instance, "live", str(tmp_path))
    assert successor.tracks == {video: VIDEO_TRACK, audio: AUDIO_TRACK}
    assert successor.last_us() == 59 * FRAME_US
    write_frames(successor, video, audio, range(60, 120))
    reader = StreamReader(instance, "live")
    assert [p.payload[:4] for p in reader.packets(video, 0, 120)] == [n.to_bytes(4, "big") for n in range(120)]


def test_a_changed_track_is_seen_before_its_first_packet(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    video = publisher.add_track(VIDEO_TRACK)
    publisher.write(video_packet(video, 0))
    reader = StreamReader(instance, "live")
    before = reader.track_set_generation()
    changed = VIDEO_TRACK.changed(width=1920, init_data=bytes(5000))
    publisher.update_track(video, changed)
    assert reader.track_set_generation() > before
    assert reader.track(video).info == changed
    publisher.write(video_packet(video, 1))
    assert reader.track_reader(video).packet_times(1)[2] & 2  # NEW_INIT


def test_removed_tracks_leave_and_their_slots_are_not_reused(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
    reader = StreamReader(instance, "live")
    write_frames(publisher, video, audio, range(3))
    publisher.remove_track(video)
    assert [state.index for state in reader.tracks()] == [audio]
    assert publisher.add_track(VIDEO_TRACK) == 2


def test_too_many_tracks_are_refused(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    for _ in range(64):
        publisher.add_track(AUDIO_TRACK)
    with pytest.raises(LimitExceededError):
        publisher.add_track(AUDIO_TRACK)


def test_a_streams_bound_shortens_its_window(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path, Limits(stream_bytes=4 << 20))
    video = publisher.add_track(VIDEO_TRACK)
    for number in range(GOP_FRAMES * 20):
        publisher.write(video_packet(video, number, 20_000))
    assert publisher.table.bytes_used <= 4 << 20
    state = StreamReader(instance, "live").track(video)
    assert 2 * GOP_FRAMES * FRAME_US <= state.last_us - state.first_us < 50_000_000


def test_one_gop_over_the_bound_is_an_error(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path, Limits(stream_bytes=2 << 20))
    video = publisher.add_track(VIDEO_TRACK)
    with pytest.raises(SharedMemoryFull, match="per_stream_bytes"):
        for number in range(1, GOP_FRAMES):
            publisher.write(video_packet(video, number, 100_000))


def test_the_servers_bound_holds_for_all_streams_together(tmp_path: Path) -> None:
    with shared_instance(total_bytes=4 << 20) as instance:
        publishers = [make_publisher(instance, tmp_path, name=name) for name in ("one", "two")]
        tracks = [publisher.add_track(VIDEO_TRACK) for publisher in publishers]
        with pytest.raises(SharedMemoryFull, match="total_bytes"):
            for number in range(1, GOP_FRAMES):
                for publisher, track in zip(publishers, tracks, strict=True):
                    publisher.write(video_packet(track, number, 100_000))
        used, limit = memory_used(instance)
        assert used <= limit
        for name in ("one", "two"):
            remove_stream(instance, name)
        assert memory_used(instance)[0] == 0


def test_a_removed_stream_is_off_for_its_readers(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    publisher.set_status(StreamStatus.READY)
    reader = StreamReader(instance, "live")
    assert (reader.status(), list_streams(instance)) == (StreamStatus.READY, ["live"])
    remove_stream(instance, "live")
    assert (reader.status(), list_streams(instance)) == (StreamStatus.OFF, [])
    with pytest.raises(NotFound):
        StreamReader(instance, "live")


def test_names_with_any_character_are_found_again(instance: str, tmp_path: Path) -> None:
    names = ["a.0", "cam+küche/1 %41", "live+" + "x" * 90]
    for name in names:
        create_stream(instance, name, Limits())
    assert list_streams(instance) == sorted(names)


def test_everybody_has_a_subscriber_slot_of_their_own(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    slots = [publisher.table.subscribe(number) for number in range(130)]
    assert len(set(slots)) == 130
    publisher.table.unsubscribe(slots[7])
    assert publisher.table.subscribe(1) == slots[7]
    publisher.table.release_process(os.getpid())
    assert publisher.table.subscribers() == []


def test_a_slot_whose_process_is_gone_is_freed_without_waking_the_others(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path)
    table, ringer = publisher.table, Ringer(str(tmp_path))
    table.subscribe(1)
    bell = Doorbell(str(tmp_path))
    for _ in range(2):
        table.release_gone(ringer)
    assert table.subscribers() == [os.getpid()]
    assert bell.drain() == set()
    bell.close()
    table.release_gone(ringer)
    assert table.subscribers() == []


def test_everybody_is_woken_after_a_writer_that_may_have_forgotten_some(instance: str, tmp_path: Path) -> None:
    """It took a sleeper off the list of those to be woken, and was killed before it woke it."""
    publisher = make_publisher(instance, tmp_path)
    publisher.table.subscribe(1)
    bell = Doorbell(str(tmp_path))
    publisher.table.ring(Ringer(str(tmp_path)))
    assert bell.drain() == set()
    publisher.table.ring_everybody(Ringer(str(tmp_path)))
    assert bell.drain() == {1}
    bell.close()


def test_a_slot_that_is_just_being_claimed_is_not_taken_from_its_process(instance: str, tmp_path: Path) -> None:
    """Its process may not have written yet whose it is when a writer wakes everybody."""
    publisher = make_publisher(instance, tmp_path)
    cookie = 0xC0FFEE
    publisher.table.subscribe(cookie)
    bell, ringer = Doorbell(str(tmp_path)), Ringer(str(tmp_path))
    file = next(path for path in SHARED_MEMORY.iterdir() if path.name == stream_prefix(instance, "live"))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as table:
        holder = struct.pack("<II", os.getpid(), cookie)
        at = table.find(holder)
        table[at : at + 8] = bytes(8)
        publisher.table.ring_everybody(ringer)
        table[at : at + 8] = holder
    publisher.table.ring_everybody(ringer)
    assert bell.drain() == {cookie}
    bell.close()


def _read_all(instance: str, count: int, results: multiprocessing.Queue[object]) -> None:
    """Read every packet as soon as it is there, and check that no payload is torn."""
    reader = StreamReader(instance, "live").track_reader(0)
    seen = errors = 0
    number = 0
    while number < count:
        packet = reader.packet(number)
        if packet is None:
            if number < reader.first_sequence:
                number = reader.first_sequence
            continue
        seen += 1
        errors += packet.payload != number.to_bytes(4, "big") * 250
        number += 1
    results.put((seen, errors))


def test_readers_in_other_processes_never_see_torn_packets(instance: str, tmp_path: Path) -> None:
    publisher = make_publisher(instance, tmp_path, Limits(window_us=2_000_000))
    video = publisher.add_track(VIDEO_TRACK)
    count = 20_000
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[object] = context.Queue()
    readers = [context.Process(target=_read_all, args=(instance, count, results)) for _ in range(2)]
    for process in readers:
        process.start()
    for number in range(count):
        publisher.write(Packet(video, number * 1000, 0, number % 50 == 0, number.to_bytes(4, "big") * 250))
    for _ in readers:
        seen, errors = results.get(timeout=20)
        assert errors == 0
        assert seen > 0
    for process in readers:
        process.join()


def test_an_account_is_made_anew(tmp_path: Path) -> None:
    with shared_instance(total_bytes=1 << 20) as instance:
        create_account(instance, 5 << 20)
        assert memory_used(instance) == (0, 5 << 20)


def test_former_properties_are_kept_as_long_as_packets_have_them(tmp_path: Path) -> None:
    """Readers find what a track was before its init data changed, also behind a killed writer; the oldest are forgotten."""

    def sound(number: int) -> TrackInfo:
        return AUDIO_TRACK.changed(init_data=bytes([number]), sample_rate_hz=8000 + number)

    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        audio = publisher.add_track(sound(0))
        publisher.update_track(audio, sound(1))  # nothing was made with the first
        for number in range(1, 4):
            publisher.update_track(audio, sound(number))
            publisher.write(Packet(audio, number * 1_000_000, 0, True, b"sound"))
        publisher.update_track(audio, sound(4))
        reader = StreamReader(instance, "live")
        assert [key.init_changes for key in reader.keys(audio)] == [0, 1, 2]
        assert [reader.info_at(audio, number) for number in range(3)] == [sound(1), sound(2), sound(3)]
        publisher.close()
        publisher = StreamPublisher(instance, "live", str(tmp_path), resumed=True)
        assert [StreamReader(instance, "live").info_at(audio, number) for number in range(3)] == [
            sound(1), sound(2), sound(3),
        ]  # fmt: skip
        for number in range(4, 60):
            publisher.update_track(audio, sound(number))
            publisher.write(Packet(audio, number * 1_000_000, 0, True, b"sound"))
        files = [
            path for path in Path("/dev/shm").iterdir() if f"mist.{instance}." in path.name and ".was" in path.name
        ]
        assert len(files) == former_properties.MAX_KEPT
        late = StreamReader(instance, "live")
        assert [late.info_at(audio, number) for number in (41, 42, 43, 57, 58)] == [
            None, sound(43), sound(44), sound(58), sound(59),
        ]  # fmt: skip
        publisher.remove_track(audio)
        assert not any(path.exists() for path in files)
        publisher.close()
