"""The DTSC input: what a source is, and how the times and tracks of one connection continue those of the one before."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mist.errors import ConfigError, MistError, PeerClosed, RemoteProtocolError, TransportError
from mist.formats.dtsc_session import ListenerSession, ReceivingSession
from mist.inputs.dtsc import INPUT, MAX_OVERLAP_US, Intake, KeyIntervals, Source
from mist.stream.publisher import StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus
from tests.support.dtsc_peer import command, media, packet, write_value
from tests.support.rtmp_fakes import FakeRecord
from tests.support.shared_memory import make_publisher, shared_instance

PICTURE = {"trackid": 1, "type": "video", "codec": "VP8", "init": b"", "width": 64, "height": 64, "fpks": 25000}
SOUND = {"trackid": 2, "type": "audio", "codec": "MP3", "init": b"", "rate": 48000, "channels": 2, "size": 16}
ZERO_MS = 1_700_000_000_000


@dataclass
class Services:
    """What an input is given, around a publisher in real shared memory."""

    publisher: StreamPublisher
    loop: Any = None
    fd: int = -1
    state: bytes = b""
    source: str = ""
    stream: str = "live"
    config: dict[str, Any] = field(default_factory=dict)
    record: FakeRecord = field(default_factory=FakeRecord)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tests.dtsc"))
    request: dict[str, Any] = field(default_factory=dict)
    instance: str = "test"
    ring: int = -1
    on_yield: Any = None
    ahead: Any = None


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with shared_instance() as instance:
        publisher = make_publisher(instance, tmp_path)
        yield Services(publisher, instance=instance)


def header(*tracks: dict[str, Any], zero_ms: int = ZERO_MS) -> bytes:
    members: dict[str, Any] = {"live": 1, "version": 4}
    members |= {"unixzero": zero_ms} if zero_ms else {}
    members["tracks"] = {f"track_{n}": track for n, track in enumerate(tracks)}
    return packet(b"DTSC", write_value(members))


def pictures(*times_ms: int) -> bytes:
    return b"".join(media(1, ms, b"\x9d\x01\x2a" + ms.to_bytes(4, "big"), key=ms % 1000 == 0) for ms in times_ms)


def sounds(*times_ms: int) -> bytes:
    return b"".join(media(2, ms, b"\xff\xfb" + ms.to_bytes(4, "big")) for ms in times_ms)


def receive(services: Services, *pieces: bytes) -> Intake:
    """Let one connection bring these bytes."""
    session = ReceivingSession.play("live", "test", {})
    intake = Intake(services, session)  # type: ignore[arg-type]
    for piece in pieces:
        session.feed(piece, 0.0)
        intake.take_packets()
    return intake


def written(services: Services, index: int) -> list[int]:
    """Return the times, ms, of a track's packets."""
    reader = StreamReader(services.instance, "live")
    return [one.dts_us // 1000 for one in reader.packets(index, 0, 1 << 40)]


# -- sources


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("dtsc://host", ("host", 4200, "own")),
        ("dtsc://host:99/", ("host", 99, "own")),
        ("dtsc://user:secret@host/Other Stream?x", ("host", 4200, "other+Stream")),
        ("dtsc://[::1]:5/a%20b", ("::1", 5, "a+b")),
    ],
)
def test_sources(url: str, expected: tuple[str, int, str]) -> None:
    source = Source.parse(url, "own")
    assert (source.host, source.port, source.stream) == expected
    assert source.tls is None


def test_source_parameters_and_tls() -> None:
    source = Source.parse("dtscs://h/s?sync=1&video=h264&verify=0", "own")
    assert source.parameters == {"sync": "1", "video": "h264"}
    assert source.tls is not None and source.tls.verify_mode == ssl.CERT_NONE
    checked = Source.parse("dtscs://h/s", "own").tls
    assert checked is not None and checked.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("url", ["dtsc://", "dtsc:///stream", "dtsc://h:99999/", "dtsc://h:x/"])
def test_broken_sources(url: str) -> None:
    with pytest.raises(ConfigError):
        Source.parse(url, "own")


