"""What a push to a server waits for, and which tracks it sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import NoSuitableTrack
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.net.dial import AT_ONCE, turn
from mist.outputs.base import Choice, choose_tracks, selection
from mist.outputs.base.publishing import PLAYBACK, tracks_mask, wait_fresh_key
from mist.outputs.rtmp_push import parse_target
from mist.stream.parameters import parse_parameters
from mist.stream.state import StreamStatus
from tests.support.fake_stream import FakeStream

H264_TRACK = TrackInfo(VIDEO, "H264", b"\x01\x42", width=320, height=180)
AAC_TRACK = TrackInfo(AUDIO, "AAC", b"\x11\x90", sample_rate_hz=48000, channels=2)


class Watches:
    """Calls who watches a stream whenever it is told to."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def watch(self, reader: object, callback: Callable[[], None]) -> object:
        self.callbacks.append(callback)
        return self

    def unwatch(self, watch: object, callback: Callable[[], None]) -> None:
        self.callbacks.remove(callback)

    async def ring(self) -> None:
        for callback in self.callbacks:
            callback()
        for _ in range(3):
            await asyncio.sleep(0)


def key(dts_us: int, *, is_key: bool = True) -> Packet:
    return Packet(0, dts_us, 0, is_key, b"picture")


def test_a_key_that_is_not_there_yet() -> None:
    async def work() -> None:
        stream, watches = FakeStream("live", [H264_TRACK]), Watches()
        services: Any = SimpleNamespace(fanout=watches)
        choice: Any = Choice(stream.reader(), [0], lambda states: [0])  # type: ignore[arg-type]
        stream.write(key(0))
        await wait_fresh_key(services, {}, choice)
        waiting = asyncio.ensure_future(wait_fresh_key(services, {"waitkey": ""}, choice))
        await watches.ring()
        stream.write(key(40_000, is_key=False))
        await watches.ring()
        assert not waiting.done()
        stream.write(key(80_000))
        await watches.ring()
        assert waiting.done() and not watches.callbacks
        waiting = asyncio.ensure_future(wait_fresh_key(services, {"waitkey": ""}, choice))
        await watches.ring()
        stream.set_status(StreamStatus.SHUTDOWN)
        await watches.ring()
        with pytest.raises(NoSuitableTrack, match="ended before another keyframe"):
            await waiting

    asyncio.run(work())


@pytest.mark.parametrize(("query", "wanted"), [("", [1]), ("unmask", [0, 1])])
def test_hidden_tracks(query: str, wanted: list[int]) -> None:
    """A track that only viewers are to see is not pushed, unless that is asked for."""
    _, given = parse_target(f"rtmp://host/app/key?{query}")
    reader: Any = SimpleNamespace(live=True)
    capability: Any = SimpleNamespace(codecs=((("H264",), ("AAC",)),), exceptions={})
    stream = FakeStream("live", [H264_TRACK, AAC_TRACK])
    states = stream.reader().tracks()
    states = [replace(states[0], valid_mask=1, next_sequence=9), replace(states[1], valid_mask=3, next_sequence=9)]
    assert selection(reader, parse_parameters({}), capability, "", tracks_mask(given))(states) == wanted


@pytest.mark.parametrize(
    ("sorting", "live_index", "file_index"),
    [("", 1, 0), ("id_lth", 0, 0), ("id_htl", 1, 1), ("bps_lth", 1, 1), ("bps_htl", 0, 0)],
)
def test_the_order_of_tracks_that_a_protocol_is_configured_with(sorting: str, live_index: int, file_index: int) -> None:
    """It decides which one a viewer gets who asks for none; other protocols keep theirs."""
    stream = FakeStream("live", [AAC_TRACK, AAC_TRACK])
    states = [replace(one, next_sequence=9) for one in stream.reader().tracks()]
    states[0] = replace(states[0], bytes_per_second=1000)
    capability: Any = SimpleNamespace(name="FLV", codecs=((("AAC",),),), exceptions={})
    entries = [
        {"connector": "TS", "default_track_sorting": "id_htl"},
        {"connector": "FLV", "default_track_sorting": sorting},
    ]
    services: Any = SimpleNamespace(config={"config": {"protocols": entries}})
    reader: Any = SimpleNamespace(live=False, name="live", tracks=lambda: states)
    choice = asyncio.run(choose_tracks(services, reader, parse_parameters({}), capability, ""))
    assert choice.indexes == choice.reselect(states) == [file_index]
    reader.live = True
    assert choice.reselect(states) == [live_index]


def test_parameters_do_not_stay_in_the_name() -> None:
    address, _ = parse_target("rtmp://host/app/key?" + "&".join(f"{name}=1" for name in sorted(PLAYBACK)) + "&theirs=2")
    assert address.stream == "key?theirs=2"


def test_connections_are_made_a_few_at_a_time() -> None:
    async def work() -> None:
        most = now = 0
        go_on = asyncio.Event()

        async def connect() -> None:
            nonlocal most, now
            async with turn():
                now += 1
                most = max(most, now)
                await go_on.wait()
                now -= 1

        tasks = [asyncio.ensure_future(connect()) for _ in range(3 * AT_ONCE)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert now == AT_ONCE
        tasks[0].cancel()  # lets another one begin
        for _ in range(10):
            await asyncio.sleep(0)
        assert now == AT_ONCE + 1, "the one that was cancelled did not count itself out"
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most == AT_ONCE + 1

    asyncio.run(work())
    asyncio.run(work())  # another loop has turns of its own
