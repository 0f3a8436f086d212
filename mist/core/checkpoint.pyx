"""Checkpoints: one fixed-size record a connection in the shared memory of its worker.

They serve two readers: the statistics, which look once a second, and the process that takes a dead worker's place.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.shm cimport Segment, load32, store32, unix_us

import os

from mist.core.shm import create_segment, open_segment
from mist.errors import LimitExceededError

TABLE_MAGIC = 0x4D53434B
LAYOUT_VERSION = 1
HEADER_BYTES = 64
DEFAULT_RECORDS = 4096
MUXER_STATE_BYTES = 128

LINGER_US = 20_000_000        # an ended connection's figures stay readable this long

FREE, ACTIVE, ENDED = 0, 1, 2


ctypedef struct TableHeader:
    uint32_t magic
    uint32_t version
    uint32_t capacity
    uint32_t high            # one past the highest record ever used
    uint32_t pid


cdef void set_text(char* target, size_t size, str text) noexcept:
    cdef bytes data = text.encode("utf-8", "replace")[: size - 1]
    memset(target, 0, size)
    memcpy(target, <const char*> data, len(data))


@cython.final
cdef class Record:
    """One connection's record; made by `CheckpointTable.claim`."""

    def set_connector(self, str connector not None):
        """Set the name that statistics show: "HLS", "RTMP", "INPUT:RTMP" …"""
        set_text(self.data.connector, sizeof(self.data.connector), connector)

    def set_stream(self, str stream not None):
        set_text(self.data.stream, sizeof(self.data.stream), stream)

    def set_host(self, str host not None):
        set_text(self.data.host, sizeof(self.data.host), host)

    def set_token(self, str token not None):
        set_text(self.data.token, sizeof(self.data.token), token)

    def set_connection(self, uint32_t number):
        self.data.connection = number

    def add_bytes(self, uint64_t down, uint64_t up):
        """Count bytes sent to the peer and received from it."""
        self.count(down, up, unix_us())

    def add_packets(self, uint64_t packets, uint64_t lost=0, uint64_t retransmitted=0):
        self.data.packets += packets
        self.data.packets_lost += lost
        self.data.packets_retransmitted += retransmitted

    cdef void count(self, uint64_t down, uint64_t up, int64_t now_us) noexcept:
        self.data.down_bytes += down
        self.data.up_bytes += up
        self.data.updated_us = now_us

    def set_position(self, int64_t media_us):
        """Set the media time that the connection is at."""
        self.data.position_us = media_us

    @property
    def down_bytes(self):
        return self.data.down_bytes

    def checkpoint(self, str format, tracks, uint64_t boundary_bytes, uint64_t arrival, bytes muxer_state not None):
        """Write down where the next packet begins.

        format: the fan-out's key of the format. tracks: [(track index, next packet number)], at most MAX_CURSORS.
        boundary_bytes: bytes of this connection before that packet. arrival: the packet's place in the stream's order.
        muxer_state: at most MUXER_STATE_BYTES.
        """
        cdef int place = 0
        if len(muxer_state) > MUXER_STATE_BYTES or len(tracks) > 16:
            raise LimitExceededError("a checkpoint holds 16 tracks and 128 bytes of muxer state")
        set_text(self.data.format, sizeof(self.data.format), format)
        for index, sequence in tracks:
            self.data.tracks[place] = index
            self.data.next_sequence[place] = sequence
            place += 1
        self.data.track_count = place
        self.data.arrival = arrival
        self.data.muxer_state_size = <uint32_t> len(muxer_state)
        memcpy(self.data.muxer_state, <const char*> muxer_state, len(muxer_state))
        self.data.boundary_bytes = boundary_bytes

    def close(self):
        """Say that the connection has ended; its figures stay readable until the record is used again."""
        if self.data.state == 1:
            self.data.updated_us = unix_us()
            store32(&self.data.state, 2)


