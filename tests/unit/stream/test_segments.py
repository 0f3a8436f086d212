"""Which fragments are whole, what a live playlist lists of them, and the cache of segments."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mist.core.packet import Packet
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.stream.publisher import StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.segments import (
    STALLED_US,
    Fragment,
    SegmentCache,
    init_runs,
    list_fragments,
    listed,
    segment_ranges,
    split_ranges,
    target_duration_s,
)
from tests.support.fake_stream import FakeReader, FakeStream
from tests.support.shared_memory import AUDIO_TRACK, VIDEO_TRACK, make_publisher, shared_instance, write_frames

TRACKS = [TrackInfo(VIDEO, "H264"), TrackInfo(AUDIO, "AAC")]
FRAME_US = 40_000


def stream_of(frames: int, *, gop: int = 50, audio_lag_us: int = 0, audio: bool = True) -> FakeStream:
    """Return a stream of so many frames at 25 a second, with an audio packet behind each."""
    stream = FakeStream("live", TRACKS)
    for number in range(frames):
        stream.write(Packet(0, number * FRAME_US, 0, number % gop == 0, b"video"))
        if audio and number * FRAME_US >= audio_lag_us:
            stream.write(Packet(1, number * FRAME_US - audio_lag_us, 0, True, b"audio"))
    return stream


def fragments_of(reader: FakeReader, *, ended: bool = False, audio: bool = True) -> list[tuple[int, int, int]]:
    states = reader.tracks()
    found = list_fragments(reader, states[0], states[1:] if audio else [], ended)
    return [(fragment.number, fragment.from_ms, fragment.to_ms) for fragment in found.fragments]


def test_the_newest_fragment_is_open() -> None:
    assert fragments_of(stream_of(0).reader()) == []
    assert fragments_of(stream_of(50).reader()) == []
    assert fragments_of(stream_of(52).reader()) == [(0, 0, 2000)]
    assert fragments_of(stream_of(151).reader()) == [(0, 0, 2000), (1, 2000, 4000), (2, 4000, 6000)]


def test_short_gops_join_to_fragments() -> None:
    assert fragments_of(stream_of(151, gop=25).reader()) == [(0, 0, 2000), (1, 2000, 4000), (2, 4000, 6000)]
    assert fragments_of(stream_of(125, gop=20).reader()) == [(0, 0, 2400), (1, 2400, 4800)]


def test_waits_for_the_other_track() -> None:
    reader = stream_of(102, audio_lag_us=200_000).reader()
    states = reader.tracks()
    found = list_fragments(reader, states[0], states[1:])
    assert [fragment.number for fragment in found.fragments] == [0]
    assert not found.complete
    reader = stream_of(107, audio_lag_us=200_000).reader()
    states = reader.tracks()
    found = list_fragments(reader, states[0], states[1:])
    assert [fragment.number for fragment in found.fragments] == [0, 1]
    assert found.complete


def test_does_not_wait_for_a_silent_track() -> None:
    stream = stream_of(52)
    for number in range(52, 52 + STALLED_US // FRAME_US + 50):
        stream.write(Packet(0, number * FRAME_US, 0, number % 50 == 0, b"video"))
    assert [number for number, *_ in fragments_of(stream.reader())] == [0, 1, 2, 3]
    assert [number for number, *_ in fragments_of(stream_of(151, audio=False).reader())] == [0, 1, 2]


def test_partly_trimmed_fragments_are_gone() -> None:
    stream = stream_of(301, gop=25)
    stream.trim(0, 1)
    assert [number for number, *_ in fragments_of(stream.reader())] == [1, 2, 3, 4, 5]
    stream.trim(0, 1)
    assert [number for number, *_ in fragments_of(stream.reader())] == [1, 2, 3, 4, 5]


def test_end_of_stream_closes_the_last_fragment() -> None:
    assert fragments_of(stream_of(120).reader(), ended=True) == [(0, 0, 2000), (1, 2000, 4000), (2, 4000, 4800)]
    assert fragments_of(stream_of(1).reader(), ended=True) == [(0, 0, 40)]
    assert fragments_of(stream_of(0).reader(), ended=True) == []


def test_every_packet_is_in_one_segment() -> None:
    reader = stream_of(160, audio_lag_us=17_000).reader()
    states = reader.tracks()
    found = list_fragments(reader, states[0], states[1:]).fragments
    ranges = [segment_ranges(reader, fragment, (0, 1)) for fragment in found]
    for track in (0, 1):
        for before, after in itertools.pairwise(ranges):
            assert before[track][2] == after[track][1]
    for fragment, ((_, first, end), (_, audio_first, audio_end)) in zip(found, ranges, strict=True):
        assert reader.packets(0, first, end)[0].dts_us == fragment.from_us
        assert all(fragment.from_us <= p.dts_us < fragment.to_us for p in reader.packets(1, audio_first, audio_end))


@pytest.mark.parametrize(
    ("durations_us", "longest_us", "expected"),
    [
        ([2_000_000] * 3, 0, 2),
        ([2_002_000, 2_001_000], 0, 2),
        ([2_449_000], 0, 2),
        ([2_499_000], 0, 3),
        ([2_500_000], 0, 3),
        ([2_000_000], 8_300_000, 8),
        ([], 0, 2),
        ([10_000_000], 0, 10),
    ],
)
def test_target_duration(durations_us: list[int], longest_us: int, expected: int) -> None:
    stream = stream_of(1)
    stream.track(0).longest_fragment_us = longest_us
    fragments, start_us = [], 0
    for number, duration_us in enumerate(durations_us):
        fragments.append(Fragment(number, start_us, start_us + duration_us))
        start_us += duration_us
    reader = stream.reader()
    target = target_duration_s(reader, reader.tracks()[0], fragments)
    assert target == expected
    assert all((duration_us + 500_000) // 1_000_000 <= target for duration_us in durations_us)


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [
        (0, 0, []),
        (1, 0, [0]),
        (4, 0, [0, 1, 2, 3]),
        (5, 0, [1, 2, 3, 4]),
        (6, 0, [2, 3, 4, 5]),
        (25, 0, list(range(2, 25))),
        (25, 6, list(range(19, 25))),
        (25, 2, list(range(21, 25))),  # never under four target durations
        (25, 100, list(range(2, 25))),
    ],
)
def test_listed(count: int, limit: int, expected: list[int]) -> None:
    fragments = [Fragment(number, number * 2_000_000, (number + 1) * 2_000_000) for number in range(count)]
    assert [fragment.number for fragment in listed(fragments, 2, limit)] == expected


def test_same_as_from_shared_memory(tmp_path: Path) -> None:
    """The real reader gives the same fragments as the fake one."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(160))
        reader = StreamReader(instance, "live")
        states = reader.tracks()
        found = list_fragments(reader, states[0], states[1:])
        expected = list_fragments(stream_of(160).reader(), states[0], states[1:])
        assert found.fragments == expected.fragments
        assert len(found.fragments) == 3
        assert segment_ranges(reader, found.fragments[1], (video, audio)) == [(video, 50, 100), (audio, 50, 100)]
        reader.close()
        publisher.close()


