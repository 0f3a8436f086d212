"""The line that says how far a conversion is."""

from __future__ import annotations

import io

import pytest

from mist.commands.progress import Progress, bytes_text, time_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (40_123_456, "40.1 MB"), (2e13, "20.0 TB"), (5e15, "5000.0 TB")],
)
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("us", "digits", "text"),
    [
        (0, 3, "0:00.000"),
        (59_999_600, 3, "1:00.000"),
        (3_723_500_000, 3, "1:02:03.500"),
        (-1_500_000, 3, "-0:01.500"),
        (61_400_000, 0, "1:01"),
    ],
)
def test_times(us: int, digits: int, text: str) -> None:
    assert time_text(us, digits) == text


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_line_shows_bytes_time_speed_and_what_is_left() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(40_000_000, stream=stream, clock=clock, shown=True)
    progress.update(1_000_000, 1_000_000)
    assert stream.getvalue() == ""
    clock.now += 2
    progress.update(10_000_000, 30_000_000)
    line = stream.getvalue()
    assert "[######" in line and " 25%" in line and "10.0 MB of 40.0 MB" in line
    assert "0:30" in line and "5.0 MB/s" in line and "0:06 left" in line
    progress.clear()
    assert stream.getvalue().endswith("\r") and stream.getvalue().count(" " * 60)


def test_an_input_of_unknown_length() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(None, stream=stream, clock=clock, shown=True)
    clock.now += 1
    progress.update(10_000_000, 30_000_000)
    assert stream.getvalue() == "\r10.0 MB  0:30  10.0 MB/s"


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(10, stream=stream, clock=clock)
    clock.now += 10
    progress.update(5, 5)
    progress.clear()
    assert stream.getvalue() == ""
