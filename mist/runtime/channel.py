"""Messages between processes: JSON objects and descriptors over a SOCK_SEQPACKET socket.

A message that is too big for one datagram travels in a memory file whose descriptor comes first.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from errno import EAGAIN, ENOBUFS, ETOOMANYREFS
from typing import Any, Protocol

from mist.errors import LimitExceededError
from mist.runtime.process import own

log = logging.getLogger(__name__)

MAX_INLINE_BYTES = 32 * 1024
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_DESCRIPTORS = 128
RETRY_SECONDS = 0.01
MESSAGES_PER_WAKE = 64
_FAR = b'{"memory":1}'

Message = dict[str, Any]


class Loop(Protocol):
    """What a channel needs of an event loop: `Reactor` and asyncio's have it."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> Any: ...
    def add_writer(self, fd: int, callback: Callable[[], None], /) -> Any: ...
    def remove_reader(self, fd: int, /) -> Any: ...
    def remove_writer(self, fd: int, /) -> Any: ...
    def call_later(self, delay: float, callback: Callable[..., None], /) -> Any: ...


def memory_file(data: bytes) -> int:
    """Return the descriptor of a memory file with these contents."""
    fd = os.memfd_create("mist", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def read_memory_file(fd: int) -> bytes:
    """Return the contents of a memory file. Raises LimitExceededError."""
    size = os.fstat(fd).st_size
    if size > MAX_MESSAGE_BYTES:
        raise LimitExceededError(f"a message of {size} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    parts: list[bytes] = []
    position = 0
    while part := os.pread(fd, size - position, position):
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets for channels."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return own(one), own(other)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (process, user, group) of the process at the other end of a Unix socket."""
    layout = struct.Struct("3i")
    pid, uid, gid = layout.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return pid, uid, gid


def write_message(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message as far as the socket takes it at once. Raises OSError."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) <= MAX_INLINE_BYTES:
        if fds:
            socket.send_fds(sock, [data], fds, socket.MSG_NOSIGNAL)
        else:
            sock.send(data, socket.MSG_NOSIGNAL)
        return
    far = memory_file(data)
    try:
        socket.send_fds(sock, [_FAR], [far, *fds], socket.MSG_NOSIGNAL)
    finally:
        os.close(far)


def _descriptors(parts: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def read_message(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Receive one message and its descriptors, which the caller owns; None when the peer has closed. Raises OSError."""
    # `socket.recv_fds` has an argument for flags and does not use it: programs that are executed would get the descriptors.
    room = socket.CMSG_LEN(MAX_DESCRIPTORS * array("i").itemsize)
    data, parts, _, _ = sock.recvmsg(MAX_INLINE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(parts)
    if not data:
        return None
    if data == _FAR and fds:
        far = fds.pop(0)
        try:
            data = read_memory_file(far)
        finally:
            os.close(far)
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message between processes is not an object")
    return message, fds


class Channel:
    """One end of a connection between two processes of the server. Sending never blocks and never loses a message.

    peer: the key of the parent at the other end, under which a successor of it is found.
    """

    def __init__(self, sock: socket.socket, peer: str = "") -> None:
        sock.setblocking(False)
        self.socket = own(sock)
        self.peer = peer
        self._loop: Loop | None = None
        self._queue: deque[tuple[Mapping[str, Any], tuple[int, ...], tuple[int, ...]]] = deque()
        self._on_message: Callable[[Message, list[int]], None] = lambda message, fds: close_all(fds)
        self._on_closed: Callable[[], None] = lambda: None
        self._writing = False
        self.closed = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def attach(
        self, loop: Loop, on_message: Callable[[Message, list[int]], None], on_closed: Callable[[], None]
    ) -> None:
        """Begin to receive. on_message owns the descriptors it gets; on_closed is called once, when the peer is gone."""
        self._loop = loop
        self._on_message = on_message
        self._on_closed = on_closed
        if self.closed:  # what was sent before found nobody
            loop.call_later(0.0, on_closed)
            return
        loop.add_reader(self.socket.fileno(), self._readable)
        self._flush()

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = (), *, close: Sequence[int] = ()) -> None:
        """Send a message, now or when there is room. The descriptors stay open until then.

        close: descriptors that this channel closes after the message is sent or has become undeliverable.
        """
        if self.closed:
            close_all(close)
            return
        self._queue.append((message, tuple(fds), tuple(close)))
        if not self._writing:
            self._flush()

    @property
    def idle(self) -> bool:
        """Tell whether all that was sent has been handed to the kernel, or never can be."""
        return self.closed or not self._queue

    def _flush(self) -> None:
        while self._queue:
            message, fds, close = self._queue[0]
            try:
                write_message(self.socket, message, fds)
            except OSError as error:
                if error.errno in (EAGAIN, ENOBUFS):
                    self._wait_writable()
                elif error.errno == ETOOMANYREFS and self._loop is not None:
                    self._loop.call_later(RETRY_SECONDS, self._flush)
                elif self._loop is None:
                    self._lost()
                else:  # the peer has ended; what it said before is still to be read, and its end after that
                    self._drop_queue()
                return
            self._queue.popleft()
            close_all(close)
        if self._writing and self._loop is not None:
            self._writing = False
            self._loop.remove_writer(self.socket.fileno())

    def _wait_writable(self) -> None:
        if self._loop is not None and not self._writing:
            self._writing = True
            self._loop.add_writer(self.socket.fileno(), self._flush)

    def _readable(self) -> None:
        for _ in range(MESSAGES_PER_WAKE):
            if self.closed:
                return
            try:
                received = read_message(self.socket)
            except BlockingIOError:
                return
            except (
                ConnectionResetError
            ):  # told once, by a peer that ended with unread messages; what it said comes after
                continue
            except OSError:
                self._lost()
                return
            if received is None:
                self._lost()
                return
            self._on_message(*received)

    def drain(self) -> None:
        """Receive what a peer that has ended said last."""
        while not self.closed:
            try:
                received = read_message(self.socket)
            except ConnectionResetError:
                continue
            except OSError:
                return
            if received is None:
                return
            self._on_message(*received)

    def _lost(self) -> None:
        if not self.closed:
            self.close()
            self._on_closed()

    def close(self) -> None:
        """Close without calling back; what is still queued is dropped."""
        if self.closed:
            return
        self.closed = True
        if self._loop is not None:
            self._loop.remove_reader(self.socket.fileno())
        self._drop_queue()
        self.socket.close()

    def _drop_queue(self) -> None:
        if self._writing and self._loop is not None:
            self._writing = False
            self._loop.remove_writer(self.socket.fileno())
        for _, _, close in self._queue:
            close_all(close)
        self._queue.clear()


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
