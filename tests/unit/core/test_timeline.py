"""The timeline of inputs: the same rules as for publishers, and going on elsewhere."""

from __future__ import annotations

import random

import pytest

from mist.core.timeline import MAX_TIMELINE_TRACKS, Timeline
from mist.errors import LimitExceededError
from mist.formats.rtmp.timeline import Timeline as PublisherTimeline


@pytest.mark.parametrize("seed", range(20))
def test_the_same_as_a_publishers(seed: int) -> None:
    """But for times that stand still: those are repaired for publishers alone, for captions may begin together."""
    chance = random.Random(seed)
    ours, theirs = Timeline(), PublisherTimeline()
    base = chance.randrange(-(10**12), 10**12)
    clocks = [0, 0, 0]
    for _ in range(2000):
        track = chance.randrange(3)
        clocks[track] += chance.choice([0, 20_000, 40_000, 40_000, -1000, 3_000_000])
        if chance.random() < 0.01:
            base += chance.choice([-(10**9), 10**9, 601_000_000, -600_000, 20_000_000])
        time_us = base + clocks[track]
        if theirs.stands_still(track, time_us):
            continue
        assert ours.placed(track, time_us) == theirs.place(track, time_us)
        assert (ours.jumped, ours.moved_us, ours.newest_us) == (theirs.jumped, theirs.moved_us, theirs.newest_us)


def test_going_on_elsewhere_keeps_the_time_base() -> None:
    timeline = Timeline()
    assert [timeline.placed(0, number * 40_000) for number in range(3)] == [0, 40_000, 80_000]
    timeline.resumed(40_000)
    assert [timeline.placed(1, 30_000), timeline.placed(0, 40_000)] == [30_000, 40_000]


def test_going_on_behind_a_jump_takes_its_time_base() -> None:
    timeline = Timeline()
    timeline.placed(0, 0)
    timeline.resumed(5_000_000)
    assert [timeline.placed(0, 10**12), timeline.placed(0, 10**12 + 40_000)] == [5_000_000, 5_040_000]


def test_what_is_under_way_at_a_short_jump_keeps_its_time_base() -> None:
    timeline = Timeline()
    old = [(0, 7_920_000), (1, 7_900_000), (0, 7_960_000)]
    assert [timeline.placed(*packet) for packet in old] == [time_us for _, time_us in old]
    assert timeline.placed(0, 0) == 8_000_000 and timeline.jumped
    assert timeline.placed(1, 7_940_000) == 7_940_000 and not timeline.jumped
    assert [timeline.placed(1, 10_000), timeline.placed(0, 40_000)] == [8_010_000, 8_040_000]


def test_going_on_elsewhere_by_known_time_bases() -> None:
    timeline = Timeline()
    timeline.placed(0, 0)
    timeline.resumed(8_000_000, (8_000_000, 0))
    assert timeline.placed(1, 7_960_000) == 7_960_000  # of what was before, and read again
    assert timeline.placed(0, 0) == 8_000_000 and timeline.jumped
    assert timeline.placed(1, 7_980_000) == 7_980_000 and timeline.placed(1, 20_000) == 8_020_000
    timeline.resumed(8_400_000, (8_000_000, 0))
    assert timeline.placed(0, 400_000) == 8_400_000 and not timeline.jumped
    timeline.resumed(0, (0, 8_000_000))
    assert timeline.placed(0, 0) == 0


def test_too_many_tracks() -> None:
    with pytest.raises(LimitExceededError):
        Timeline().placed(MAX_TIMELINE_TRACKS, 0)


def test_metadata_follows_and_never_leads() -> None:
    timeline = Timeline()
    assert timeline.placed(0, 5_000_000) == 5_000_000
    assert timeline.followed(1, 4_000_000) == 4_000_000  # late, and its own time
    assert timeline.followed(1, 4_000_000) == 4_001_000
    assert timeline.placed(0, 3_000_000_000) == 5_040_000 and timeline.jumped
    for time_us in (-(10**12), 10**12):  # of no use
        assert 5_000_000 <= timeline.followed(2, time_us) <= 5_100_000
        assert not timeline.jumped and timeline.placed(0, 3_000_000_000 + 1_000_000) > 5_000_000
        timeline = Timeline()
        timeline.placed(0, 5_040_000)
        timeline.placed(0, 3_000_000_000)
    assert Timeline().followed(0, 7) == 7


def test_metadata_that_was_silent_for_hours_is_no_jump() -> None:
    timeline = Timeline()
    timeline.placed(0, 0)
    timeline.followed(1, 0)
    for second in range(1, 4000):
        timeline.placed(0, second * 1_000_000)
    assert timeline.followed(1, 3_999_000_000) == 3_999_000_000
    assert timeline.placed(0, 4_000_000_000) == 4_000_000_000 and timeline.shift_us == 0


def test_metadata_alone_has_its_own_times() -> None:
    timeline = Timeline()
    assert [timeline.followed(0, second * 1_000_000) for second in range(0, 600, 30)] == list(
        range(0, 600_000_000, 30_000_000)
    )
