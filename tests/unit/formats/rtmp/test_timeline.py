"""Times of live sources: what is repaired and what is left alone."""

from __future__ import annotations

import random

from mist.formats.rtmp.timeline import DISORDER_STEP_US, JOIN_US, Timeline

MS = 1000
VIDEO, AUDIO = 0, 1


def place_all(timeline: Timeline, packets: list[tuple[int, int]]) -> list[int]:
    """Place (track, milliseconds) and return milliseconds."""
    return [timeline.place(track, time * MS) // MS for track, time in packets]


def test_good_times_stay_as_they_are() -> None:
    timeline = Timeline()
    packets = [
        (VIDEO, 1000),
        (AUDIO, 990),
        (VIDEO, 1040),
        (AUDIO, 1013),
        (VIDEO, 1080),
        (AUDIO, 3000),
        (VIDEO, 300_000),
    ]
    assert place_all(timeline, packets) == [time for _, time in packets]
    assert timeline.take_reports() == [] and timeline.newest_us == 300_000 * MS and not timeline.jumped


def test_negative_times_are_times() -> None:
    assert place_all(Timeline(), [(VIDEO, -40), (VIDEO, 0), (AUDIO, -20)]) == [-40, 0, -20]


def test_a_jump_forward_is_closed_for_all_tracks() -> None:
    timeline = Timeline()
    far = 1_000_000
    placed = place_all(
        timeline, [(VIDEO, 0), (AUDIO, 0), (VIDEO, 40), (AUDIO, 21), (VIDEO, far), (AUDIO, far - 20), (VIDEO, far + 40)]
    )
    assert placed == [0, 0, 40, 21, 80, 60, 120]
    assert len(timeline.take_reports()) == 1 and timeline.take_reports() == []


def test_a_gap_is_not_a_jump() -> None:
    assert place_all(Timeline(), [(VIDEO, 0), (VIDEO, 500_000)]) == [0, 500_000]


def test_a_restart_at_zero_goes_on() -> None:
    timeline = Timeline()
    placed = place_all(timeline, [(VIDEO, 90_000), (AUDIO, 90_000), (VIDEO, 90_040), (AUDIO, 90_021), (VIDEO, 0)])
    assert placed[-1] == 90_080 and timeline.jumped
    assert place_all(timeline, [(AUDIO, 0), (VIDEO, 40), (AUDIO, 21)]) == [90_080, 90_120, 90_101]
    assert len(timeline.take_reports()) == 1


def test_packets_under_way_at_a_restart_keep_their_old_base() -> None:
    timeline = Timeline()
    place_all(timeline, [(VIDEO, 90_000), (AUDIO, 89_990), (VIDEO, 90_040)])
    assert place_all(timeline, [(VIDEO, 0), (AUDIO, 90_011), (AUDIO, 0), (VIDEO, 40)]) == [
        90_080,
        90_011,
        90_080,
        90_120,
    ]


def test_tracks_with_clocks_of_their_own() -> None:
    timeline = Timeline()
    packets = [(VIDEO, 5_000_000), (AUDIO, 0), (VIDEO, 5_000_040), (AUDIO, 21), (VIDEO, 5_000_080), (AUDIO, 43)]
    placed = place_all(timeline, packets)
    assert placed == [5_000_000, 5_000_040, 5_000_040, 5_000_061, 5_000_080, 5_000_083]
    assert len(timeline.take_reports()) == 1


def test_small_steps_back_move_one_packet() -> None:
    timeline = Timeline()
    assert place_all(timeline, [(VIDEO, 0), (VIDEO, 40), (VIDEO, 30)]) == [0, 40, 41]
    assert timeline.moved_us == 10 * MS + DISORDER_STEP_US
    assert place_all(timeline, [(VIDEO, 80)]) == [80] and timeline.moved_us == 0
    assert len(timeline.take_reports()) == 1


def test_equal_times_are_parted_without_a_word() -> None:
    """GStreamer's flvmux writes 0 for each decode time below 0."""
    timeline = Timeline()
    assert place_all(timeline, [(VIDEO, 0), (VIDEO, 0), (VIDEO, 0), (VIDEO, 40)]) == [0, 1, 2, 40]
    assert timeline.take_reports() == []


def test_a_publisher_that_comes_back_at_zero() -> None:
    timeline = Timeline(after_us=60_000 * MS)
    assert timeline.place(VIDEO, 0) == 60_000 * MS + JOIN_US and timeline.jumped
    assert timeline.place(AUDIO, 10 * MS) == 60_010 * MS + JOIN_US and not timeline.jumped
    assert len(timeline.take_reports()) == 1


def test_a_publisher_that_comes_back_with_its_clock_running() -> None:
    timeline = Timeline(after_us=60_000 * MS)
    assert timeline.place(VIDEO, 63_000 * MS) == 63_000 * MS
    assert timeline.jumped and timeline.take_reports() == []


def test_time_offset() -> None:
    assert place_all(Timeline(offset_us=-500 * MS), [(VIDEO, 1000), (AUDIO, 1020)]) == [500, 520]


def test_each_kind_is_reported_once() -> None:
    timeline = Timeline()
    for round_number in range(5):
        place_all(timeline, [(VIDEO, 0), (VIDEO, 40), (VIDEO, 2_000_000), (VIDEO, 1_999_990 + round_number)])
    reports = timeline.take_reports()
    assert len(reports) == len(set(reports)) == 2


def test_times_always_increase_per_track() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        timeline = Timeline(after_us=chance.choice([None, 10**9]))
        last: dict[int, int] = {}
        for _ in range(400):
            track = chance.randrange(3)
            raw = chance.choice([chance.randrange(1 << 40), chance.randrange(100_000), 1 << 45, -5000])
            placed = timeline.place(track, raw)
            assert placed > last.get(track, -(10**18))
            last[track] = placed


def test_metadata_follows_and_never_leads() -> None:
    timeline = Timeline()
    assert timeline.place(0, 5_000_000) == 5_000_000
    assert [timeline.follow(1, 4_000_000), timeline.follow(1, 4_000_000)] == [4_000_000, 4_001_000]
    assert timeline.follow(2, 900_000_000) == 5_000_000 and not timeline.jumped
    assert timeline.follow(3, 65_000_000, 60_000_000) == 65_000_000
    assert timeline.place(0, 5_040_000) == 5_040_000 and not timeline.take_reports()
    timeline.place(0, 0)
    assert timeline.jumped and timeline.follow(1, 40_000) == 40_000 + timeline.shift_us
    assert timeline.follow(4, 5_030_000) == 5_030_000  # was under way at the jump
    assert Timeline().follow(0, 7) == 7


def test_metadata_alone_has_its_own_times() -> None:
    timeline = Timeline()
    assert [timeline.follow(0, second * 1_000_000) for second in range(0, 600, 30)] == list(
        range(0, 600_000_000, 30_000_000)
    )


def test_a_track_whose_time_stands_still_takes_that_of_the_others() -> None:
    line = Timeline()
    found = []
    for number in range(100):
        line.place(0, number * 40_000)
        found.append(line.place(1, 0))
    assert found == sorted(set(found))
    assert all(time_us == number * 40_000 for number, time_us in enumerate(found) if number > 30)
    assert line.place(0, 100 * 40_000) == 100 * 40_000, "the others are not moved"
    assert [text for text in line.take_reports() if "stands still" in text]
    again = Timeline.restore(line.export_state())
    assert again.place(1, 0) == line.place(1, 0)
