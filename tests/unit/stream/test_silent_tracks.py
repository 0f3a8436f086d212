"""A track that comes late, pauses or ends while the others go on: fragments, the live window, and what a next process finds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mist.core.packet import Packet
from mist.formats.tracks import AUDIO
from mist.stream.publisher import SILENT_US, Limits, StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.segments import Fragment, list_fragments
from mist.stream.selectors import usable_tracks
from tests.support.shared_memory import (
    AUDIO_TRACK,
    FRAME_US,
    VIDEO_TRACK,
    make_publisher,
    shared_instance,
    video_packet,
    write_frames,
)

S = 1_000_000


def sound(publisher: StreamPublisher, track: int, seconds: tuple[float, float]) -> None:
    first, end = (round(one * S) // FRAME_US for one in seconds)
    for number in range(first, end):
        publisher.write(Packet(track, number * FRAME_US, 0, True, bytes(80)))


def fragments(reader: StreamReader, video: int, audio: int) -> tuple[Fragment, ...]:
    return list_fragments(reader, reader.track(video), [reader.track(audio)]).fragments


def assert_joined(found: tuple[Fragment, ...]) -> None:
    for one, after in pairwise(found):
        assert after.number == one.number + 1
        assert after.from_us == one.to_us


def test_fragments_go_on_without_pictures(tmp_path: Path) -> None:
    """The list grows by sound alone, keeps what it listed, and has a fragment that begins with the picture that comes back."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(150))
        reader = StreamReader(instance, "live")
        before = fragments(reader, video, audio)
        sound(publisher, audio, (6, 26))
        silent = fragments(reader, video, audio)
        assert silent[: len(before)] == before
        assert silent[-1].to_us >= 26 * S - SILENT_US - 3 * S
        assert max(one.duration_us for one in silent) < 2_500_000
        assert reader.track_reader(video).newest_key() == 100, "what begins without a picture is no place to begin at"
        write_frames(publisher, video, audio, range(650, 800))
        after = fragments(reader, video, audio)
        assert after[: len(silent)] == silent
        assert_joined(after)
        assert 26 * S in [one.from_us for one in after]
        assert max(one.duration_us for one in after) < 2_500_000
        assert after[-1].to_us == 30 * S
        reader.close()
        publisher.close()


def test_a_process_that_goes_on_keeps_the_fragments_of_the_silence(tmp_path: Path) -> None:
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(150))
        sound(publisher, audio, (6, 20))
        reader = StreamReader(instance, "live")
        before = fragments(reader, video, audio)
        publisher.close()
        publisher = StreamPublisher(instance, "live", str(tmp_path), resumed=True)
        assert fragments(reader, video, audio) == before
        sound(publisher, audio, (20, 26))
        write_frames(publisher, video, audio, range(650, 760))
        after = fragments(reader, video, audio)
        assert after[: len(before)] == before
        assert_joined(after)
        reader.close()
        publisher.close()


def test_a_picture_that_has_ended_holds_no_sound_back(tmp_path: Path) -> None:
    """Sound is kept for the live window only; nobody is offered the picture, until it comes again."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path, Limits(window_us=10 * S))
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(150))
        reader = StreamReader(instance, "live")
        offered = reader.track_set_generation()
        sound(publisher, audio, (6, 120))
        states = reader.tracks()
        assert states[1].first_us > 100 * S
        assert [state.index for state in usable_tracks(states, ())] == [audio]
        assert reader.track_set_generation() > offered
        offered = reader.track_set_generation()
        write_frames(publisher, video, audio, range(3000, 3150))
        assert reader.track_set_generation() > offered
        assert [state.index for state in usable_tracks(reader.tracks(), ())] == [video, audio]
        found = fragments(reader, video, audio)
        assert_joined(found)
        assert all(reader.track(video).first_us <= one.from_us for one in found)
        reader.close()
        publisher.close()


def test_sound_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path, Limits(window_us=10 * S))
        video, audio = publisher.add_track(VIDEO_TRACK), publisher.add_track(AUDIO_TRACK)
        write_frames(publisher, video, audio, range(150))
        used = publisher.table.bytes_used
        for number in range(150, 1000):
            publisher.write(video_packet(video, number))
        reader = StreamReader(instance, "live")
        assert [state.index for state in usable_tracks(reader.tracks(), ())] == [video]
        assert len(fragments(reader, video, audio)) >= 5
        assert publisher.table.bytes_used <= used + (8 << 20)
        publisher.write(Packet(audio, 1000 * FRAME_US, 0, True, bytes(80)))
        assert reader.track(audio).info.type == AUDIO
        assert len(usable_tracks(reader.tracks(), ())) == 2
        reader.close()
        publisher.close()


def test_a_picture_without_keyframes(tmp_path: Path) -> None:
    """One keyframe at the beginning and none after: from two minutes on it is cut without, and the window stays bounded."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path, Limits(window_us=10 * S))
        video = publisher.add_track(VIDEO_TRACK)
        for number in range(5000):
            publisher.write(Packet(video, number * FRAME_US, 0, number == 0, bytes(100)))
        reader = StreamReader(instance, "live")
        state = reader.track(video)
        assert 10 * S <= state.last_us - state.first_us < 20 * S
        assert len(reader.keys(video)) >= 5
        newest = reader.track_reader(video).packet_times(reader.track_reader(video).newest_key())
        assert newest is not None
        assert newest[2] & 1 == 0, "it is not said to be a keyframe"
        publisher.write(Packet(video, 5000 * FRAME_US, 0, True, bytes(100)))
        count = len(reader.keys(video))
        for number in range(5001, 5500):
            publisher.write(Packet(video, number * FRAME_US, 0, False, bytes(100)))
        assert len(reader.keys(video)) <= count, "after a keyframe the count begins anew"
        reader.close()
        publisher.close()


@pytest.mark.parametrize(("late_s", "first"), [(8.0, 4), (0.04, 0)])
def test_a_late_picture_goes_on_with_the_fragments_of_the_sound(tmp_path: Path, late_s: float, first: int) -> None:
    """Whoever has heard the sound finds the same numbers; a picture that is late by nearly nothing has its own."""
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        audio = publisher.add_track(AUDIO_TRACK)
        sound(publisher, audio, (0, late_s))
        reader = StreamReader(instance, "live")
        heard = list_fragments(reader, reader.track(audio), []).fragments
        video = publisher.add_track(VIDEO_TRACK)
        start = round(late_s * S) // FRAME_US
        for number in range(start, start + 120):
            frame = video_packet(video, number - start)
            publisher.write(Packet(video, number * FRAME_US, 0, frame.keyframe, frame.payload))
            publisher.write(Packet(audio, number * FRAME_US, 0, True, bytes(80)))
        found = fragments(reader, video, audio)
        assert found[: len(heard)] == heard
        assert_joined(found)
        assert start * FRAME_US == found[first].from_us
        reader.close()
        publisher.close()
