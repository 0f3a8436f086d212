"""What RTMP connections ask of their process, in a few lines each, and a client session on a socket pair."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mist.core.packet import Packet
from mist.errors import MistError
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.tracks import TrackInfo


class FakeRecord:
    """A connection's record that only counts."""

    def __init__(self) -> None:
        self.down = self.up = 0
        self.position_us = 0
        self.stream = self.token = self.connector = ""
        self.closed = 0

    def set_host(self, host: str) -> None:
        """Addresses of viewers are not looked at."""

    def set_stream(self, stream: str) -> None:
        self.stream = stream

    def set_connector(self, connector: str) -> None:
        self.connector = connector

    def set_token(self, token: str) -> None:
        self.token = token

    def add_bytes(self, down: int, up: int) -> None:
        self.down += down
        self.up += up

    def set_position(self, media_us: int) -> None:
        self.position_us = media_us

    def close(self) -> None:
        self.closed += 1


class FakePublisher:
    """A stream publisher that keeps what it is given."""

    def __init__(self, tracks: Mapping[int, TrackInfo] | None = None, last_us: int | None = None) -> None:
        self._tracks = dict(tracks or {})
        self._last_us = last_us
        self.packets: list[Packet] = []
        self.discontinuities = 0

    @property
    def tracks(self) -> dict[int, TrackInfo]:
        return dict(self._tracks)

    def last_us(self) -> int | None:
        return self._last_us

    def add_track(self, info: TrackInfo) -> int:
        index = max(self._tracks, default=-1) + 1
        self._tracks[index] = info
        return index

    def update_track(self, index: int, info: TrackInfo) -> None:
        self._tracks[index] = info

    def remove_track(self, index: int) -> None:
        del self._tracks[index]

    def packet_counts(self) -> dict[int, int]:
        return {index: sum(packet.track == index for packet in self.packets) for index in self._tracks}

    def mark_discontinuity(self) -> None:
        self.discontinuities += 1

    def write(self, packet: Packet) -> None:
        assert packet.track in self._tracks
        self.packets.append(packet)


@dataclass
class FakeInputServices:
    """What an input process gives to the RTMP input."""

    loop: asyncio.AbstractEventLoop
    fd: int
    state: bytes
    ring: int = -1
    on_yield: Callable[[], None] | None = None
    ahead: Any = None
    publisher: Any = field(default_factory=FakePublisher)
    request: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    record: FakeRecord = field(default_factory=FakeRecord)
    instance: str = "test"
    stream: str = "live"
    source: str = "push://"
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tests.rtmp"))


HandOver = Callable[[int, Mapping[str, Any], bytes], Awaitable[None]]


@dataclass
class FakeOutputServices:
    """What a worker gives to an RTMP connection; publishers go to `hand_over`, which may raise."""

    loop: asyncio.AbstractEventLoop
    config: dict[str, Any]
    hand_over: HandOver
    records: list[FakeRecord] = field(default_factory=list)
    instance: str = "test"
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("tests.rtmp"))
    fanout: Any = None

    def open_record(self, connector: str, host: str) -> FakeRecord:
        record = FakeRecord()
        record.set_connector(connector)
        self.records.append(record)
        return record

    guarded = False

    async def admit(self, stream: str, host: str, token: str, connector: str, url: str) -> None:
        """Let everybody watch."""

    def visit(self, record: Any) -> None:
        return None

    async def open_stream(self, name: str) -> Any:
        raise MistError(f"no stream {name}")

    def close_stream(self, reader: Any) -> None:
        raise AssertionError("nothing was opened")

    async def hand_over_publisher(self, fd: int, request: Mapping[str, Any], state: bytes) -> None:
        await self.hand_over(fd, request, state)


class ClientOnLoop:
    """A client session on a non-blocking socket of the running loop."""

    def __init__(self, sock: socket.socket, *, publish: bool, stream: str = "live", app: str = "live") -> None:
        sock.setblocking(False)
        self.socket = sock
        self.loop = asyncio.get_running_loop()
        self.session = ClientSession(
            app=app, stream=stream, tc_url="rtmp://h/live", publish=publish, entropy=os.urandom, now=time.monotonic()
        )
        self.events: list[m.Event] = []
        self.closed = False

    async def until(self, kind: type[Any], timeout_s: float = 5.0) -> Any:
        """Talk until an event of a type comes; return it."""
        async with asyncio.timeout(timeout_s):
            while True:
                await self.flush()
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await self.hear()

    async def until_closed(self, timeout_s: float = 5.0) -> None:
        """Hear out the server to the end of the connection."""
        async with asyncio.timeout(timeout_s):
            while not self.closed:
                await self.hear()

    async def hear(self) -> None:
        data = await self.loop.sock_recv(self.socket, 65536)
        self.closed = not data
        if self.closed:
            return
        self.events += self.session.feed(data, time.monotonic())

    async def flush(self) -> None:
        output = self.session.take_output()
        if output:
            await self.loop.sock_sendall(self.socket, output)
