"""What the kernel has counted on a TCP connection: bytes that were taken from it and given to it, by whatever process.

Together with its queues these tell to the byte how far a process that was killed had come.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from typing import Final

_INFO_BYTES: Final = 136  # struct tcp_info up to tcpi_bytes_received, Linux 4.1
_BYTES_ACKED: Final = 120
_BYTES_RECEIVED: Final = 128
# States in which the peer's end of data has come, which the kernel counts as one more byte.
_ENDED_STATES: Final = frozenset({6, 8, 9, 11})
_TRIES: Final = 100


def waiting_bytes(fd: int) -> int:
    """Return how many bytes wait in a socket to be read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def has_hung_up(fd: int) -> bool:
    """Tell whether a socket's peer sends no more, whatever of it is still to be read."""
    waiting = select.poll()
    waiting.register(fd, select.POLLRDHUP)
    return bool(waiting.poll(0))


def received_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes were ever read from a TCP connection, or None for another kind of socket."""
    return _settled(sock, _BYTES_RECEIVED, termios.FIONREAD, -1)


def sent_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes were ever written to a TCP connection, or None for another kind of socket."""
    return _settled(sock, _BYTES_ACKED, termios.TIOCOUTQ, 1)


def _settled(sock: socket.socket, offset: int, queue: int, sign: int) -> int | None:
    """Return a counter with its queue's length added or taken off, read at a moment when neither moved."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    before, _ = _counter(sock, offset)
    for _ in range(_TRIES):
        length = struct.unpack("i", fcntl.ioctl(sock.fileno(), queue, bytes(4)))[0]
        after, state = _counter(sock, offset)
        if before == after:
            ended = offset == _BYTES_RECEIVED and state in _ENDED_STATES
            return int(after + sign * length - ended)
        before = after
    return None


def _counter(sock: socket.socket, offset: int) -> tuple[int, int]:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return struct.unpack_from("=Q", info, offset)[0], info[0]
