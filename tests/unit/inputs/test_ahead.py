"""Connections that are made before it is a process's turn."""

from __future__ import annotations

import asyncio

import pytest

from mist.inputs.base import ahead as module
from mist.inputs.base.ahead import Ahead


class Successor(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.BaseTransport | None = None
        self.data = b""
        self.complete = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.data.endswith(b"end"):
            self.complete.set()


class Source:
    """A server that notes what it is asked, says one thing at once and the rest when it is told to."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.asked = b""
        self.peers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.read(100)
        self.peers.append(writer)
        writer.write(self.first)
        if not self.first:
            writer.close()

    def close(self) -> None:
        for writer in self.peers:
            writer.close()


async def run_with(source: Source, count: int) -> bytes:
    """Connect ahead, and let a successor go on; returns what it was given."""
    server = await asyncio.start_server(source.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        made = await Ahead.connect("127.0.0.1", port, None, b"please")
        if made is None:
            return b""
        successor = Successor()
        source.peers[0].write(b" and the rest" * count + b"end")
        made.hand_to(successor)
        await successor.complete.wait()
        source.close()
        made.close()
    return successor.data


@pytest.mark.parametrize("bound", [8 << 20, 4])
def test_what_came_before_is_not_lost(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", bound)
    source = Source(b"a header")
    assert asyncio.run(run_with(source, 50_000)) == b"a header" + b" and the rest" * 50_000 + b"end"
    assert source.asked == b"please"


def test_a_source_that_hangs_up_is_none() -> None:
    assert asyncio.run(run_with(Source(b""), 1)) == b""


def test_a_source_that_is_not_there_is_none() -> None:
    assert asyncio.run(Ahead.connect("127.0.0.1", 1, None, b"")) is None
