"""A demuxer and the file that it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mist.core.demuxer import Demuxer
from mist.core.muxer import Muxer
from mist.errors import RemoteProtocolError
from mist.formats.containers import Container
from mist.net.local_file import LocalFile
from mist.net.remote_file import RemoteFile
from mist.stream.side_texts import SideTexts

MAX_START_BYTES: Final = 64 << 20  # read until the tracks are known
PIECE_BYTES: Final = 16 << 10  # fed at a time until then: whoever follows the tracks from there on misses little


class FileDemuxer:
    """A demuxer that is driven through a file; its errors name file and byte."""

    def __init__(self, file: LocalFile | RemoteFile, container: Container, model: FileDemuxer | None = None) -> None:
        """Begin; `start` must follow. model: another one of the same file, whose tables are shared if its format has any."""
        assert container.make_demuxer is not None
        self.file = file
        self.read_bytes = 0
        share: Callable[[], Demuxer] | None = getattr(model and model.media, "share", None)
        self.media: Demuxer = share() if share is not None else container.make_demuxer()
        self.media.from_places = True
        self.demuxer: Demuxer = self.media
        if hasattr(self.media, "size"):
            self.media.size = file.size

    async def start(self, texts: SideTexts) -> None:
        """Read until the tracks are known. texts: subtitles beside the file. Raises RemoteProtocolError, MistError."""
        while not self.media.ready and self.read_bytes < MAX_START_BYTES and await self.step():
            pass
        if not self.media.ready or not self.media.tracks:
            raise RemoteProtocolError(f"{self.file.path} has no tracks that mist can read", offset=self.read_bytes)
        self.demuxer = texts.around(self.media)

    def index_into(self, sink: Muxer) -> None:
        """Write the packets into an index: without payload, which is not read then, in formats that have tables of their own."""
        index_into: Callable[[Muxer], None] = getattr(self.demuxer, "index_into", self.demuxer.attach)
        index_into(sink)

    async def step(self, most: int = 0) -> bool:
        """Feed one piece, of at most so many bytes (0 for any); False when nothing more is wanted."""
        wanted = self.demuxer.want()
        if wanted is None:
            return False
        position, count = wanted
        if most:
            count = min(count, most)
        try:
            data = await read_from(self.file, position, count)
            self.read_bytes += len(data)
            self._feed(position, data)
        except RemoteProtocolError as error:
            place = error.offset if error.offset is not None else position
            if self.file.size is not None:
                place = min(place, self.file.size)  # where something ends that goes past the end
            raise type(error)(
                f"{self.file.path}, byte {place}: {error}", offset=place, spec=error.spec, reason=error.reason
            ) from None
        return True

    def _feed(self, position: int, data: bytes) -> None:
        """Feed what was read; of what makes the tracks known only the beginning, up to where they are."""
        if self.media.ready or getattr(self.media, "wants_rest_of_box", False):
            self.demuxer.feed(data)
            return
        at = 0
        while True:
            self.demuxer.feed(data[at : at + PIECE_BYTES])
            at += PIECE_BYTES
            wanted = self.demuxer.want()
            if at >= len(data) or self.media.ready or wanted is None or wanted[0] != position + at:
                break


async def read_from(file: LocalFile | RemoteFile, position: int, count: int) -> bytes:
    """Return bytes of a file; what a network may take its time for is waited for in a thread."""
    if file.waits:
        return await asyncio.to_thread(file.read, position, count)
    return file.read(position, count)