@cython.final
cdef class CheckpointTable:
    """The records of one worker."""

    cdef Segment segment
    cdef TableHeader* header
    cdef readonly str name

    def claim(self, str connector not None, str host not None):
        """Take a record for a new connection. Raises LimitExceededError when all are in use."""
        cdef Record record = Record()
        cdef int number = self.find_free()
        cdef uint32_t generation
        record.segment = self.segment
        record.number = number
        record.data = self.at(number)
        generation = record.data.generation + 1
        memset(record.data, 0, sizeof(ConnectionRecord))
        record.data.generation = generation
        record.data.pid = <uint32_t> os.getpid()
        record.data.started_us = record.data.updated_us = unix_us()
        record.set_connector(connector)
        record.set_host(host)
        store32(&record.data.state, 1)
        return record

    cdef ConnectionRecord* at(self, int number) noexcept:
        return <ConnectionRecord*> (self.segment.data + 64) + number

    cdef int find_free(self) except -1:
        """Return the record that ended longest ago, if that is old news, or an unused one."""
        cdef int number
        cdef int oldest = -1
        for number in range(self.header.high):
            if self.at(number).state == 2 and (oldest < 0 or self.at(number).updated_us < self.at(oldest).updated_us):
                oldest = number
        if self.header.high < self.header.capacity and (
            oldest < 0 or self.at(oldest).updated_us + LINGER_US > unix_us()
        ):
            self.segment.allocate(64 + <size_t> (self.header.high + 1) * sizeof(ConnectionRecord))
            self.header.high += 1
            return self.header.high - 1
        if oldest < 0:
            raise LimitExceededError(f"this worker serves {self.header.capacity} connections already")
        return oldest

    def end_process(self, uint32_t pid):
        """Mark all connections of a dead process as ended."""
        cdef int number
        for number in range(self.header.high):
            if self.at(number).pid == pid and self.at(number).state == 1:
                store32(&self.at(number).state, 2)

    def snapshot(self, int64_t ended_since_us=0):
        """Return the active connections, and those that ended at or after ended_since_us (unix us), as tuples.

        (number, generation, pid, connector, stream, host, token, started_us, updated_us, down_bytes, up_bytes,
        position_us, packets, lost, retransmitted, active)
        """
        cdef int number
        cdef ConnectionRecord* data
        found = []
        for number in range(self.header.high):
            data = self.at(number)
            if data.state == 1 or (data.state == 2 and data.updated_us >= ended_since_us):
                found.append((
                    number, data.generation, data.pid, text(data.connector), text(data.stream), text(data.host),
                    text(data.token), data.started_us, data.updated_us, data.down_bytes, data.up_bytes,
                    data.position_us, data.packets, data.packets_lost, data.packets_retransmitted, data.state == 1,
                ))
        return found


cdef str text(const char* data):
    return (<bytes> data).decode("utf-8", "replace")


def create_checkpoints(str name not None, int capacity=DEFAULT_RECORDS):
    """Make a worker's table. Memory is reserved as records come into use."""
    cdef CheckpointTable table = CheckpointTable()
    table.segment = create_segment(name, 64 + capacity * sizeof(ConnectionRecord), 4096)
    table.name = name
    table.header = <TableHeader*> table.segment.data
    table.header.version = LAYOUT_VERSION
    table.header.capacity = capacity
    store32(&table.header.magic, TABLE_MAGIC)
    return table


def open_checkpoints(str name not None, bint growing=False):
    """Open a worker's table, to look, or with `growing` to claim records in it. Raises NotFound."""
    cdef CheckpointTable table = CheckpointTable()
    table.segment = open_segment(name, True, growing)
    table.name = name
    table.header = <TableHeader*> table.segment.data
    if load32(&table.header.magic) != TABLE_MAGIC or table.header.version != LAYOUT_VERSION:
        raise LimitExceededError(f"{name} is not a checkpoint table of layout {LAYOUT_VERSION}")
    return table
