"""Checkpoints: one fixed-size record a connection in the shared memory of its worker.

They serve two readers: the statistics, which look once a second, and the process that takes a dead worker's place. For the
latter a record has two progresses: one holds, the other is filled and becomes the one that holds with a single store.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from mist.core.blobs cimport Blob, BlobStore, read_blob
from mist.core.shm cimport Segment, load32, store32, unix_us
from mist.core.tally cimport NAME_BYTES, ConnectionSnapshot

import os

from mist.core.kernel_counts import received_bytes, sent_bytes
from mist.core.shm import create_segment, open_segment
from mist.errors import LimitExceededError, MistError

TABLE_MAGIC = 0x4D53434B
LAYOUT_VERSION = 2
HEADER_BYTES = 64
DEFAULT_RECORDS = 4096
BLOB_BYTES = 1 << 30           # of address space for what connections keep; memory is what is in use

LINGER_US = 20_000_000        # an ended connection's figures stay readable this long

FREE, ACTIVE, ENDED = 0, 1, 2


ctypedef struct TableHeader:
    uint32_t magic
    uint32_t version
    uint32_t capacity
    uint32_t high            # one past the highest record ever used
    uint32_t pid
    uint32_t record_bytes
    uint32_t handling        # the guardian's number of the connection that is being handled, 0: none


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

    # -- recovery --------------------------------------------------------------------------------------------------

    def follow_socket(self, int fd):
        """Take a fresh connection's kernel counts as its beginning. A socket that is not TCP cannot be recovered."""
        try:
            self.data.base_sent, self.data.base_received = sent_bytes(fd), received_bytes(fd)
        except OSError:
            return
        store32(&self.data.recoverable, 1)

    def blame(self, bint begins):
        """Say that what this process does now is for this connection, or no longer: if it dies of it, that one is to blame."""
        self.handling[0] = self.data.connection if begins else 0

    def give_up(self):
        """Say that the connection cannot be continued by another process."""
        store32(&self.data.recoverable, 0)

    @property
    def recoverable(self):
        return bool(self.data.recoverable)

    cdef Progress* held(self) noexcept:
        """Return the progress that holds."""
        return &self.data.progress[load32(&self.data.current) & 1]

    cdef Progress* begin(self) noexcept:
        """Return the other progress as a copy of the one that holds, to be changed for `commit`."""
        cdef Progress* fresh = &self.data.progress[1 - (self.data.current & 1)]
        fresh[0] = self.held()[0]
        return fresh

    cdef int commit(self) except -1:
        """Make what `begin` returned the progress that holds, and free what only the former one referred to."""
        cdef Progress* old = self.held()
        cdef Progress* fresh = &self.data.progress[1 - (self.data.current & 1)]
        store32(&self.data.current, 1 - (self.data.current & 1))
        self.replace(&old.pending[0], &fresh.pending[0])
        self.replace(&old.pending[1], &fresh.pending[1])
        self.replace(&old.between, &fresh.between)
        self.replace(&old.state, &fresh.state)
        return 0

    cdef int replace(self, Blob* old, Blob* fresh) except -1:
        if old.size and (old.offset != fresh.offset or old.size != fresh.size):
            self.blobs.drop(old)
        return 0

    def save(self, uint64_t sent_at, uint64_t received, list pending not None, bytes state=None, *, bytes between=b"",
             uint64_t arena=0, uint64_t position=0, uint32_t flags=0):
        """Write down a whole progress.

        sent_at, received: bytes of the connection. pending: at most two strings that follow sent_at. state: None for the one there is.
        """
        cdef Progress* fresh
        if not self.data.recoverable:
            return
        fresh = self.begin()
        fresh.sent_at, fresh.received = sent_at, received
        fresh.arena, fresh.position, fresh.flags = arena, position, flags
        self.fill(fresh, pending, between, state)
        self.commit()

    cdef int fill(self, Progress* fresh, list pending, bytes between, bytes state) except -1:
        """Put strings where a fresh progress refers to them; without memory the connection becomes one that cannot be recovered."""
        cdef int place
        try:
            for place in range(2):
                fresh.pending[place].size = 0
                if place < len(pending):
                    self.blobs.put(pending[place], &fresh.pending[place])
                    self.count_once(&self.held().pending[place], &fresh.pending[place])
            fresh.between.size = 0
            if between:
                self.blobs.put(between, &fresh.between)
            if state is not None:
                fresh.state.size = 0
                self.blobs.put(state, &fresh.state)
        except MistError:
            self.give_up()
        return 0

    cdef int count_once(self, const Blob* old, const Blob* fresh) except -1:
        """Let a string that was put again where it was have one user: `commit` drops only what is referred to no longer."""
        if fresh.size and old.offset == fresh.offset and old.size == fresh.size:
            self.blobs.drop(fresh)
        return 0

    def progress(self):
        """Return what holds: (sent_at, received, pending, state, between, arena, position, flags)."""
        cdef Progress* held = self.held()
        pending = read_blob(self.segment, &held.pending[0]) + read_blob(self.segment, &held.pending[1])
        return (
            held.sent_at, held.received, pending, read_blob(self.segment, &held.state),
            read_blob(self.segment, &held.between), held.arena, held.position, held.flags,
        )

    @property
    def received(self):
        return self.held().received

    @property
    def bases(self):
        return self.data.base_sent, self.data.base_received

    def adopt(self, Record other not None):
        """Go on as the record of another process: its figures, its beginning, its progress."""
        cdef uint32_t generation = self.data.generation
        cdef uint32_t pid = self.data.pid
        sent_at, received, pending, state, between, arena, position, flags = other.progress()
        store32(&self.data.state, 0)
        self.data[0] = other.data[0]
        self.data.state = 0
        memset(&self.data.progress, 0, sizeof(self.data.progress))
        self.data.generation, self.data.pid = generation, pid
        self.save(sent_at, received, [pending], state, between=between, arena=arena, position=position, flags=flags)
        store32(&self.data.state, 1)
        store32(&other.data.state, 0)

    def close(self):
        """Say that the connection has ended; its figures stay readable until the record is used again."""
        cdef Progress* held = self.held()
        cdef int place
        if self.data.state == 1:
            self.data.updated_us = unix_us()
            store32(&self.data.state, 2)
            self.data.recoverable = 0
            for place in range(2):
                self.blobs.drop(&held.pending[place])
            self.blobs.drop(&held.between)
            self.blobs.drop(&held.state)
            memset(&self.data.progress, 0, sizeof(self.data.progress))