# -- one connection


def test_times_payloads_and_wall_clock_stay(services: Services) -> None:
    receive(services, header(PICTURE, SOUND), pictures(5000, 5040), sounds(5005, 5005))
    assert written(services, 0) == [5000, 5040]
    assert services.publisher.wall_clock_us == ZERO_MS * 1000
    assert services.publisher.table.status == StreamStatus.READY
    first, second = services.publisher.tracks.values()
    assert (first.codec, first.width, second.codec, second.sample_rate_hz) == ("VP8", 64, "MP3", 48000)


def test_a_stream_without_wall_clock(services: Services) -> None:
    receive(services, header(PICTURE, zero_ms=0), pictures(0))
    assert abs(services.publisher.wall_clock_us / 1e6 - time.time()) < 5


def test_tracks_come_change_and_go(services: Services) -> None:
    changed = PICTURE | {"width": 128}
    receive(services, header(PICTURE), pictures(0), header(changed, SOUND), pictures(40), sounds(45))
    tracks = services.publisher.tracks
    assert [one.codec for one in tracks.values()] == ["VP8", "MP3"]
    assert tracks[0].width == 128
    receive(services, header(PICTURE, SOUND), command("reset"), header(SOUND))
    assert [one.codec for one in services.publisher.tracks.values()] == ["MP3"]


def test_the_wall_clock_may_change(services: Services) -> None:
    receive(services, header(PICTURE), pictures(0), header(zero_ms=ZERO_MS + 7000), pictures(40))
    assert services.publisher.wall_clock_us == (ZERO_MS + 7000) * 1000
    assert written(services, 0) == [0, 40]


def test_init_data_that_the_header_lacks_is_looked_for(services: Services) -> None:
    picture = PICTURE | {"codec": "VP9", "width": 0, "height": 0}
    keyframe = bytes.fromhex("82498342 0013f00b 3600")
    receive(services, header(picture), media(1, 0, b"\x86\x00", key=False), media(1, 40, keyframe, key=True))
    (track,) = services.publisher.tracks.values()
    assert (track.width, track.height) == (320, 180)
    assert track.init_data != b""


# -- the next connection


def test_a_long_keyframe_interval_is_asked_about_once() -> None:
    keys = KeyIntervals()
    times_ms = (0, 1000, 2000, 4000, 6500, 7500, 8500, 9500, 14_500, 14_500)
    assert [keys.doubtful(ms * 1000) for ms in times_ms] == [0, 0, 0, 0, 2_500_000, 0, 0, 0, 5_000_000, 0]


def test_only_the_sender_of_a_pull_is_asked_about_keyframes(services: Services) -> None:
    session = ReceivingSession.play("live", "test", {})
    intake = Intake(services, session)  # type: ignore[arg-type]
    session.take_output()
    session.feed(header(PICTURE, SOUND) + pictures(0, 1000, 2000, 5000), 0.0)
    intake.take_packets()
    assert session.take_output() == command("check_key_duration", duration=3000, id=1)
    session.feed(pictures(6000, 7000), 0.0)
    intake.take_packets()
    assert not session.take_output()


def test_what_was_there_already_is_not_written_again(services: Services) -> None:
    receive(services, header(PICTURE, SOUND), pictures(0, 40, 80), sounds(5, 45))
    receive(services, header(PICTURE, SOUND), pictures(0, 40, 80, 120), sounds(5, 45, 85))
    assert written(services, 0) == [0, 40, 80, 120]
    assert written(services, 1) == [5, 45, 85]
    assert len(services.publisher.tracks) == 2


def test_a_gap_is_kept(services: Services) -> None:
    receive(services, header(PICTURE), pictures(0, 40))
    receive(services, header(PICTURE), pictures(9000, 9040))
    assert written(services, 0) == [0, 40, 9000, 9040]


