"""A connected socket that is read and written so that another process can go on with it at any moment.

What arrives is looked at first, then what it changed is written down in the connection's record, and only then it is taken from
the kernel. What is to be sent is written down before any of it is. So a process that takes over finds every byte once.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, Protocol

from mist.core.checkpoint import Record
from mist.core.kernel_counts import look_at_received, received_bytes, send_from, sent_bytes, skip_received
from mist.errors import is_out_of_memory

RELEASED_BYTES: Final = 64 * 1024  # the record lets go at once of what was sent in pieces from this size on


def _whole(data: memoryview) -> bytes:
    """Return the bytes that a view is of all of, or a copy."""
    whole = data.obj
    return whole if isinstance(whole, bytes) and len(whole) == data.nbytes else bytes(data)


class Owner(Protocol):
    """What uses a wire: the face of `asyncio.Protocol`, and what is needed to resume it."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

    def saved_state(self) -> bytes:
        """Return what another process needs to go on when all bytes that were received are taken into account."""
        ...


def recovery_record(record: Any) -> Record | None:
    """Return the record if a connection can be recovered with it."""
    record = getattr(record, "shared", record)
    return record if isinstance(record, Record) and record.recoverable else None


class Wire(asyncio.Transport):
    """The transport of an owner; made for a fresh connection, or with `resume` for one of another process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, record: Any, owner: Owner) -> None:
        """Take a non-blocking socket. record: of the connection; one that cannot be recovered is served all the same."""
        super().__init__()
        self._loop = loop
        self._socket = sock
        self._owner = owner
        self._record = recovery_record(record)
        if self._record is not None and sock.family == socket.AF_UNIX:
            self._record.give_up()  # the kernel counts no bytes here: behind it is TLS, whose keys are this process's
            self._record = None
        self._unsent: list[bytes] = []
        self._begun = 0  # bytes that are sent of the first
        self._sent = self._received = 0
        self.wanted = True  # what arrives
        self._largest = 0
        self._handling = False
        self._looked_at = 0  # bytes that the owner has and that are not taken from the kernel
        self._gone = self._closing = self._eof_wanted = self._writing = self._reading = False
        if self._record is not None:
            self._sent = sent_bytes(sock.fileno()) - self._record.bases[0]
            self._received = self._record.received

    # -- reading

    def start(self) -> None:
        """Begin to read."""
        self.wanted = True
        if not self._gone and not self._closing and not self._reading:
            if self._record is not None and not self._received:
                self._save()
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def pause_reading(self) -> None:
        """Leave what arrives in the kernel."""
        self.wanted = False
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    resume_reading = start

    def _readable(self) -> None:
        try:
            data = look_at_received(self._socket.fileno())
        except OSError as error:
            self._lost(error)
            return
        if data is None:
            return
        if not data:
            self.pause_reading()
            if not self._owner.eof_received():
                self.close()
            return
        self._handling = True
        self._looked_at = len(data)
        record = self._record
        if record is not None:
            record.blame(True)
        try:
            self._owner.data_received(data)
        except Exception as error:  # a defect of the owner's code: it ends this connection, and the loop reports it
            if not is_out_of_memory(error):  # else another process goes on
                self._lost(error)
            raise
        finally:
            if record is not None:
                record.blame(False)
            self._handling = False
            if not self._gone:
                self._settle()
                self._push()

    def _settle(self) -> None:
        """Write down what has changed, and take what was looked at."""
        self._received += self._looked_at
        self._save()
        if self._looked_at:
            skip_received(self._socket.fileno(), self._looked_at)
            self._looked_at = 0

    def _save(self) -> None:
        if self._record is None:
            return
        if len(self._unsent) > 2:
            self._unsent = [self._rest()]
            self._begun = 0
        # Whole strings are handed over as they are, also what is sent of the first: one that many connections send is kept once.
        self._record.save(self._sent - self._begun, self._received, self._unsent, self._owner.saved_state())

    def _rest(self) -> bytes:
        """Return what is not sent."""
        rest = b"".join(self._unsent)
        return rest[self._begun :] if self._begun else rest

    # -- writing

    def write(self, data: Any) -> None:
        """Send bytes, now or when the socket takes them."""
        self._queue(data)
        if not self._handling:
            self._settle()
            self._push()

    def writelines(self, parts: Any) -> None:
        """Send the parts one after the other."""
        for part in parts:
            self._queue(part)
        if not self._handling:
            self._settle()
            self._push()

    def _queue(self, data: bytes | memoryview) -> None:
        if not self._gone and len(data):
            self._unsent.append(data if isinstance(data, bytes) else _whole(data))

    def _push(self) -> None:
        """Send as much as the socket takes."""
        while self._unsent:
            part = self._unsent[0]
            left = len(part) - self._begun
            try:
                sent = send_from(self._socket.fileno(), part, self._begun, len(self._unsent) > 1)
            except OSError as error:
                self._lost(error)
                return
            if sent >= 0:
                self._sent += sent
                if left > self._largest:
                    self._largest = left
            if sent < left:
                self._begun += max(sent, 0)
                self._wait_writable()
                return
            self._begun = 0
            self._unsent.pop(0)
        self._drained()

    def _wait_writable(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._push)
            self._owner.pause_writing()

    def _drained(self) -> None:
        if self._largest >= RELEASED_BYTES:
            self._largest = 0
            self._save()
        if self._eof_wanted:
            self._eof_wanted = False
            self._shut_down()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())
            if not self._closing:
                self._owner.resume_writing()
        if self._closing:
            self._lost(None)

    def flush(self) -> None:
        """Send at once what `write` was given while received bytes are handled."""
        self._settle()
        self._push()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""
        return sum(map(len, self._unsent)) - self._begun

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the owner pauses as soon as anything waits."""

    def can_write_eof(self) -> bool:
        """Return True."""
        return True

    def write_eof(self) -> None:
        """Send no more after what waits."""
        self._eof_wanted = True
        if not self._handling:
            self._push()

    def _shut_down(self) -> None:
        if self._record is not None:
            self._record.give_up()  # nothing but reading on is left to do, and the end counts as a byte
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(error)

    # -- the end

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the socket or the peer's address."""
        if name == "socket":
            return self._socket
        if name == "peername":
            try:
                return self._socket.getpeername()
            except OSError:
                return default
        return default

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._closing or self._gone

    def close(self) -> None:
        """Close once everything is sent."""
        if self._closing or self._gone:
            return
        self._closing = True
        self.pause_reading()
        if self._handling:
            return
        if self._unsent:
            self._save()
        self._push()

    def abort(self) -> None:
        """Close at once."""
        self._lost(None)

    def _lost(self, error: Exception | None) -> None:
        if self._gone:
            return
        self.leave()
        self._loop.call_soon(self._closed, error)

    def _closed(self, error: Exception | None) -> None:
        self._owner.connection_lost(error)
        self._socket.close()

    def leave(self) -> None:
        """Have nothing to do with the socket any more; the owner is not told of an end."""
        self._gone = True
        if self._looked_at:  # a socket that is closed with unread bytes resets the connection
            skip_received(self._socket.fileno(), self._looked_at)
            self._looked_at = 0
        self.pause_reading()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def let_go(self) -> tuple[int, bytes]:
        """Give the socket away: return its descriptor, and what must be sent before anything else.

        Everything that was looked at is written down and taken before that. The owner is not told of an end.
        """
        self._settle()
        self.leave()
        return self._socket.detach(), self._rest()

    def lend(self) -> tuple[int, bytes]:
        """Let somebody else use the socket until `leave` or the next `start` or `write`; returns as `let_go`."""
        self._settle()
        self.pause_reading()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())
        return self._socket.fileno(), self._rest()

    # -- another process's connection

    def resume(self) -> None:
        """Go on with what the record says, corrected by what the kernel knows. Raises OSError.

        Call `start` when the owner has its state back.
        """
        assert self._record is not None
        fd = self._socket.fileno()
        sent_at, received, pending, *_ = self._record.progress()
        self._sent = sent_bytes(fd) - self._record.bases[0]
        self._received = received
        looked_at = received - (received_bytes(fd) - self._record.bases[1])
        if looked_at > 0:
            skip_received(fd, looked_at)
        if self._sent < sent_at + len(pending):
            self._unsent, self._begun = [pending[self._sent - sent_at :]], 0

    def release(self) -> None:
        """Send what `resume` found unsent."""
        if self._unsent:
            self._push()
