"""What plays named pipes and endless answers of http servers, which files' paths and URLs may turn out to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from mist.errors import NotFound, TransportError, UnsupportedError
from mist.formats.containers import Container, by_file_name, by_first_bytes
from mist.formats.sniffing import SNIFF_BYTES
from mist.net.http_source import HttpReader
from mist.net.source_reader import path_of
from mist.stream.byte_source import play_bytes, silence_seconds
from mist.stream.services import InputServices
from mist.stream.state import StreamStatus

READ_BYTES: Final = 1 << 16
START_FAILURE: Final = "READ_START_FAILURE"

Read = Callable[[], Awaitable[bytes]]


async def _play(
    services: InputServices, name: str, containers: Sequence[Container], read: Read, silence_s: float | None
) -> int:
    """Play what can be read now, in the format of the name's suffix if that is among the containers, else of its first bytes.

    Returns how many packets that was.
    """
    head = await read()
    if not head:
        return 0
    container = containers[0] if len(containers) == 1 else by_file_name(path_of(name))
    if container not in containers:
        while len(head) < SNIFF_BYTES and (data := await read()):
            head += data
        container = by_first_bytes(head)
    if container is None or container not in containers:
        raise UnsupportedError(f"{name} is of no format that mist reads")
    return await play_bytes(services, name, container, read, silence_s, head)


# -- pipes ---------------------------------------------------------------------------------------------------------------


def _open_pipe(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(f"{path} cannot be opened: {error.strerror}", reason=START_FAILURE) from None


async def play_pipe(services: InputServices, path: str, containers: Sequence[Container]) -> None:
    """Play what one writer after another writes into a named pipe, until cancelled. Raises MistError."""
    kept = _open_pipe(path)  # so that a writer that comes between two others is not told that nobody reads
    try:
        while True:
            await _play_writer(services, path, containers)
            services.log.info("%s: the writer is gone; the next one is waited for", path)
            if services.publisher.table.status == StreamStatus.READY:
                services.publisher.set_status(StreamStatus.WAIT)
    finally:
        os.close(kept)


async def _play_writer(services: InputServices, path: str, containers: Sequence[Container]) -> None:
    """Play one writer. A descriptor that is opened anew has no end to tell of before a writer comes."""
    reader = asyncio.StreamReader(limit=READ_BYTES)
    file = os.fdopen(_open_pipe(path), "rb", buffering=0)
    transport, _ = await services.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        await _play(services, path, containers, lambda: reader.read(READ_BYTES), None)
    finally:
        transport.close()


# -- http ----------------------------------------------------------------------------------------------------------------


async def play_url(services: InputServices, url: str, containers: Sequence[Container]) -> None:
    """Play what a server sends, as it comes. Returns when that is complete; raises MistError."""
    reader = await asyncio.to_thread(HttpReader, url, tries=1)
    position = 0

    async def read() -> bytes:
        nonlocal position
        data = await asyncio.to_thread(reader.read, position, READ_BYTES)
        position += len(data)
        return data

    try:
        packets = await _play(services, reader.name, containers, read, silence_seconds(services))
    finally:
        reader.stop()
        reader.close()
    if not packets or not reader.says_its_end:
        raise TransportError(
            f"{reader.name}: the server closed the connection" + ("" if packets else ", without media")
        )
