"""What a controller that was killed knew is known by the next one."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mist.controller.memory import Memory
from mist.controller.statistics import KEPT, LAYOUT, Statistics
from tests.support.fake_control import Clock, FakeControl

QUIET = logging.Logger("quiet")


class Kept:
    """Where states are written."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.writes = 0
        self.begun: list[tuple[Callable[[], bytes], Callable[[bytes | None, float], None]]] = []
        self.ended = 0

    def beside(self, work: Callable[[], bytes], done: Callable[[bytes | None, float], None]) -> Callable[[], None]:
        """Note what a process beside is to do, which a test does."""
        self.begun.append((work, done))

        def end() -> None:
            self.ended += 1

        return end

    def load(self) -> bytes:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
        self.writes += 1


class Part:
    def __init__(self) -> None:
        self.number = 0
        self.other: Any = object()


def remembering(kept: Kept, part: Part, log: logging.Logger = QUIET, layout: object = ()) -> Memory:
    memory = Memory(kept.load, kept.save, kept.beside, log)
    memory.keep("numbers", part, ("number",), layout)
    return memory


def test_the_next_one_knows_what_was_kept_and_no_more() -> None:
    kept, part = Kept(), Part()
    memory = remembering(kept, part)
    part.number = 5
    memory.write(10.0)
    later = Part()
    remembering(kept, later)
    assert later.number == 5
    assert later.other is not part.other


def test_only_changes_are_written_and_at_most_once_a_second() -> None:
    kept, part = Kept(), Part()
    memory = remembering(kept, part)
    for now in (10.0, 10.1, 11.0, 12.0):
        memory.write(now)
    assert kept.writes == 1
    part.number = 1
    memory.write(13.0)
    part.number = 2
    memory.write(13.1)
    assert kept.writes == 2
    memory.write(13.1, at_once=True)
    assert kept.writes == 3


def test_much_is_written_by_a_process_beside_one_at_a_time() -> None:
    kept, part = Kept(), Part()
    memory = remembering(kept, part)
    for now in (10.0, 20.0):
        memory.write(now, much=True)
    [(work, done)] = kept.begun
    assert kept.writes == 0
    work()
    done(b"", 2.0)
    assert kept.writes == 1
    for now in (21.0, 109.0, 110.0):  # two seconds are a fiftieth of a hundred
        memory.write(now, much=True)
    assert len(kept.begun) == 2


def test_what_is_written_at_the_end_is_not_overwritten_by_a_process_beside() -> None:
    kept, part = Kept(), Part()
    memory = remembering(kept, part)
    memory.write(10.0, much=True)
    memory.write(10.5, much=True, at_once=True)
    assert (kept.ended, kept.writes) == (1, 1)


def test_a_process_beside_that_fails_is_told_of_and_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    memory = remembering(kept, Part(), logging.getLogger("mist.test"))
    memory.write(10.0, much=True)
    kept.begun[0][1](None, 0.1)
    assert "could not be written" in caplog.text
    memory.write(20.0, much=True)
    assert len(kept.begun) == 2


OTHER_LAYOUT = pickle.dumps((("other",), {"number": 7}))
NO_STATE = pickle.dumps(logging.Logger)


@pytest.mark.parametrize(
    "data", [b"rubbish", pickle.dumps({"numbers": OTHER_LAYOUT}), pickle.dumps({"numbers": NO_STATE})]
)
def test_what_cannot_be_read_starts_afresh_and_says_so(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    part = Part()
    remembering(Kept(data), part, logging.getLogger("mist.test"))
    assert part.number == 0
    [line] = caplog.messages
    assert "start afresh" in line or "cannot be read" in line


def test_statistics_go_on() -> None:
    """Sessions, histories and totals are the same, and bytes that were counted are not counted again."""
    services, kept = FakeControl(Clock()), Kept()
    record = services.connect("live", "HLS", token="abc")
    statistics = Statistics(QUIET)
    memory = Memory(kept.load, kept.save, kept.beside, QUIET)
    memory.keep("statistics", statistics, KEPT, LAYOUT)
    for second in range(40):
        services.update(record, sent=1000, active=True)
        statistics.tick(services.connections(), 1_700_000_000 + second)
    memory.write(1.0)
    following = Statistics(QUIET)
    Memory(kept.load, kept.save, kept.beside, QUIET).keep("statistics", following, KEPT, LAYOUT)
    assert following.up == statistics.up > 0
    services.update(record, sent=1000, active=True)
    for one in (statistics, following):
        one.tick(services.connections(), 1_700_000_041)
    [before], [after] = statistics.live.values(), following.live.values()
    assert (after.up, after.started, after.token, after.streams) == (before.up, before.started, "abc", before.streams)
    assert following.up == statistics.up
    assert following.streams["live"].series["HLS"].up == statistics.streams["live"].series["HLS"].up
    assert after.at(1_700_000_010) == before.at(1_700_000_010)
    assert list(following.history)[:-1] == list(statistics.history)[:-1]
