"""Decode times made from presentation times: the decoder's rule, and nothing that can be seen of how they were made."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mist.core.decode_times import decode_times

FRAME_US = 40_000


def shown(order: str) -> list[int]:
    """Return presentation times of pictures given by their places on the screen: "0 3 1 2"."""
    return [int(place) * FRAME_US for place in order.split()]


@pytest.mark.parametrize(
    ("order", "depth"),
    [
        ("0 1 2 3 4 5", 0),
        ("0 2 1 4 3 6 5", 1),
        ("0 4 2 1 3 8 6 5 7", 2),
        ("0 3 1 2 6 4 5 9 7 8", 1),
        ("2 0 1 5 3 4 8 6 7", 1),  # an open group of pictures: those before the first keyframe
        ("0 8 4 2 1 3 6 5 7", 3),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_constant_rate(order: str, depth: int, known: bool) -> None:
    times = shown(order)
    first = min(times) - depth * FRAME_US
    assert decode_times(times, depth if known else -1, FRAME_US) == [first + n * FRAME_US for n in range(len(times))]
    assert decode_times(times, depth if known else -1) == decode_times(times, depth, FRAME_US)


def test_a_depth_that_is_too_large_only_makes_times_earlier() -> None:
    times = shown("0 2 1 4 3 6 5 8 7")
    assert decode_times(times, 3, FRAME_US) == [n * FRAME_US - 3 * FRAME_US for n in range(9)]


def test_a_depth_that_is_too_small_is_learnt() -> None:
    times = shown("0 1 2 3 7 5 4 6 11 9 8 10 15 13 12 14 19 17 16 18")
    found = decode_times(times, 0, FRAME_US)
    assert all(a < b for a, b in itertools.pairwise(found))
    found = decode_times(times, 1, FRAME_US)
    assert all(a < b for a, b in itertools.pairwise(found))
    assert all(dts <= pts for dts, pts in list(zip(found, times, strict=True))[8:])


def test_rates_that_are_not_known_come_from_the_pictures() -> None:
    times = [0, 100_000, 33_000, 67_000, 200_000, 133_000, 167_000]
    assert decode_times(times, 1)[0] == -33_333


def test_few_pictures() -> None:
    assert decode_times([], 2) == []
    assert decode_times([80_000], 2, FRAME_US) == [0]
    assert decode_times([80_000, 160_000], 2, FRAME_US) == [0, 40_000]
    assert decode_times([80_000], -1) == [80_000]


def test_equal_times_still_rise() -> None:
    assert decode_times([0, 0, 0, 40_000], 0) == [0, 1, 2, 40_000]
    found = decode_times([0, 80_000, 40_000, 40_000, 160_000, 120_000, 200_000], 1, FRAME_US)
    assert found == sorted(set(found))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.permutations(range(5)), min_size=1, max_size=12),
    st.integers(min_value=0, max_value=10**12),
    st.lists(st.integers(min_value=1, max_value=100_000), min_size=60, max_size=60),
)
def test_any_order_of_any_rate(groups: list[list[int]], first: int, steps: list[int]) -> None:
    """With the true depth decode times rise and no picture is decoded after it is shown."""
    moments = [first]
    for step in steps:
        moments.append(moments[-1] + step)
    times = [moments[5 * number + place] for number, group in enumerate(groups) for place in group]
    depth = max(sum(earlier > time for earlier in times[:place]) for place, time in enumerate(times))
    for found in (decode_times(times, depth, 40_000), decode_times(times, depth)):
        assert all(a < b for a, b in itertools.pairwise(found))
        assert all(dts <= pts for dts, pts in zip(found, times, strict=True))
        assert found[depth:] == sorted(times)[: len(times) - depth]
