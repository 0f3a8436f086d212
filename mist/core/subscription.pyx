"""One viewer of a group: a socket and a position, and what it is sent of its own between the packets."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint64_t

from mist.core.arena cimport ARENA_SIZE
from mist.core.checkpoint cimport PAUSED, WAITING, Progress
from mist.core.muxing cimport MuxGroup

import os

from mist.core.kernel_counts import received_bytes, sent_bytes, skip_received
from mist.errors import LimitExceededError, MistError, PeerClosed

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_PEEK
    ssize_t c_send "send"(int, const void*, size_t, int)
    ssize_t c_recv "recv"(int, void*, size_t, int)

OUT_OF_BAND_LIMIT = 256

cdef enum:
    READ_BYTES = 64 << 10
    REST_BYTES = 64 << 10        # a record lets go at once of sent bytes over this


@cython.final
cdef class Subscription:
    """One viewer of a group: a socket and a position. Made by `Fanout.join` and `Fanout.adopt`."""

    def send(self, bytes data not None):
        """Send bytes of the connection's own between two packets.

        Raises LimitExceededError when OUT_OF_BAND_LIMIT of them wait already.
        """
        if self.dead:
            return
        if len(self.out_of_band) >= OUT_OF_BAND_LIMIT:
            raise LimitExceededError("the peer asks faster than it reads the answers")
        self.out_of_band.append(data)
        self.dirty = True
        if not self.blocked and not self.holding:
            self.flush()

    def receive(self, handle):
        """Read what the peer sent, once: if this process dies, another one reads it again or goes on after it.

        handle(data) -> state: takes the bytes, may call `send` and `close`, and returns what the protocol needs to be resumed.
        Raises PeerClosed at the end of the file, OSError, and what handle raises.
        """
        data = self.peek()
        if data is None:
            return
        if not data:
            raise PeerClosed("the peer closed the connection")
        self.holding = True
        if self.record is not None:
            self.record.blame(True)
        try:
            self.state = handle(data)
        finally:
            self.holding = False
            if self.record is not None:
                self.record.blame(False)
            self.received += <uint64_t> len(data)
            if not self.dead:
                self.publish()
            skip_received(self.fd, len(data))
        if not self.blocked and not self.dead:
            self.flush()

    def peek(self):
        """Return bytes that the peer sent without taking them, None when there are none, b"" at the end. Raises OSError."""
        cdef char[READ_BYTES] data
        cdef ssize_t count = c_recv(self.fd, data, READ_BYTES, MSG_DONTWAIT | MSG_PEEK)
        if count < 0:
            if errno == EAGAIN or errno == EINTR:
                return None
            raise OSError(errno, os.strerror(errno))
        return PyBytes_FromStringAndSize(data, count)

    def set_state(self, bytes state not None):
        """Change what the protocol needs to be resumed."""
        self.state = state
        self.dirty = True

    def pause(self, bint paused):
        """Hold the media back, or go on (at a later keyframe if too much was missed)."""
        self.paused = paused
        self.dirty = True
        if not self.holding and not paused and not self.blocked and not self.dead:
            self.flush()

    def leave(self):
        """Stop delivery and return the socket, which is the caller's from now on."""
        cdef int fd = self.fd
        self.detach()
        return fd

    def close(self, str reason="CLEAN_INTENDED_STOP"):
        """End the connection; `on_close` is called."""
        if not self.dead:
            self.dead = True
            self.reason = reason
            self.poller.dead.append(self)
            self.poller.set_timer(1)

    def finish(self, str reason="CLEAN_INTENDED_STOP"):
        """End the connection when all that has been muxed until now is sent; `on_close` is called."""
        if self.dead or self.leaving is not None:
            return
        self.leaving, self.until = reason, self.group.arena.end
        if not self.blocked and not self.holding:
            self.flush()

    def detach(self):
        """Take the socket out of the fan-out without closing it."""
        if self.group is not None:
            self.poller.forget(self.fd)
            self.group.remove(self)
            self.group = None
        self.dead = True

    cdef int note_sent(self, ssize_t count) noexcept:
        self.bytes_sent += <uint64_t> count
        if self.record is not None:
            self.record.count(<uint64_t> count, 0, self.poller.wall_us)
        return 0

    cdef int send_pending(self) noexcept:
        """Send what goes before the media; returns 1 when all of it went, 0 if blocked, -1 if dead."""
        cdef ssize_t sent
        cdef size_t left
        while self.pending is not None:
            left = <size_t> PyBytes_GET_SIZE(self.pending) - self.pending_sent
            if left:
                sent = c_send(
                    self.fd, PyBytes_AS_STRING(self.pending) + self.pending_sent, left, MSG_DONTWAIT | MSG_NOSIGNAL
                )
                if sent < 0:
                    return 0 if errno == EAGAIN or errno == EINTR else -1
                self.note_sent(sent)
                self.pending_sent += <size_t> sent
                if <size_t> sent < left:
                    return 0
            if self.pending_sent > REST_BYTES:
                self.dirty = True
            self.pending = None
            self.pending_sent = 0
        return 1

    cdef int flush(self) noexcept:
        """Send as much as the socket takes; returns 0."""
        cdef MuxGroup group = self.group
        cdef uint64_t end
        cdef ssize_t sent
        cdef int state
        if self.dead:
            return 0
        while True:
            if self.dirty:
                self.publish()
            state = self.send_pending()
            if state == 1:
                end = group.arena.end
                if self.leaving is not None:
                    end = max(self.until, self.position)
                if self.out_of_band:
                    if self.waiting or self.position == end:
                        self.take_out_of_band()
                        continue
                    end = group.arena.entries[group.entry_at(self.position) % group.arena.entry_capacity].position
                    if end == self.position:
                        self.take_out_of_band()
                        continue
                if self.waiting or self.position == end or (self.paused and not self.out_of_band):
                    break
                sent = c_send(
                    self.fd, group.arena.base + (self.position & (ARENA_SIZE - 1)), <size_t> (end - self.position),
                    MSG_DONTWAIT | MSG_NOSIGNAL,
                )
                if sent > 0:
                    self.position += <uint64_t> sent
                    self.note_sent(sent)
                    if self.position == end:
                        if end == group.arena.end:
                            break
                        continue
                    state = 0
                else:
                    state = 0 if sent < 0 and (errno == EAGAIN or errno == EINTR) else -1
            if state < 0:
                self.close("CLEAN_REMOTE_CLOSE")
                return 0
            if not self.blocked:
                self.blocked = True
                self.poller.interest(self.fd, True)
            return 0
        if self.record is not None:
            if group.entry_head:
                self.record.data.position_us = group.arena.entries[(group.entry_head - 1) % group.arena.entry_capacity].dts_us
        if self.blocked:
            self.blocked = False
            self.poller.interest(self.fd, False)
        if self.leaving is not None:
            self.close(self.leaving)
        elif group.ended and self.position == group.arena.end:
            self.close(group.end_reason)
        return 0

    cdef int take_out_of_band(self) noexcept:
        """It is time for what waits for the end of a packet."""
        self.pending = b"".join(self.out_of_band)
        self.pending_sent = 0
        self.out_of_band.clear()
        self.dirty = True
        return 0

    cdef int skip_ahead(self, uint64_t number) except -1:
        """Finish the packet that is being sent, and go on at the group's entry `number`."""
        cdef MuxGroup group = self.group
        cdef uint64_t boundary = group.arena.end
        cdef uint64_t entry = group.entry_at(self.position)
        if entry < group.entry_head:
            boundary = group.arena.entries[entry % group.arena.entry_capacity].position
        rest = PyBytes_FromStringAndSize(
            <const char*> group.arena.base + (self.position & (ARENA_SIZE - 1)), <Py_ssize_t> (boundary - self.position)
        )
        self.pending = (self.pending[self.pending_sent:] if self.pending is not None else b"") + rest
        self.pending_sent = 0
        if number < group.entry_head:
            self.position = group.arena.entries[number % group.arena.entry_capacity].position
        else:
            self.position = group.arena.end
            self.waiting = True
        self.publish()  # now: the arena's bytes may be gone before the next send
        return 0

    # -- recovery --------------------------------------------------------------------------------------------------

    def follow(self):
        """Find out how many bytes the connection has been sent before it came here."""
        if self.record is not None and self.record.data.recoverable:
            try:
                self.sent_before = sent_bytes(self.fd) - self.record.data.base_sent
            except OSError:
                self.record.give_up()
            self.received = self.record.received
        self.dirty = True

    cdef int publish(self) noexcept:
        """Write down what follows the bytes sent so far."""
        cdef Progress* fresh
        self.dirty = False
        if self.record is None or not self.record.data.recoverable:
            return 0
        try:
            fresh = self.record.begin()
            fresh.sent_at, fresh.received = self.sent_before + self.bytes_sent, self.received
            fresh.arena, fresh.position = self.group.arena.header.number, self.position
            fresh.flags = (WAITING if self.waiting else 0) | (PAUSED if self.paused else 0)
            pending = [] if self.pending is None else [self.pending[self.pending_sent:]]
            self.record.fill(fresh, pending, b"".join(self.out_of_band), self.state)
            self.record.commit()
            self.state = None
        except Exception:  # a connection without a valid progress must not be resumed at a wrong byte
            self.record.give_up()
        return 0

    cdef int resume(self) except -1:
        """Take up what the record says, corrected by what the kernel knows. Raises MistError, OSError."""
        cdef MuxGroup group = self.group
        cdef uint64_t sent, consumed, done
        sent_at, received, pending, _state, between, _arena, position, flags = self.record.progress()
        sent = sent_bytes(self.fd) - self.record.data.base_sent
        consumed = received_bytes(self.fd) - self.record.data.base_received
        done = sent - <uint64_t> sent_at
        self.received = max(<uint64_t> received, consumed)
        if received > consumed:
            skip_received(self.fd, received - consumed)
        self.sent_before = sent
        self.waiting, self.paused = flags & WAITING, flags & PAUSED != 0
        self.out_of_band = [between] if between else []
        self.position = position
        if done < <uint64_t> len(pending):
            self.pending = pending[done:]
        else:
            self.position += done - <uint64_t> len(pending)
        if self.waiting and group.has_start:
            entry_position = group.arena.entries[group.newest_start % group.arena.entry_capacity].position
            if entry_position >= self.position:
                self.begin_at(group.newest_start)
        if self.position > group.arena.end or self.position < group.arena.tail:
            raise MistError("the bytes that follow are not in the arena")
        self.dirty = True
        return 0

    cdef int begin_at(self, uint64_t number) except -1:
        """Begin with the packet of an entry, after what the format puts before it."""
        cdef MuxGroup group = self.group
        self.waiting = False
        self.position = group.arena.entries[number % group.arena.entry_capacity].position
        rest = self.pending[self.pending_sent:] if self.pending is not None else b""
        self.pending = rest + group.muxer.header(group.arena.entries[number % group.arena.entry_capacity].dts_us)
        self.pending_sent = 0
        self.dirty = True
        return 0