def test_another_time_base_is_brought_to_ours_by_the_wall_clock(services: Services) -> None:
    """The source restarted 20 s of real time after its first beginning: its new zero is our 20 s."""
    receive(services, header(PICTURE), pictures(0, 40))
    receive(services, header(PICTURE, zero_ms=ZERO_MS + 20_000), pictures(0, 40))
    assert written(services, 0) == [0, 40, 20_000, 20_040]
    assert services.publisher.wall_clock_us == ZERO_MS * 1000
    receive(services, header(PICTURE, zero_ms=ZERO_MS + 20_000), pictures(0, 40, 80))
    assert written(services, 0) == [0, 40, 20_000, 20_040, 20_080]


@pytest.mark.parametrize("zero_ms", [ZERO_MS + 10**9, ZERO_MS - MAX_OVERLAP_US // 1000 - 100_000])
def test_clocks_that_say_nonsense(services: Services, zero_ms: int) -> None:
    """Times go on right behind the last packet."""
    receive(services, header(PICTURE), pictures(0, 40))
    receive(services, header(PICTURE, zero_ms=zero_ms), pictures(7000, 7040))
    times = written(services, 0)
    assert times[:2] == [0, 40] and 40 < times[2] < 200 and times[3] == times[2] + 40


def test_no_clock_and_times_that_go_on(services: Services) -> None:
    receive(services, header(PICTURE, zero_ms=0), pictures(0, 40))
    receive(services, header(PICTURE, zero_ms=0), pictures(7000))
    receive(services, header(PICTURE, zero_ms=0), pictures(0))
    assert written(services, 0) == [0, 40, 7000, 7040]


def test_the_state_returns_with_the_media(services: Services) -> None:
    receive(services, header(PICTURE), pictures(0))
    services.publisher.set_status(StreamStatus.WAIT)
    receive(services, header(PICTURE), pictures(0, 40))
    assert services.publisher.table.status == StreamStatus.READY


# -- pushes


def run(
    services: Services, work: Callable[[socket.socket, asyncio.Task[None]], Awaitable[None]], first: bytes = b""
) -> None:
    """Serve a pusher on a socket pair."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        listener = ListenerSession("", "", 0.0)
        listener.feed(command("push", stream="live") + first, 0.0)
        services.loop = asyncio.get_running_loop()
        services.fd, services.state = theirs.detach(), listener.export_state()
        task: asyncio.Task[None] = asyncio.ensure_future(INPUT.run(services))  # type: ignore[arg-type]
        try:
            await work(ours, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            ours.close()

    asyncio.run(main())


async def hear(sock: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, 65536)


def test_a_push_is_written_and_acknowledged(services: Services) -> None:
    async def work(sock: socket.socket, task: asyncio.Task[None]) -> None:
        assert b"accepted" in await hear(sock)
        await services.loop.sock_sendall(sock, pictures(40, 80))
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(PeerClosed):
            await task

    run(services, work, header(PICTURE) + pictures(0))
    assert written(services, 0) == [0, 40, 80]
    assert services.record.up > 0


def test_a_pusher_that_breaks_the_rules_hears_why(services: Services) -> None:
    async def work(sock: socket.socket, task: asyncio.Task[None]) -> None:
        with pytest.raises(RemoteProtocolError):
            await task
        assert b"error" in await hear(sock)

    run(services, work, pictures(0))


def test_a_silent_pusher(services: Services) -> None:
    services.config["inputtimeout"] = 0.05

    async def work(sock: socket.socket, task: asyncio.Task[None]) -> None:
        with pytest.raises(TransportError, match="nothing for"):
            await task

    run(services, work)


def test_a_pusher_that_says_why_it_ends(services: Services) -> None:
    async def work(sock: socket.socket, task: asyncio.Task[None]) -> None:
        await services.loop.sock_sendall(sock, command("error", msg="going home"))
        with pytest.raises(MistError, match="going home"):
            await task

    run(services, work)


def test_a_stream_that_is_stopped_tells_its_pusher(services: Services) -> None:
    async def work(sock: socket.socket, task: asyncio.Task[None]) -> None:
        await hear(sock)
        task.cancel()
        assert b"another publisher" in await hear(sock)

    run(services, work)
