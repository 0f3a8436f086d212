"""The RTMP input: a publisher on one end of a socket pair, a stream that keeps what it gets on the other."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mist.core.flv import serialize_frame, serialize_init
from mist.core.nal import join_length_prefixed
from mist.core.packet import Packet
from mist.errors import MistError, PeerClosed, RemoteProtocolError, TransportError
from mist.formats import amf
from mist.formats.h264 import build_avcc
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.server import ServerSession, State
from mist.formats.tracks import AAC, AUDIO, H264, JSON, VIDEO, TrackInfo
from mist.inputs import rtmp
from mist.inputs.rtmp import INPUT
from tests.support.rtmp_fakes import ClientOnLoop, FakeInputServices, FakePublisher

SPS = bytes.fromhex("6742c01fd9005005bb0110000003001000000303c0f1832480")
PPS = bytes.fromhex("68cb83cb20")
AVC = TrackInfo(VIDEO, H264, build_avcc([SPS], [PPS]))
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90")
PICTURE = join_length_prefixed([b"\x65" + bytes(20)])


class Publishing:
    """A publisher whose session was handed over to the input under test."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    async def __aenter__(self) -> Publishing:
        ours, theirs = socket.socketpair()
        self.client = ClientOnLoop(ours, publish=True)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        session = ServerSession(os.urandom, time.monotonic())
        while session.state is not State.PUBLISH_REQUESTED:
            await self.client.flush()
            session.feed(await loop.sock_recv(theirs, 65536), time.monotonic())
            await loop.sock_sendall(theirs, session.take_output())
            if session.state is not State.PUBLISH_REQUESTED:
                await self.client.hear()
        self.services = FakeInputServices(loop, theirs.detach(), session.export_state(), **self.options)
        self.publisher: FakePublisher = self.services.publisher
        self.task = asyncio.ensure_future(INPUT.run(self.services))
        await self.client.until(m.Started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.socket.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def send(self, track: TrackInfo, *times_ms: int) -> None:
        for time_ms in times_ms:
            packet = Packet(0, 0, 0, True, PICTURE if track.type == VIDEO else b"\x21")
            kind = m.VIDEO if track.type == VIDEO else m.AUDIO
            self.client.session.send_media(kind, time_ms, serialize_frame(track, packet))
        await self.client.flush()

    async def setup(self, track: TrackInfo) -> None:
        kind = m.VIDEO if track.type == VIDEO else m.AUDIO
        self.client.session.send_media(kind, 0, serialize_init(track))
        await self.client.flush()

    async def packets(self, count: int) -> list[tuple[int, int]]:
        async with asyncio.timeout(5):
            while len(self.publisher.packets) < count:
                await asyncio.sleep(0)
        return [(packet.track, packet.dts_us // 1000) for packet in self.publisher.packets]


def run(work: Callable[[Publishing], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with Publishing(**options) as publishing:
            await work(publishing)

    asyncio.run(main())


def test_publish_to_the_end() -> None:
    async def work(p: Publishing) -> None:
        p.client.session.send_metadata({"framerate": 25.0, "videodatarate": 1000})
        await p.setup(AVC)
        await p.setup(STEREO)
        await p.send(AVC, 0, 40)
        await p.send(STEREO, 10)
        assert await p.packets(3) == [(0, 0), (0, 40), (1, 10)]
        video, audio = p.publisher.tracks.values()
        assert (video.width, video.frame_rate_mhz, audio.channels) == (1280, 25_000, 2)
        assert p.services.record.up > 100 and p.services.record.position_us == 10_000
        p.client.session.close()
        await p.client.flush()
        await p.client.until(m.StreamEnded)
        assert await p.task is None
        await p.client.until_closed()

    run(work)


def test_language_and_offset_of_the_url() -> None:
    async def work(p: Publishing) -> None:
        await p.setup(STEREO)
        await p.send(STEREO, 100)
        assert await p.packets(1) == [(0, 600)]
        assert p.publisher.tracks[0].language == "deu"

    run(work, request={"query": "lang=de&timeoffset=500"})


def test_a_publisher_that_returns_goes_on_with_the_tracks_that_are_there() -> None:
    left = {3: STEREO.changed(track_id=2), 5: AVC.changed(track_id=1), 6: TrackInfo(AUDIO, "MP3")}
    publisher = FakePublisher(left, last_us=60_000_000)

    async def work(p: Publishing) -> None:
        await p.setup(AVC)
        await p.setup(STEREO)
        await p.send(AVC, 0, 40)
        await p.send(STEREO, 0)
        assert await p.packets(3) == [(5, 60_040), (5, 60_080), (3, 60_040)]
        assert publisher.discontinuities == 1 and sorted(publisher.tracks) == [3, 5, 6]

    run(work, publisher=publisher)


def test_times_that_jump_are_repaired_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def work(p: Publishing) -> None:
        await p.setup(AVC)
        await p.send(AVC, 90_000, 90_040, 0, 40)
        assert await p.packets(4) == [(0, 90_000), (0, 90_040), (0, 90_080), (0, 90_120)]

    run(work)
    assert len([record for record in caplog.records if "times jumped back" in record.message]) == 1


def test_times_that_wrap_go_on() -> None:
    async def work(p: Publishing) -> None:
        await p.setup(AVC)
        base = 0xFFFE0000
        await p.send(AVC, base, base + 0x1FFF0, base + 0x20010)
        times = [time for _, time in await p.packets(3)]
        assert [time - times[0] for time in times] == [0, 0x1FFF0, 0x20010]

    run(work)


def test_documents_without_media_come_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that sends nothing else for now is played as well; what comes later is never held."""
    monkeypatch.setattr(rtmp, "EARLY_DATA_SECONDS", 0.0)

    async def work(p: Publishing) -> None:
        body = amf.encode("onTextData", {"text": "alone"})
        p.client.session.send_media(m.DATA_AMF0, 40, body)
        await p.client.flush()
        assert await p.packets(1) == [(0, 40)]
        assert [info.codec for info in p.publisher.tracks.values()] == [JSON]
        assert p.publisher.packets[0].payload == b'["onTextData",{"text":"alone"}]'
        await p.setup(AVC)
        await p.send(AVC, 80)
        assert await p.packets(2) == [(0, 40), (1, 80)]

    run(work)


def test_a_publisher_that_vanishes() -> None:
    async def work(p: Publishing) -> None:
        p.client.socket.close()
        with pytest.raises(PeerClosed):
            await p.task

    run(work)


def test_a_silent_publisher_ends() -> None:
    async def work(p: Publishing) -> None:
        with pytest.raises(TransportError) as caught:
            await p.task
        assert caught.value.reason == "CLEAN_INACTIVE"
        await p.client.until(m.Refused)

    run(work, config={"inputtimeout": 0.05})


def test_nonsense_ends_the_publisher() -> None:
    async def work(p: Publishing) -> None:
        await p.client.loop.sock_sendall(p.client.socket, b"\x83" + bytes(100))
        with pytest.raises(RemoteProtocolError):
            await p.task
        await p.client.until_closed()

    run(work)


def test_being_replaced_is_said() -> None:
    async def work(p: Publishing) -> None:
        p.task.cancel()
        await p.client.until(m.Refused)
        with pytest.raises(asyncio.CancelledError):
            await p.task

    run(work)


def test_errors_of_the_stream_end_the_publisher() -> None:
    class Full(FakePublisher):
        def write(self, packet: Packet) -> None:
            raise MistError("full", reason="OUT_OF_MEMORY")

    async def work(p: Publishing) -> None:
        await p.setup(AVC)
        await p.send(AVC, 0)
        with pytest.raises(MistError, match="full"):
            await p.task

    run(work, publisher=Full())
