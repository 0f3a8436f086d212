"""The index of an on-demand stream in shared memory, and the sink that makes it while a demuxer reads the file.

A span is the stretch of a stream from one keyframe of its main track to a later one: all packets of all tracks whose decode time lies in
[from, to). The index has one small record for each, so that ten hours fit into less than a megabyte; payload is loaded span by span when
somebody plays it (`mist.core.span`).

One writer, any number of readers: a record is complete before the count that covers it is released, and is never changed afterwards.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from mist.core.demuxer cimport Demuxer
from mist.core.dtsc_objects cimport be32, be64, put_be32, put_be64
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.shm cimport fence, load32, load64, store32, store64

from array import array

from mist.core.shm import create_segment, open_segment
from mist.errors import LimitExceededError, NotFound, RemoteProtocolError

INDEX_MAGIC = 0x4D535058
INDEX_VERSION = 2
INDEX_SUFFIX = ".spans"
MAX_SPANS = 1 << 20              # 23 days of spans of two seconds
MAX_TRACKS = 64
RESERVE_BYTES = 64 << 10

cdef enum:
    PACKED_BYTES = 41            # from, to, position, bytes 64 bits each, packets 32, keyframe 8, version 32; big-endian
    SPAN_BYTES = 8 << 20         # a keyframe begins a new span once the old one holds this much, however short it is
    FORCED_BYTES = 32 << 20      # ... and any packet of the main track does at this much
    FORCED_PACKETS = 1 << 16
    SILENT_US = 10000000         # other tracks cut the spans when the main track has been silent for this long
    STALLED_US = 5000000         # a track this far behind the main one is not waited for
    WINDOW_US = 1000000

PACKED_SPAN_BYTES = PACKED_BYTES


@cython.final
cdef class SpanIndex:
    """The records of a stream's spans. Made by `create_index` or `open_index`."""

    cdef int append(self, const SpanRecord* record, int64_t to_us) except -1:
        """Publish a span. Raises LimitExceededError, SharedMemoryFull."""
        cdef uint64_t number = self.header.count
        cdef size_t needed = sizeof(IndexHeader) + (number + 1) * sizeof(SpanRecord)
        if number >= self.header.capacity:
            raise LimitExceededError(f"the file has more than {self.header.capacity} spans of keyframes")
        if needed > self.segment.allocated:
            self.segment.allocate((needed + RESERVE_BYTES - 1) // RESERVE_BYTES * RESERVE_BYTES)
        self.records[number] = record[0]
        self.header.end_us = to_us
        store64(&self.header.count, number + 1)
        return 0

    def add(self, int64_t from_us, int64_t to_us, int64_t position, uint64_t bytes_, uint32_t packets, bint key, uint32_t version,
            int64_t shift_us=0):
        """Publish a span of an index that was kept; parameters as `index[number]` and `shifts` have them.

        Raises LimitExceededError, SharedMemoryFull.
        """
        cdef SpanRecord record
        record.from_us, record.position, record.bytes, record.packets = from_us, position, bytes_, packets
        record.flags = (SPAN_KEY if key else 0) | version * SPAN_VERSION
        record.shift_us = shift_us
        self.header.versions = max(self.header.versions, version)
        self.append(&record, to_us)

    def pack(self):
        """Return the spans as they are kept on disk, PACKED_SPAN_BYTES each."""
        cdef uint64_t count = load64(&self.header.count)
        cdef uint64_t number
        cdef SpanRecord* record = self.records
        packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> count * PACKED_BYTES)
        cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(packed)
        for number in range(count):
            at = put_be64(at, <uint64_t> record.from_us)
            at = put_be64(at, <uint64_t> (record[1].from_us if number + 1 < count else self.header.end_us))
            at = put_be64(at, <uint64_t> record.position)
            at = put_be64(at, record.bytes)
            at = put_be32(at, record.packets)
            at[0] = record.flags & SPAN_KEY
            at = put_be32(at + 1, record.flags // SPAN_VERSION)
            record += 1
        return packed

    def fill(self, const uint8_t[::1] packed not None, list shifts not None):
        """Publish the spans that `pack` returned in an empty index, and finish it. shifts: as `shifts` returned them.

        Raises LimitExceededError, SharedMemoryFull.
        """
        cdef SpanRecord record
        cdef const uint8_t* at = &packed[0] if packed.shape[0] else NULL
        cdef uint64_t number
        cdef uint32_t version
        changes = dict(shifts)
        record.shift_us = 0
        for number in range(<uint64_t> packed.shape[0] // PACKED_BYTES):
            if number in changes:
                record.shift_us = changes[number]
            record.from_us, record.position, record.bytes = <int64_t> be64(at), <int64_t> be64(at + 16), be64(at + 24)
            record.packets = be32(at + 32)
            version = be32(at + 37)
            record.flags = (SPAN_KEY if at[36] else 0) | version * SPAN_VERSION
            self.header.versions = max(self.header.versions, version)
            self.append(&record, <int64_t> be64(at + 8))
            at += PACKED_BYTES
        self.finish()

    def finish(self):
        """Say that there are all records."""
        store32(&self.header.complete, 1)

    def retire(self):
        """Tell readers that the file is another one now."""
        store32(&self.header.stale, 1)

    @property
    def count(self):
        """Spans that may be used."""
        return load64(&self.header.count)

    @property
    def complete(self):
        return load32(&self.header.complete) != 0

    @property
    def stale(self):
        return load32(&self.header.stale) != 0

    @property
    def main(self):
        """The track whose keyframes begin the spans."""
        return self.header.main

    @property
    def bytes_used(self):
        """Memory that it takes."""
        cdef size_t used = sizeof(IndexHeader) + self.header.count * sizeof(SpanRecord)
        return max(self.segment.allocated, (used + RESERVE_BYTES - 1) // RESERVE_BYTES * RESERVE_BYTES)

    @property
    def identity(self):
        """What the file was when the index was made: three numbers of the writer's choice."""
        return self.header.identity[0], self.header.identity[1], self.header.identity[2]

    @property
    def versions(self):
        """How often init data changed so far."""
        return self.header.versions

    @property
    def end_us(self):
        """Where the last span ends."""
        return self.header.end_us

    def __len__(self):
        return load64(&self.header.count)

    def __getitem__(self, uint64_t number):
        """Return (from_us, to_us, position, payload bytes, packets, begins with a keyframe, version of the init data)."""
        cdef SpanRecord* record = &self.records[number]
        cdef int64_t to_us = self.header.end_us
        cdef uint64_t count
        fence()
        count = load64(&self.header.count)  # after its end: a span that is not the last any more has the next one's beginning
        if number >= count:
            raise IndexError(number)
        if number + 1 < count:
            to_us = record[1].from_us
        return (
            record.from_us, to_us, record.position, record.bytes, record.packets,
            record.flags & SPAN_KEY != 0, record.flags // SPAN_VERSION,
        )

    def bases(self, uint64_t number):
        """Return what may have been added to the file's times in a span: at its first packet, before it, and behind it."""
        cdef uint64_t count = load64(&self.header.count)
        if number >= count:
            raise IndexError(number)
        found = [self.records[number].shift_us]
        if number:
            found.append(self.records[number - 1].shift_us)
        if number + 1 < count:
            found.append(self.records[number + 1].shift_us)
        return tuple(found)

    def shifts(self):
        """Return (number, shift in microseconds) of each span that begins with another shift than the one before it, and the first."""
        cdef uint64_t number
        return [
            (number, self.records[number].shift_us)
            for number in range(load64(&self.header.count))
            if not number or self.records[number].shift_us != self.records[number - 1].shift_us
        ]

    def find(self, int64_t dts_us, bint key=True):
        """Return the number of the span that holds a decode time; before the first one the first.

        key: of the last one, at or before it, that begins with a keyframe. Raises NotFound when there are no spans.
        """
        cdef uint64_t low = 0
        cdef uint64_t high = load64(&self.header.count)
        cdef uint64_t middle
        if high == 0:
            raise NotFound("the stream has no media")
        while high - low > 1:
            middle = low + (high - low) // 2
            if self.records[middle].from_us <= dts_us:
                low = middle
            else:
                high = middle
        while key and low and not self.records[low].flags & SPAN_KEY:
            low -= 1
        return low


def check_spans(const uint8_t[::1] packed not None, uint64_t versions, int64_t size):
    """Raise RemoteProtocolError unless packed spans fit each other, a file of `size` bytes and so many versions of the init data."""
    cdef uint64_t number
    cdef uint64_t count = <uint64_t> packed.shape[0] // PACKED_BYTES
    cdef const uint8_t* at = &packed[0] if packed.shape[0] else NULL
    cdef int64_t from_us, to_us, position
    cdef int64_t last_us = 0
    if not count or packed.shape[0] % PACKED_BYTES:
        raise RemoteProtocolError(f"{packed.shape[0]} bytes of spans, of {PACKED_SPAN_BYTES} bytes each")
    for number in range(count):
        from_us, to_us, position = <int64_t> be64(at), <int64_t> be64(at + 8), <int64_t> be64(at + 16)
        if (number and from_us != last_us) or to_us < from_us or at[36] > 1 or be32(at + 37) >= versions:
            raise RemoteProtocolError("its spans do not fit each other")
        if position < 0 or position >= size:
            raise RemoteProtocolError(f"byte {position} is outside of a file of {size} bytes")
        last_us = to_us
        at += PACKED_BYTES


def sum_ends(list ends not None, int64_t before):
    """Return the sums of equally long arrays of 64-bit numbers, place by place, with `before` added to each. Raises ValueError."""
    cdef const int64_t[::1] one
    cdef int64_t[::1] sums
    cdef Py_ssize_t place, count = len(ends[0])
    found = array("q", bytes(count * sizeof(int64_t)))
    sums = found
    for part in ends:
        one = part
        if one.shape[0] != count:
            raise ValueError(f"{one.shape[0]} numbers instead of {count}")
        for place in range(count):
            sums[place] += one[place]
    for place in range(count):
        sums[place] += before
    return found


def create_index(str name not None, tuple identity not None, int main):
    """Make an empty index, replacing one of that name. identity: three numbers that change when the file does.

    Raises SharedMemoryFull.
    """
    cdef SpanIndex index = SpanIndex()
    cdef int place
    index.segment = create_segment(name, sizeof(IndexHeader) + MAX_SPANS * sizeof(SpanRecord), RESERVE_BYTES)
    index.header = <IndexHeader*> index.segment.data
    index.records = <SpanRecord*> (index.segment.data + sizeof(IndexHeader))
    index.writer = True
    index.header.version = INDEX_VERSION
    index.header.capacity = MAX_SPANS
    index.header.main = <uint32_t> main
    for place in range(3):
        index.header.identity[place] = identity[place]
    store32(&index.header.magic, INDEX_MAGIC)
    return index


def open_index(str name not None):
    """Open a stream's index, for reading. Raises NotFound."""
    cdef SpanIndex index = SpanIndex()
    index.segment = open_segment(name, True)
    index.header = <IndexHeader*> index.segment.data
    index.records = <SpanRecord*> (index.segment.data + sizeof(IndexHeader))
    if (
        index.segment.size < sizeof(IndexHeader)
        or load32(&index.header.magic) != INDEX_MAGIC
        or index.header.version != INDEX_VERSION
        or index.segment.size < sizeof(IndexHeader) + index.header.capacity * sizeof(SpanRecord)
    ):
        raise NotFound(f"shared memory {name} is not an index of layout {INDEX_VERSION}")
    return index


@cython.final
cdef class SpanIndexer(Muxer):
    """A sink that groups the packets of a file into spans and publishes each span once no packet of it can follow.

    Attach it to the demuxer that reads the file from its beginning, in its order. Costs no copy of payload.
    """

    def __cinit__(self, SpanIndex index not None, Demuxer source not None, int64_t segment_us, Muxer log=None):
        """segment_us: shortest span, microseconds. log: gets every packet that the index counts, in the file's order."""
        self.index = index
        self.log = log
        self.source = source
        self.main = <int> index.header.main
        self.segment_us = segment_us
        self.waiting = NULL
        self.loose = NULL
        self.main_last_us = INT64_MIN
        self.follow_tracks()

    def __dealloc__(self):
        free(self.waiting)
        free(self.loose)

    def follow_tracks(self):
        """Take note of the demuxer's tracks. Raises LimitExceededError for more than MAX_TRACKS."""
        cdef int number
        if len(self.source.tracks) > MAX_TRACKS:
            raise LimitExceededError(f"{len(self.source.tracks)} tracks; the limit is {MAX_TRACKS}")
        for number in range(self.track_count, len(self.source.tracks)):
            memset(&self.tracks[number], 0, sizeof(TrackFigures))
            self.tracks[number].sparse = self.source.tracks[number].type not in ("video", "audio")
        self.track_count = len(self.source.tracks)

    def new_version(self):
        """Begin a new span, of a new version of the init data, at the main track's next keyframe."""
        self.version_due = True

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef SpanRecord* open_span
        cdef bint key = (packet.flags & KEYFRAME) != 0
        cdef int64_t length_us
        if track >= self.track_count:
            self.follow_tracks()
        if self.waiting_count == 0:
            self.cut(packet.dts_us, self.source.position, True)
        open_span = &self.waiting[self.waiting_count - 1]
        length_us = packet.dts_us - open_span.from_us
        if track == self.main:
            if key and length_us > 0 and (
                length_us >= self.segment_us or open_span.bytes >= SPAN_BYTES or self.version_due
            ):
                self.cut(packet.dts_us, self.source.position, True)
            elif length_us > 0 and (open_span.bytes >= FORCED_BYTES or open_span.packets >= FORCED_PACKETS):
                self.cut(packet.dts_us, self.source.position, False)
            if packet.dts_us > self.main_last_us:
                self.main_last_us = packet.dts_us
        elif length_us >= self.segment_us and (
            packet.dts_us - SILENT_US > self.main_last_us if self.tracks[self.main].packets else length_us > SILENT_US
        ):
            self.cut(packet.dts_us, self.source.position, True)
        self.put(track, packet)
        self.measure(track, packet)
        if self.waiting_count > 1:
            self.publish()
        return 0

    cdef int cut(self, int64_t from_us, int64_t position, bint key) except -1:
        """Begin a span; what came early for it moves over from the one before."""
        cdef SpanRecord* grown
        cdef SpanRecord* before
        cdef SpanRecord* span
        cdef size_t place, kept = 0
        if self.waiting_count == self.waiting_capacity:
            self.waiting_capacity = self.waiting_capacity * 2 if self.waiting_capacity else 16
            grown = <SpanRecord*> realloc(self.waiting, self.waiting_capacity * sizeof(SpanRecord))
            if grown is NULL:
                raise MemoryError
            self.waiting = grown
        if self.version_due:
            self.version_due = False
            self.version += 1 if self.waiting_count or self.index.header.count else 0
            self.index.header.versions = self.version
        span = &self.waiting[self.waiting_count]
        memset(span, 0, sizeof(SpanRecord))
        span.from_us = from_us
        span.position = position
        span.flags = (SPAN_KEY if key else 0) | self.version * SPAN_VERSION
        span.shift_us = self.source.shift_us
        if self.waiting_count:
            before = span - 1
            for place in range(self.loose_count):
                if self.loose[place].dts_us >= from_us:
                    before.bytes -= self.loose[place].size
                    before.packets -= 1
                    span.bytes += self.loose[place].size
                    span.packets += 1
                    span.position = min(span.position, self.loose[place].position)
                    self.loose[kept] = self.loose[place]
                    kept += 1
        self.loose_count = kept
        self.waiting_count += 1
        return 0

    cdef int put(self, int track, const PacketView* packet) except -1:
        """Count a packet in the span that it belongs to."""
        cdef int place = self.waiting_count - 1
        cdef SpanRecord* span
        while place > 0 and packet.dts_us < self.waiting[place].from_us:
            place -= 1
        span = &self.waiting[place]
        if packet.dts_us < span.from_us:
            if self.index.header.count:
                self.late += 1  # its span is published: nobody will miss what nobody was promised
                return 0
            span.from_us = packet.dts_us
        if self.log is not None:
            self.log.write_view(track, packet)
        span.packets += 1
        span.bytes += packet.size
        span.position = min(span.position, self.source.position)
        if track != self.main and place == self.waiting_count - 1:
            self.keep_loose(packet.dts_us, packet.size)
        return 0

    cdef int keep_loose(self, int64_t dts_us, uint64_t size) except -1:
        cdef Loose* grown
        if self.loose_count == self.loose_capacity:
            self.loose_capacity = self.loose_capacity * 2 if self.loose_capacity else 256
            grown = <Loose*> realloc(self.loose, self.loose_capacity * sizeof(Loose))
            if grown is NULL:
                raise MemoryError
            self.loose = grown
        self.loose[self.loose_count].dts_us = dts_us
        self.loose[self.loose_count].position = self.source.position
        self.loose[self.loose_count].size = size
        self.loose_count += 1
        return 0

    cdef bint settled(self, int64_t end_us) noexcept:
        """Return whether every track that is waited for has got to a decode time."""
        cdef int number
        cdef TrackFigures* track
        for number in range(self.track_count):
            track = &self.tracks[number]
            if track.sparse and number != self.main:
                continue
            if not track.packets:
                if self.main_last_us - STALLED_US < self.waiting[0].from_us:
                    return False
            elif track.last_us < end_us and self.main_last_us - STALLED_US < track.last_us:
                return False
        return True

    cdef int publish(self) except -1:
        """Publish the spans that are whole."""
        cdef int ready = 0
        while ready + 1 < self.waiting_count and self.settled(self.waiting[ready + 1].from_us):
            self.index.append(&self.waiting[ready], self.waiting[ready + 1].from_us)
            ready += 1
        if ready:
            self.waiting_count -= ready
            move_down(self.waiting, ready, self.waiting_count)
        return 0

    cdef int measure(self, int track, const PacketView* packet) except -1:
        """Keep the figures of a track up to date."""
        cdef TrackFigures* figures = &self.tracks[track]
        cdef int64_t length_us
        if not figures.packets:
            figures.first_us = figures.last_us = figures.window_us = packet.dts_us
            figures.first_offset_us = packet.offset_us
        elif packet.dts_us > figures.last_us:
            figures.last_length_us = packet.dts_us - figures.last_us
        figures.last_us = max(figures.last_us, packet.dts_us)
        figures.first_us = min(figures.first_us, packet.dts_us)
        if packet.offset_us != figures.first_offset_us:
            figures.reorders = True
        length_us = packet.dts_us - figures.window_us
        if length_us >= WINDOW_US:
            figures.most_per_second = max(figures.most_per_second, figures.window_bytes * 1000000 // <uint64_t> length_us)
            figures.window_us = packet.dts_us
            figures.window_bytes = 0
        figures.window_bytes += packet.size
        figures.packets += 1
        figures.bytes += packet.size
        return 0

    def finish(self):
        """Publish what is left: the file is over."""
        cdef int place
        cdef int64_t end_us = self.end_us
        for place in range(self.track_count):
            if self.tracks[place].packets:
                end_us = max(end_us, self.tracks[place].last_us + 1)
        for place in range(self.waiting_count):
            if self.waiting[place].packets:
                self.index.append(
                    &self.waiting[place],
                    self.waiting[place + 1].from_us if place + 1 < self.waiting_count
                    else end_us,
                )
        self.waiting_count = 0
        self.index.finish()

    @property
    def end_us(self):
        """Where the last packet so far ends, if it lasts as long as the one before it."""
        cdef int number
        cdef int64_t end_us = INT64_MIN
        for number in range(self.track_count):
            if self.tracks[number].packets and (not self.tracks[number].sparse or number == self.main):
                end_us = max(end_us, self.tracks[number].last_us + self.tracks[number].last_length_us)
        return end_us if end_us != INT64_MIN else 0

    def figures(self, int track):
        """Return (packets, bytes, first_us, last_us, bytes a second, highest bytes a second, frames in 1000 s, reorders)."""
        cdef TrackFigures* figures = &self.tracks[track]
        cdef int64_t length_us = figures.last_us + figures.last_length_us - figures.first_us
        cdef uint64_t mean = 0
        cdef uint64_t frames = 0
        if length_us > 0:
            mean = figures.bytes * 1000000 // <uint64_t> length_us
            frames = (figures.packets * 1000000000 + <uint64_t> length_us // 2) // <uint64_t> length_us
        return (
            figures.packets, figures.bytes, figures.first_us, figures.last_us, mean,
            max(figures.most_per_second, mean), frames, bool(figures.reorders),
        )


cdef int move_down(SpanRecord* records, int skip, int count) except -1:
    """Move records to the beginning of their array."""
    cdef int place
    for place in range(count):
        records[place] = records[skip + place]
    return 0
