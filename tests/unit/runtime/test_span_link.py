"""Asking an input for spans over its socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mist.errors import MistError, NotFound, TransportError
from mist.runtime.instance import Instance
from mist.runtime.span_link import SpanClient, SpanServer, socket_path
from tests.support.shared_memory import shared_instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    with shared_instance() as name:
        made = Instance(name, tmp_path)
        made.spans.mkdir(parents=True)
        yield made


def memory(text: bytes) -> int:
    fd = os.memfd_create("test")
    os.write(fd, text)
    return fd


async def answer(number: int) -> tuple[int, Mapping[str, Any]]:
    if number < 0:
        raise NotFound(f"no span {number}")
    return kept[number], {"tracks": f"of {number}"}


kept: dict[int, int] = {}


def run(work: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 10))  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_leaks")
def test_spans_travel_as_descriptors(instance: Instance) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = SpanServer(instance, loop, answer)
        client = SpanClient(instance, loop, os.getpid)
        kept.update({number: memory(b"span %d" % number) for number in range(3)})
        found = await asyncio.gather(*(client.fetch({"span": number}) for number in (2, 0, 1, 2)))
        assert [os.pread(fd, 100, 0) for fd, _ in found] == [b"span 2", b"span 0", b"span 1", b"span 2"]
        assert [note["tracks"] for _, note in found] == ["of 2", "of 0", "of 1", "of 2"]
        with pytest.raises(NotFound, match="no span -1"):
            await client.fetch({"span": -1})
        for fd, _ in found:
            os.close(fd)
        for fd in kept.values():
            os.close(fd)
        client.close()
        server.close()
        assert not Path(socket_path(instance, os.getpid())).exists()

    run(work())


def test_without_an_input_there_is_a_transport_error(instance: Instance) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        client = SpanClient(instance, loop, lambda: 1)
        assert not client.listens()
        with pytest.raises(TransportError, match="not there"):
            await client.fetch({"span": 0})
        client.close()

    run(work())


def test_an_input_that_goes_away_fails_what_waits_and_its_successor_is_found(instance: Instance) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = SpanServer(instance, loop, answer)
        client = SpanClient(instance, loop, os.getpid)
        kept[0] = memory(b"x")
        os.close((await client.fetch({"span": 0}))[0])
        waiting = asyncio.ensure_future(client.fetch({"span": 0}))
        server.close()
        with pytest.raises(TransportError):
            await waiting
        server = SpanServer(instance, loop, answer)
        assert client.listens()
        fd, _ = await client.fetch({"span": 0})
        assert os.pread(fd, 10, 0) == b"x"
        os.close(fd)
        os.close(kept.pop(0))
        client.close()
        server.close()

    run(work())


def test_an_unknown_error_is_still_a_mist_error(instance: Instance) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()

        async def refuse(number: int) -> tuple[int, Mapping[str, Any]]:
            raise MistError("it is broken", reason="READ_FAILURE")

        server = SpanServer(instance, loop, refuse)
        client = SpanClient(instance, loop, os.getpid)
        with pytest.raises(MistError, match="broken"):
            await client.fetch({"span": 0})
        client.close()
        server.close()

    run(work())
