"""The pace of sources that arrive as bytes, and what becomes of those that stall or cannot be read from front to back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mist.errors import MistError, TransportError
from mist.formats.containers import Container
from mist.stream.byte_source import MAX_AHEAD_US, RealTime, play_bytes

FRAME_US = 40_000


class Jumping:
    """A demuxer that wants other bytes than the next ones."""

    ready = False
    tracks = ()

    def __init__(self, places: list[tuple[int, int]]) -> None:
        self._places = places
        self.fed: list[bytes] = []

    def attach(self, _sink: object) -> None:
        pass

    def want(self) -> tuple[int, int] | None:
        return self._places[0] if self._places else None

    def feed(self, data: bytes) -> None:
        self.fed.append(data)
        self._places.pop(0)


def play(demuxer: Jumping, read: Callable[[], Any], silence_s: float | None = 5) -> int:
    container = Container("test", (".test",), "x/y", make_demuxer=lambda: demuxer)  # type: ignore[arg-type,return-value]

    async def run() -> int:
        services: Any = SimpleNamespace(
            publisher=SimpleNamespace(last_us=lambda: None, tracks={}),
            record=SimpleNamespace(add_bytes=lambda _down, _up: None),
            log=logging.getLogger("test"),
            loop=asyncio.get_running_loop(),
        )
        return await play_bytes(services, "somewhere", container, read, silence_s)

    return asyncio.run(run())


def test_a_source_in_real_time_never_waits_and_a_faster_one_does() -> None:
    pace = RealTime()
    for number in range(1000):
        pace.note(number * FRAME_US)
        assert pace.wait_us(number * FRAME_US) == 0
    fast = RealTime()
    for number in range(500):
        fast.note(number * FRAME_US)
    assert fast.wait_us(0) == 499 * FRAME_US - MAX_AHEAD_US
    assert fast.wait_us(500 * FRAME_US) == 0


def test_a_clock_that_is_a_little_fast_never_waits() -> None:
    pace = RealTime()
    for number in range(0, 10**8, 10**4):  # 46 days at 100 millionths
        pace.note(number * FRAME_US)
        assert pace.wait_us(number * FRAME_US * 9999 // 10_000) == 0


@pytest.mark.parametrize("jump_us", (3_600_000_000, -3_600_000_000, 1 << 62, -(1 << 62)))
def test_a_jump_is_not_waited_for(jump_us: int) -> None:
    pace = RealTime()
    for start_us in (0, jump_us, 0):
        for number in range(10):
            pace.note(start_us + number * FRAME_US)
            pace.note(start_us + number * FRAME_US - 20_000)
    assert pace.wait_us(0) == 0


def test_a_source_that_was_late_may_not_be_early_for_it() -> None:
    pace = RealTime()
    pace.note(0)
    assert pace.wait_us(0) == 0
    assert pace.wait_us(60_000_000) == 0
    for number in range(500):
        pace.note(number * FRAME_US)
    assert pace.wait_us(60_000_000) == 499 * FRAME_US - MAX_AHEAD_US


def test_what_is_not_wanted_is_passed_over() -> None:
    pieces = [b"0123", b"4567", b"89"]

    async def read() -> bytes:
        return pieces.pop(0) if pieces else b""

    demuxer = Jumping([(0, 2), (5, 2), (7, 10), (8, 10), (10, 1)])
    assert play(demuxer, read) == 0
    assert demuxer.fed == [b"01", b"56", b"7", b"89", b""]


def test_reading_back_is_refused() -> None:
    async def read() -> bytes:
        return b"0123"

    with pytest.raises(MistError, match="somewhere, byte 4: byte 1 is needed after byte 4"):
        play(Jumping([(0, 4), (1, 4)]), read)


def test_silence_is_an_error_that_names_the_source() -> None:
    async def read() -> bytes:
        await asyncio.Event().wait()
        return b""

    with pytest.raises(TransportError, match=r"somewhere: nothing came for 0\.01 s"):
        play(Jumping([(0, 4)]), read, 0.01)