@cython.final
cdef class CheckpointTable:
    """The records of one worker."""

    cdef Segment segment
    cdef TableHeader* header
    cdef BlobStore blobs
    cdef readonly str name
    cdef list views              # by record, what `look` showed last

    def claim(self, str connector not None, str host not None):
        """Take a record for a new connection. Raises LimitExceededError when all are in use."""
        cdef Record record = Record()
        cdef int number = self.find_free()
        cdef uint32_t generation
        record.segment, record.blobs, record.handling = self.segment, self.blobs, &self.header.handling
        record.number = number
        record.data = self.at(number)
        generation = record.data.generation + 1
        memset(record.data, 0, sizeof(ConnectionRecord))
        record.data.generation = generation
        record.data.pid = <uint32_t> os.getpid()
        record.data.identity = <uint64_t> record.data.pid << 44 | <uint64_t> number << 32 | generation
        record.data.started_us = record.data.updated_us = unix_us()
        record.set_connector(connector)
        record.set_host(host)
        store32(&record.data.state, 1)
        return record

    @property
    def handling(self):
        """The guardian's number of the connection that the process was occupied with, 0 for none."""
        return self.header.handling

    def recoverable(self):
        """Return {the guardian's number of a connection: its record} of the active connections that can be continued."""
        cdef int number
        cdef Record record
        found = {}
        for number in range(self.header.high):
            if self.at(number).state == 1 and self.at(number).connection:
                record = Record()
                record.segment, record.data, record.number = self.segment, self.at(number), number
                found[record.data.connection] = record
        return found

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
        position_us, packets, lost, retransmitted, active, identity). identity: stays the same when another process goes on.
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
                    data.identity,
                ))
        return found

    def look(self, int64_t ended_since_us=0):
        """Return what `snapshot` does as `ConnectionSnapshot`s, which the next look changes in place."""
        cdef int number
        cdef ConnectionRecord* data
        cdef list found = []
        if self.views is None:
            self.views = []
        while len(self.views) < <int> self.header.high:
            self.views.append(ConnectionSnapshot())
        for number in range(self.header.high):
            data = self.at(number)
            if data.state == 1 or (data.state == 2 and data.updated_us >= ended_since_us):
                show(data, <ConnectionSnapshot> self.views[number])
                found.append(self.views[number])
        return found


cdef int show(ConnectionRecord* data, ConnectionSnapshot view) except -1:
    """Let a snapshot show a record."""
    if view.identity != data.identity:
        view.identity = data.identity
        view.record_id = data.identity
    if memcmp(view.raw_names, data.connector, NAME_BYTES):
        memcpy(view.raw_names, data.connector, NAME_BYTES)
        view.names = (text(data.stream), text(data.connector), text(data.host), text(data.token))
    view.pid = data.pid
    view.started_us, view.updated_us = data.started_us, data.updated_us
    view.down_bytes, view.up_bytes, view.position_us = data.down_bytes, data.up_bytes, data.position_us
    view.packets, view.packets_lost = data.packets, data.packets_lost
    view.packets_retransmitted = data.packets_retransmitted
    view.active = data.state == 1
    return 0


cdef str text(const char* data):
    return (<bytes> data).decode("utf-8", "replace")


def create_checkpoints(str name not None, int capacity=DEFAULT_RECORDS):
    """Make a worker's table. Memory is reserved as records come into use."""
    cdef CheckpointTable table = CheckpointTable()
    table.segment = create_segment(name, 64 + capacity * sizeof(ConnectionRecord) + BLOB_BYTES, 4096)
    table.name = name
    table.header = <TableHeader*> table.segment.data
    table.header.version = LAYOUT_VERSION
    table.header.record_bytes = sizeof(ConnectionRecord)
    table.header.capacity = capacity
    table.blobs = BlobStore(table.segment, 64 + <uint64_t> capacity * sizeof(ConnectionRecord))
    store32(&table.header.magic, TABLE_MAGIC)
    return table


def open_checkpoints(str name not None):
    """Open a worker's table, to look. Raises NotFound."""
    cdef CheckpointTable table = CheckpointTable()
    table.segment = open_segment(name, True)
    table.name = name
    table.header = <TableHeader*> table.segment.data
    if (
        load32(&table.header.magic) != TABLE_MAGIC or table.header.version != LAYOUT_VERSION
        or table.header.record_bytes != sizeof(ConnectionRecord)
    ):
        raise LimitExceededError(f"{name} is not a checkpoint table of layout {LAYOUT_VERSION}")
    return table
