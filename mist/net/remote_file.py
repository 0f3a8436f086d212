"""Files on http(s) servers and in S3 stores as sources of on-demand streams: read in any order, looked after, and kept as far as wanted."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from mist.errors import MistError, RemoteProtocolError, TransportError, UnsupportedError
from mist.net.block_file import BLOCK_BYTES, SUFFIX, BlockFile
from mist.net.http_source import HttpReader
from mist.net.source_reader import SOURCE_CHANGED, SourceReader

STALL_S: Final = 4.0  # five tries are over before a viewer's request is
CHECK_SECONDS: Final = 10.0  # how often the server is asked whether the file is still the same
MAX_SPOOLED_BYTES: Final = 8 << 30  # of a file on a server without ranges, which is fetched whole
GONE: Final = frozenset({"HTTP_403", "HTTP_404", "HTTP_410"})


class Endless(UnsupportedError):
    """The server does not say how long what it sends is: it cannot be played on demand, but as it comes."""


class RemoteFile(SourceReader):
    """One file on a server, with a connection of its own.

    path: its URL without a password. identity: as `LocalFile` has it. modified_ns: when it was written last, as far as the server says.
    lasting: the server says enough to tell this file from another one later.
    """

    waits = True

    def __init__(self, url: str, blocks: Callable[[str, int], BlockFile] | None = None) -> None:
        """Ask for the file. Raises TransportError, UnsupportedError.

        blocks: returns where blocks are kept, for a name and a size; None: nowhere, unless the server answers no ranges.
        """
        self._url = url
        reader = HttpReader(url, stall_s=STALL_S)
        self._reader: HttpReader | None = reader
        self._stopped = False
        self._lock = threading.Lock()
        self.name = self.path = reader.name
        tag, modified = self._validators = reader.validators
        try:
            self.modified_ns = round(parsedate_to_datetime(modified).timestamp() * 1e9) if modified else 0
        except ValueError:
            self.modified_ns = 0
        self.lasting = bool(tag or modified)
        self.can_jump = reader.can_jump
        if reader.size is None:
            reader.close()
            raise Endless(f"{self.path}: the server does not say how long it is, so it cannot be played on demand")
        self.size: int = reader.size
        self.identity = (zlib.crc32(repr(self._validators).encode()), self.size, self.modified_ns)
        self.blocks: BlockFile | None = None
        if blocks is not None and self.lasting:
            name = hashlib.sha256(repr((self.path, self._validators, self.size)).encode()).hexdigest()[:40]
            self.blocks = blocks(name + SUFFIX, self.size)
        elif not self.can_jump:
            if self.size > MAX_SPOOLED_BYTES:
                reader.close()
                raise UnsupportedError(f"{self.path}: the server answers no ranges, and it has {self.size} bytes")
            self.blocks = BlockFile(None, self.size, lambda _count: True)

    def another(self) -> RemoteFile:
        """Return the same file with another connection, which is made when it is needed; the blocks are shared.

        On a server without ranges the connection is shared as well: what one has fetched, the other need not.
        """
        copy = object.__new__(RemoteFile)
        copy.__dict__.update(self.__dict__)
        if self.can_jump:
            copy._reader = None
            copy._lock = threading.Lock()
        return copy

    def read(self, position: int, count: int) -> bytes:
        """Return bytes from a position."""
        if position >= self.size:
            return b""
        if self.blocks is None:
            return self._fetch(position, count)
        with self._lock:
            return self.blocks.read(position, count) or self._read_block(position, count)

    def _read_block(self, position: int, count: int) -> bytes:
        """Fetch the block of a position; on a server without ranges the ones before it as well."""
        assert self.blocks is not None
        number, start = divmod(position, BLOCK_BYTES)
        reader = self._connected()
        for one in range(number if self.can_jump else min(reader.position // BLOCK_BYTES, number), number + 1):
            data = self._whole_block(one)
            if not self.blocks.write(one, data) and not self.can_jump:
                raise UnsupportedError(
                    f"the server answers no ranges, and there is no room to keep the file of {self.size} bytes",
                    offset=position,
                )
        return data[start : start + count]

    def _whole_block(self, number: int) -> bytes:
        assert self.blocks is not None
        data = bytearray()
        first, size = number * BLOCK_BYTES, self.blocks.block_bytes(number)
        while len(data) < size:
            piece = self._fetch(first + len(data), size - len(data))
            if not piece:
                raise RemoteProtocolError(f"the file ends here, before its {self.size} bytes", offset=first + len(data))
            data += piece
        return bytes(data)

    def _connected(self) -> HttpReader:
        if self._stopped:
            raise TransportError(f"{self.path}: it is not read any more")
        if self._reader is None:
            self._reader = HttpReader(self._url, stall_s=STALL_S)
            if self._reader.validators != self._validators or self._reader.size != self.size:
                raise RemoteProtocolError("the file changed on the server", offset=0, reason=SOURCE_CHANGED)
        return self._reader

    def _fetch(self, position: int, count: int) -> bytes:
        return self._connected().read(position, count)

    def check(self, position: int) -> None:
        """Find nothing: every reply says of what file it is."""

    def changed(self, grows: bool = False) -> str:
        """Return what has become of the file since it was opened, "" when nothing has, or the server does not say.

        grows: a longer file is another one all the same, of which a server says nothing of what it has in common with this one.
        """
        try:
            now = HttpReader(self._url, stall_s=STALL_S)
            with now:
                if (now.validators, now.size) == (self._validators, self.size):
                    return ""
                return f"{self.path} has changed on the server"
        except TransportError as error:
            return f"{self.path} is gone: {error}" if error.reason in GONE else ""
        except MistError as error:
            return str(error)

    def stop(self) -> None:
        """End what another thread reads."""
        self._stopped = True
        if self._reader is not None:
            self._reader.stop()

    def close(self) -> None:
        """Close this connection. The blocks are closed with the object that opened them."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        if self.blocks is not None:
            self.blocks.close()


def cached_blocks(folder: Path, room: Callable[[int], bool]) -> Callable[[str, int], BlockFile]:
    """Return what makes the files of blocks in a folder. room: as `BlockFile` has it."""
    return lambda name, size: BlockFile(folder / name, size, room)
