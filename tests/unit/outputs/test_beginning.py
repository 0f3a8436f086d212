"""Where a viewer of a live stream begins and ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mist.errors import NoSuitableTrack
from mist.outputs.base import Choice, beginning
from mist.outputs.base.beginning import settle_times
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.state import StreamStatus
from tests.support.fake_stream import FakeStream
from tests.unit.outputs.test_publishing import H264_TRACK, Watches, key


class Waiting:
    """A stream of pictures, and a viewer that may have to wait for what it asks for."""

    def __init__(self, **query: str) -> None:
        self.stream, self.watches = FakeStream("live", [H264_TRACK]), Watches()
        for number in range(10):
            self.stream.write(key(1_000_000 + number * 100_000, is_key=number % 4 == 0))
        services: Any = SimpleNamespace(fanout=self.watches)
        choice: Any = Choice(self.stream.reader(), [0], lambda states: [0])  # type: ignore[arg-type]
        self.task = asyncio.ensure_future(settle_times(services, choice, parse_parameters(query)))

    async def settled(self) -> PlaybackParameters:
        parameters = await self.task
        assert not self.watches.callbacks
        assert (parameters.start_unix_s, parameters.stop_unix_s, parameters.duration_us) == (None, None, None)
        return parameters


@pytest.mark.parametrize(
    ("query", "times"),
    [
        ({}, (None, None)),
        ({"start": "1500"}, (1_500_000, None)),
        ({"stop": "9000"}, (None, 9_000_000)),
        ({"stop": "1500"}, (1_000_000, 1_500_000)),  # all that is there up to it
        ({"duration": "1"}, (None, 2_800_000)),  # from the newest keyframe on
        ({"start": "1100", "duration": "1"}, (1_100_000, 2_100_000)),
    ],
)
def test_times_that_are_there(query: dict[str, str], times: tuple[int | None, int | None]) -> None:
    async def work() -> None:
        parameters = await Waiting(**query).settled()
        assert (parameters.start_us, parameters.stop_us) == times

    asyncio.run(work())


def test_a_start_that_is_still_to_come() -> None:
    async def work() -> None:
        waiting = Waiting(start="2000", duration="1")
        await waiting.watches.ring()
        waiting.stream.write(key(1_950_000, is_key=False))
        await waiting.watches.ring()
        assert not waiting.task.done()
        waiting.stream.write(key(2_050_000, is_key=False))
        await waiting.watches.ring()
        assert (await waiting.settled()).stop_us == 3_000_000

    asyncio.run(work())


def test_a_stream_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "STALL_SECONDS", 0.001)

    async def work() -> None:
        assert (await Waiting(start="99000").settled()).start_us == 99_000_000

    asyncio.run(work())


def test_a_stream_that_ends_before_the_start() -> None:
    async def work() -> None:
        waiting = Waiting(start="99000")
        await waiting.watches.ring()
        waiting.stream.set_status(StreamStatus.SHUTDOWN)
        await waiting.watches.ring()
        with pytest.raises(NoSuitableTrack, match="ended before its beginning"):
            await waiting.settled()

    asyncio.run(work())


def test_a_keyframe_that_is_still_to_come() -> None:
    async def work() -> None:
        waiting = Waiting(waitkey="", duration="1")
        await waiting.watches.ring()
        assert not waiting.task.done()
        waiting.stream.write(key(2_000_000))
        await waiting.watches.ring()
        assert (await waiting.settled()).stop_us == 3_000_000

    asyncio.run(work())
