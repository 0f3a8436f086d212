"""Statistics of packets."""

from __future__ import annotations

from mist.core.packet import Packet
from mist.core.track_survey import MAX_REMARKS, TrackSurvey


def survey(times_us: list[int], *, keys: int = 25, size: int = 100, offsets_us: tuple[int, ...] = (0,)) -> TrackSurvey:
    found = TrackSurvey()
    for number, dts_us in enumerate(times_us):
        offset_us = offsets_us[number % len(offsets_us)]
        found.write(Packet(0, dts_us, offset_us, number % keys == 0, bytes(size)))
    return found


def test_counts_rates_and_gops() -> None:
    figures = survey([number * 40_000 for number in range(110)]).figures(0)
    assert (figures["packets"], figures["bytes"], figures["keys"], figures["gops"]) == (110, 11_000, 5, 4)
    assert figures["gop_least_us"] == figures["gop_most_us"] == figures["gop_sum_us"] // 4 == 1_000_000
    assert figures["gop_least_packets"] == figures["gop_most_packets"] == 25
    assert figures["most_window_bytes"] == 2500
    assert figures["first_is_key"] and not figures["reordered"]
    assert (figures["first_dts_us"], figures["newest_us"]) == (0, 109 * 40_000)


def test_reordered_packets_are_counted() -> None:
    figures = survey([number * 40_000 for number in range(12)], offsets_us=(120_000, 0, 0, 40_000)).figures(0)
    assert figures["reordered"] == 6
    assert figures["first_pts_us"] == 40_000
    assert figures["last_pts_us"] == 12 * 40_000


def test_gaps_steps_back_and_repeats_are_remarked() -> None:
    times = [number * 20_000 for number in range(50)]
    found = survey([*times, 5_000_000, 4_000_000, 4_000_000])
    figures = found.figures(0)
    assert (figures["gaps"], figures["backward"], figures["repeated"]) == (1, 1, 1)
    assert figures["longest_gap_us"] == 5_000_000 - 980_000
    assert found.remarks == [
        ("gap", 0, 980_000, 4_020_000),
        ("backward", 0, 4_000_000, -1_000_000),
        ("repeated", 0, 4_000_000, 0),
    ]
    assert found.newest_us == 5_000_000


def test_a_low_frame_rate_is_no_row_of_gaps() -> None:
    assert survey([number * 2_000_000 for number in range(50)]).figures(0)["gaps"] == 7  # while it is learnt


def test_remarks_are_bounded() -> None:
    found = survey([0] * 1000)
    assert found.figures(0)["repeated"] == 999
    assert len(found.remarks) == MAX_REMARKS


def test_tracks_without_packets_are_all_zero() -> None:
    found = TrackSurvey()
    found.write(Packet(3, 0, 0, False, b"x"))
    assert found.figures(1)["packets"] == 0
    assert found.figures(9)["packets"] == 0
    assert found.figures(3)["packets"] == 1 and not found.figures(3)["first_is_key"]
