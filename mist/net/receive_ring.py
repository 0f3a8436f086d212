"""Memory that outlives an input: what its publisher sent since the parser's state was last written down, and that state.

The memory is a memfd whose descriptor the stream's guardian holds. Its one writer publishes with single words, so that whatever
instruction it is killed at, its replacement finds the words before or after: states and replies lie in two places each, and a
word says which one counts. Bytes are received right behind those that are there; as a new state covers them all, the next
ones begin at the front again, and the ring stays as small as what comes between two states.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from typing import Final

from mist.errors import LimitExceededError, UnsupportedError

RING_VERSION: Final = 1
MAX_STATE_BYTES: Final = 64 << 20  # incomplete messages of a publisher are in it
MAX_REPLY_BYTES: Final = 128 << 10
MAX_HELD_BYTES: Final = 8 << 20
READ_BYTES: Final = 256 * 1024
USUAL_BYTES: Final = 512 << 10  # memory that was needed beyond this is given back at the next state

_MAGIC: Final = 0x474E_5252_7473_696D  # "mistRRNG"
_HEAD_BYTES: Final = 4096
_REPLIES_AT: Final = _HEAD_BYTES
_STATES_AT: Final = _REPLIES_AT + 2 * MAX_REPLY_BYTES
_HELD_AT: Final = _STATES_AT + 2 * MAX_STATE_BYTES
_ALL_BYTES: Final = _HELD_AT + MAX_HELD_BYTES

# The words of the head. Positions are counts of bytes of the connection since it was handed over.
(
    _W_MAGIC,
    _W_VERSION,
    _W_STATES,  # published so far; the last lies in the place of its lowest bit
    _W_STATE_POSITIONS,  # two: where the bytes that follow the state begin
    _W_STATE_SIZES,  # two
    _W_REPLIES,
    _W_REPLY_POSITIONS,
    _W_REPLY_SIZES,
    _W_REPLY_MARKS,
    _W_END,  # one past the last byte received
    _W_HANDLED,  # one past the last byte that was parsed
    _W_RECEIVED_BEFORE,  # the kernel's counters at position 0
    _W_SENT_BEFORE,
    _W_SENT,
) = (0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 19, 20)
_PROGRESS: Final = struct.Struct("=QQ")


def create_ring() -> int:
    """Return the descriptor of a new ring's memory; nothing of it is used yet."""
    fd = os.memfd_create("mist receive ring", os.MFD_CLOEXEC)
    os.ftruncate(fd, _ALL_BYTES)
    return fd


def ring_progress(fd: int) -> tuple[int, int]:
    """Return (one past the last byte received, one past the last one parsed) of a ring, without mapping it."""
    end, handled = _PROGRESS.unpack(os.pread(fd, _PROGRESS.size, _W_END * 8))
    return end, handled