def test_breaks_in_shared_memory(tmp_path: Path) -> None:
    """Other init data and repaired times begin a new fragment, which says so; other properties do not."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(120))
        publisher.update_track(video, VIDEO_TRACK.changed(language="eng"))
        write_frames(publisher, video, audio, range(120, 170))
        publisher.update_track(video, VIDEO_TRACK.changed(init_data=b"\x01\x42\x00\x1e"))
        write_frames(publisher, video, audio, range(170, 230))
        publisher.mark_discontinuity()
        write_frames(publisher, video, audio, range(230, 320))
        reader = StreamReader(instance, "live")
        states = reader.tracks()
        found = list_fragments(reader, states[0], states[1:]).fragments
        assert [(one.number, one.discontinuities, one.init_changes) for one in found] == [
            (0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 1, 1), (5, 2, 1),
        ]  # fmt: skip
        assert [key.discontinuities for key in reader.keys(audio)][-1] == 1
        assert states[0].longest_fragment_us == 2_000_000
        reader.close()
        publisher.close()


OTHER_SOUND = AUDIO_TRACK.changed(init_data=b"\x12\x10", sample_rate_hz=44100)


def breaks_of(reader: StreamReader, index: int) -> list[tuple[int, int]]:
    """Return (begin in ms, breaks) of a track's fragments."""
    return [(one.dts_us // 1000, one.discontinuities) for one in reader.fragment_starts(index)]


def write_sound(publisher: StreamPublisher, audio: int, numbers: range, shift_us: int = 0) -> None:
    for number in numbers:
        publisher.write(Packet(audio, number * FRAME_US + shift_us, 0, True, b"sound"))


@pytest.mark.parametrize(
    ("ahead", "at", "shift_us", "breaks_at_ms"),
    [
        (0, 60, 0, (4000, 3000)),  # within a fragment: the next one is all new
        (0, 100, 0, (4000, 4000)),  # with the keyframe
        (0, 100, 5_000, (4000, 4000)),  # the first sound behind the keyframe is a new one
        (0, 101, 5_000, (6000, 5000)),  # the second: the fragment begins with an old one
        (40, 100, 0, (4000, 4000)),  # the sound comes early
        (40, 101, 5_000, (6000, 5000)),
        (-20, 99, 0, (4000, 4000)),  # it comes when the next keyframe is there already
        (-20, 100, 5_000, (4000, 4000)),
        (-20, 101, 5_000, (6000, 5000)),
    ],
)
def test_breaks_where_the_sound_changes(
    tmp_path: Path, ahead: int, at: int, shift_us: int, breaks_at_ms: tuple[int, int]
) -> None:
    """The first fragment breaks off whose sound is all of the new kind, whichever track comes first, and by one.

    ahead: frames of the sound before the picture's. breaks_at_ms: of pictures with a keyframe every two seconds and every second.
    """
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, second, audio = (publisher.add_track(info) for info in (VIDEO_TRACK, VIDEO_TRACK, AUDIO_TRACK))
        for number in range(-40, 220):
            if 0 <= number < 175:
                publisher.write(Packet(video, number * FRAME_US, 0, number % 50 == 0, b"picture"))
                publisher.write(Packet(second, number * FRAME_US, 0, number % 25 == 0, b"picture"))
            sound = number + ahead
            if sound == at:
                publisher.update_track(audio, OTHER_SOUND)
            if 0 <= sound < 175:
                write_sound(publisher, audio, range(sound, sound + 1), shift_us)
        reader = StreamReader(instance, "live")
        for index, begin_ms in zip((video, second), breaks_at_ms, strict=True):
            found = breaks_of(reader, index)
            assert [breaks for _, breaks in found] == [int(begin >= begin_ms) for begin, _ in found]
            assert begin_ms in [begin for begin, _ in found]
        reader.close()
        publisher.close()


def test_one_break_where_picture_and_sound_begin_anew(tmp_path: Path) -> None:
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(120))
        publisher.mark_discontinuity()
        publisher.update_track(video, VIDEO_TRACK.changed(init_data=b"\x01\x42\x00\x1e"))
        publisher.update_track(audio, OTHER_SOUND)
        write_frames(publisher, video, audio, range(150, 301))
        reader = StreamReader(instance, "live")
        assert breaks_of(reader, video) == [(0, 0), (2000, 0), (4000, 0), (6000, 1), (8000, 1), (10000, 1), (12000, 1)]
        reader.close()
        publisher.close()


def test_breaks_of_the_sound_while_there_is_no_picture(tmp_path: Path) -> None:
    """Fragments of sound alone break off too, and a picture that comes late goes on with the count."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_sound(publisher, audio, range(100))
        publisher.update_track(audio, OTHER_SOUND)
        write_sound(publisher, audio, range(100, 250))
        write_frames(publisher, video, audio, range(250, 350))
        write_sound(publisher, audio, range(350, 500))
        publisher.update_track(audio, AUDIO_TRACK)
        write_sound(publisher, audio, range(500, 800))
        reader = StreamReader(instance, "live")
        found = breaks_of(reader, video)
        assert [breaks for _, breaks in found] == sorted(breaks for _, breaks in found)
        assert next(begin for begin, breaks in found if breaks == 1) == next(
            begin for begin, breaks in breaks_of(reader, audio) if breaks == 1
        )
        assert 20_000 <= next(begin for begin, breaks in found if breaks == 2) < 22_000
        assert found[-1][1] == 2
        reader.close()
        publisher.close()


def test_a_fragment_with_two_sounds_is_split_between_its_packets(tmp_path: Path) -> None:
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(60))
        publisher.update_track(audio, OTHER_SOUND)
        write_frames(publisher, video, audio, range(60, 151))
        reader = StreamReader(instance, "live")
        fragment = list_fragments(reader, *(lambda states: (states[0], states[1:]))(reader.tracks())).fragments[1]
        ranges = segment_ranges(reader, fragment, (video, audio))
        runs = init_runs(reader.keys(audio), *ranges[1][1:])
        assert [(run.sequence, run.init_changes) for run in runs[1:]] == [(60, 1)]
        assert runs[0].init_changes == 0
        before, after = split_ranges(reader, ranges, 1, runs[1])
        assert before == [(video, 50, 60), (audio, 50, 60)]
        assert after == [(video, 60, 100), (audio, 60, 100)]
        reader.close()
        publisher.close()


def test_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = SegmentCache(1000)
    for name in "abcd":
        assert cache.get_or_make((1, name), lambda name=name: name.encode() * 250) == name.encode() * 250  # type: ignore[misc]
    assert cache.bytes_used == 1000
    assert cache.get((1, "a")) == b"a" * 250
    cache.get_or_make((2, "e"), lambda: b"e" * 300)
    assert cache.get((1, "b")) is None
    assert cache.get((1, "c")) is None
    assert cache.get((1, "a")) is not None
    assert cache.bytes_used == 800
    assert len(cache.get_or_make((2, "large"), lambda: bytes(1001))) == 1001
    assert cache.get((2, "large")) is None
    cache.forget(lambda key: isinstance(key, tuple) and key[0] == 1)
    assert len(cache) == 1
    assert cache.bytes_used == 300


def test_cache_makes_once() -> None:
    cache = SegmentCache()
    for _ in range(5):
        cache.get_or_make("key", lambda: b"segment")
    assert cache.misses == 1