class ReceiveRing:
    """The writer's end of a ring."""

    def __init__(self, fd: int) -> None:
        """Map a ring; the descriptor stays the caller's. Raises UnsupportedError for a layout of another version."""
        self._map = mmap.mmap(fd, _ALL_BYTES)
        self._view = memoryview(self._map)
        self._words = self._view[:_HEAD_BYTES].cast("Q")
        self._held = self._view[_HELD_AT:]
        if not self._words[_W_MAGIC]:
            self._words[_W_VERSION] = RING_VERSION
            self._words[_W_MAGIC] = _MAGIC
        if self._words[_W_MAGIC] != _MAGIC or self._words[_W_VERSION] != RING_VERSION:
            found = self._words[_W_VERSION]
            raise UnsupportedError(f"the receive ring has layout {found}; this version of mist reads {RING_VERSION}")
        self._base = self._words[_W_STATE_POSITIONS + (self._words[_W_STATES] & 1)]
        self.end = self._words[_W_END]

    # -- receiving

    def start(self, received: int, sent: int) -> None:
        """Begin with a connection that nothing was read from. received, sent: what the kernel has counted so far."""
        self._words[_W_RECEIVED_BEFORE] = received
        self._words[_W_SENT_BEFORE] = sent

    @property
    def room(self) -> int:
        """How many bytes can be received before a state must be published."""
        return MAX_HELD_BYTES - (self.end - self._base)

    @property
    def held(self) -> int:
        """Bytes received since the last state."""
        return self.end - self._base

    def receive(self, sock: socket.socket, limit: int = READ_BYTES) -> memoryview:
        """Receive at most `limit` bytes and return them; empty at the end of the connection. Raises OSError.

        The view is valid until the next state is published.
        """
        at = self.end - self._base
        count = sock.recv_into(self._held[at : at + limit])
        self.end += count
        self._words[_W_END] = self.end
        return self._held[at : at + count]

    def recover(self, received: int | None) -> memoryview:
        """Return all bytes since the last state. received: the kernel's count, which has what a killed process did not note."""
        if received is not None:
            taken = received - self._words[_W_RECEIVED_BEFORE]
            if self.end < taken <= min(self.end + READ_BYTES, self._base + MAX_HELD_BYTES):
                self.end = taken
                self._words[_W_END] = taken
        return self._held[: self.end - self._base]

    def handled(self, position: int) -> None:
        """State that everything before this position was parsed: the guardian sees that the process does something."""
        self._words[_W_HANDLED] = position

    # -- the parser's state

    def publish_state(self, state: bytes) -> None:
        """Write down the state after all bytes that were received. Raises LimitExceededError."""
        if len(state) > MAX_STATE_BYTES:
            raise LimitExceededError(f"a parser's state of {len(state)} bytes; the limit is {MAX_STATE_BYTES}")
        count = self._words[_W_STATES] + 1
        place = count & 1
        at = _STATES_AT + place * MAX_STATE_BYTES
        self._view[at : at + len(state)] = state
        self._words[_W_STATE_POSITIONS + place] = self.end
        self._words[_W_STATE_SIZES + place] = len(state)
        self._words[_W_STATES] = count
        used, self._base = self.end - self._base, self.end
        if used > USUAL_BYTES:
            self._give_back(_HELD_AT, used)
        before = self._words[_W_STATE_SIZES + (place ^ 1)]
        if before > USUAL_BYTES:
            self._give_back(_STATES_AT + (place ^ 1) * MAX_STATE_BYTES, before)

    def _give_back(self, at: int, size: int) -> None:
        """Let go of the memory of a part, which is zeros then."""
        self._map.madvise(mmap.MADV_REMOVE, at, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def state(self) -> bytes | None:
        """Return the last state, or None if none was ever published."""
        count = self._words[_W_STATES]
        if not count:
            return None
        at = _STATES_AT + (count & 1) * MAX_STATE_BYTES
        return bytes(self._view[at : at + self._words[_W_STATE_SIZES + (count & 1)]])

    # -- what is said to the peer

    def publish_replies(self, position: int, replies: bytes, mark: int) -> None:
        """Write down what is to be sent, before it is. position: of its first byte among all that was said.

        mark: how many bytes the parser has said of itself with this.
        """
        if len(replies) > MAX_REPLY_BYTES:
            raise LimitExceededError(f"{len(replies)} bytes to say; the limit is {MAX_REPLY_BYTES}")
        count = self._words[_W_REPLIES] + 1
        place = count & 1
        at = _REPLIES_AT + place * MAX_REPLY_BYTES
        self._view[at : at + len(replies)] = replies
        self._words[_W_REPLY_POSITIONS + place] = position
        self._words[_W_REPLY_SIZES + place] = len(replies)
        self._words[_W_REPLY_MARKS + place] = mark
        self._words[_W_REPLIES] = count

    def sent(self, position: int) -> None:
        """State how far the replies were sent, for connections whose bytes the kernel does not count."""
        self._words[_W_SENT] = position

    def unsent(self, sent: int | None) -> tuple[int, bytes, int]:
        """Return (position, what is still to be sent from there, the mark of the last replies). sent: the kernel's count."""
        place = self._words[_W_REPLIES] & 1
        first, size = self._words[_W_REPLY_POSITIONS + place], self._words[_W_REPLY_SIZES + place]
        reached = sent - self._words[_W_SENT_BEFORE] if sent is not None else self._words[_W_SENT]
        reached = max(first, min(reached, first + size))
        at = _REPLIES_AT + place * MAX_REPLY_BYTES
        return reached, bytes(self._view[at + reached - first : at + size]), self._words[_W_REPLY_MARKS + place]

    def close(self) -> None:
        """Unmap the ring. Views of it must be gone; one that is not keeps the mapping until it goes."""
        for view in (self._words, self._held, self._view):
            view.release()
        self._map.close()
