"""A span of an on-demand stream in shared memory: the sink that fills one, and the reader that muxes from it.

A span is one memory segment without a name: header, packet records sorted by decode time, payload. It is written once, then
handed to readers by descriptor; memory goes with the last process that maps it, whoever is killed.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, Packet, PacketView

from mist.core.shm import create_memory, map_memory
from mist.errors import LimitExceededError, NotFound

SPAN_MAGIC = 0x4D53504E
SPAN_LAYOUT = 2
MAX_TRACKS = 64
MAX_SPAN_BYTES = 1 << 30         # payload of one span: one packet can be as large as its demuxer allows

cdef enum:
    MAX_PLACES = 64
    GROWTH_BYTES = 64 << 10


cdef int by_time(const void* one, const void* other) noexcept nogil:
    cdef const SpanPacket* first = <const SpanPacket*> one
    cdef const SpanPacket* second = <const SpanPacket*> other
    if first.dts_us != second.dts_us:
        return -1 if first.dts_us < second.dts_us else 1
    return -1 if first.order < second.order else 1


@cython.final
cdef class SpanWriter(Muxer):
    """A sink that keeps the packets of one span, in a segment of exactly the size that the index announced.

    Packets of other times are passed over. When more packets belong to the span's time than the index announced, the first ones in the
    file's order are kept: those are what the index counted. Packets may be larger than announced, for formats whose payload takes
    another form when it is read; then the segment grows.
    """

    def __cinit__(self, int64_t from_us, int64_t to_us, uint32_t packets, uint64_t bytes_, int tracks):
        """from_us, to_us: decode times, the end not included. packets, bytes_: of all tracks together.

        Raises LimitExceededError, SharedMemoryFull.
        """
        cdef size_t head = sizeof(SpanHeader) + <size_t> packets * sizeof(SpanPacket)
        if tracks > MAX_TRACKS or bytes_ > MAX_SPAN_BYTES:
            raise LimitExceededError(f"a span of {tracks} tracks and {bytes_} bytes; limits are {MAX_TRACKS}, {MAX_SPAN_BYTES}")
        self.segment = create_memory("mist span", head + bytes_)
        (<SpanHeader*> self.segment.data).payload = head
        self.place()
        self.header.magic, self.header.version = SPAN_MAGIC, SPAN_LAYOUT
        self.header.tracks = tracks
        self.header.from_us, self.header.to_us = from_us, to_us
        self.packets_wanted = packets
        self.tracks = (<uint64_t> 1 << tracks) - 1 if tracks < 64 else ~<uint64_t> 0

    cdef int place(self) noexcept:
        """Find header, records and payload in the segment."""
        self.header = <SpanHeader*> self.segment.data
        self.packets = <SpanPacket*> (self.segment.data + sizeof(SpanHeader))
        self.payload = self.segment.data + self.header.payload
        self.room = self.segment.size - self.header.payload
        return 0

    cdef int grow(self, size_t size) except -1:
        """Have room for a packet that is larger than announced. Raises LimitExceededError, SharedMemoryFull."""
        cdef size_t wanted = self.header.bytes + size
        if wanted > MAX_SPAN_BYTES:
            raise LimitExceededError(f"a span of over {MAX_SPAN_BYTES} bytes")
        self.segment.extend(self.header.payload + wanted + wanted // 4 + GROWTH_BYTES)
        return self.place()

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef SpanHeader* header = self.header
        cdef SpanPacket* record
        if packet.dts_us >= header.to_us:
            self.beyond |= <uint64_t> 1 << (track & 63)
            return 0
        if packet.dts_us < header.from_us or <uint32_t> track >= header.tracks:
            return 0
        if header.packets == self.packets_wanted:
            self.refused += 1
            return 0
        if header.bytes + packet.size > self.room:
            self.grow(packet.size)
            header = self.header
        record = &self.packets[header.packets]
        record.dts_us, record.offset_us = packet.dts_us, packet.offset_us
        record.position = header.bytes
        record.size = <uint32_t> packet.size
        record.order = header.packets
        record.track = track
        record.flags = packet.flags & ~<uint32_t> NEW_INIT
        memcpy(self.payload + header.bytes, packet.data, packet.size)
        header.bytes += packet.size
        header.packets += 1
        return 0

    @property
    def whole(self):
        """Whether all announced packets are here."""
        return self.header.packets == self.packets_wanted

    @property
    def passed(self):
        """Whether all tracks have got past the span's end."""
        return self.beyond & self.tracks == self.tracks

    @property
    def count(self):
        """Packets so far."""
        return self.header.packets

    @property
    def size(self):
        """Bytes of memory that the span takes."""
        return self.segment.size

    def fileno(self):
        """Return the descriptor of the segment, open as long as this object lives."""
        return self.segment.fd

    def finish(self):
        """Bring the packets and their payload into the order of their decode times; nothing is written afterwards."""
        if not self.sorted:
            self.sorted = True
            qsort(self.packets, self.header.packets, sizeof(SpanPacket), by_time)
            self.line_up()

    cdef int line_up(self) except -1:
        """Move the payload so that packets that follow each other lie behind each other. Raises MemoryError."""
        cdef SpanPacket* record = self.packets
        cdef SpanPacket* end = record + self.header.packets
        cdef uint8_t* lined_up
        cdef uint64_t at = 0
        while record < end and record.position == at:
            at += record.size
            record += 1
        if record == end:
            return 0
        lined_up = <uint8_t*> malloc(self.header.bytes)
        if lined_up == NULL:
            raise MemoryError()
        record, at = self.packets, 0
        while record < end:
            memcpy(lined_up + at, self.payload + record.position, record.size)
            record.position = at
            at += record.size
            record += 1
        memcpy(self.payload, lined_up, self.header.bytes)
        free(lined_up)
        return 0


@cython.final
cdef class Span:
    """Reads one span. Packets are numbered from 0 in the order of their decode times."""

    @property
    def from_us(self):
        """Where the span begins, decode time."""
        return self.header.from_us

    @property
    def to_us(self):
        """Where the next one begins, decode time."""
        return self.header.to_us

    @property
    def size(self):
        """Bytes of memory mapped."""
        return self.segment.size

    def __len__(self):
        return self.header.packets

    def key_before(self, int track, int64_t dts_us):
        """Return the decode time of a track's last keyframe that is not after dts_us, or of its first one; None without any."""
        cdef uint32_t number
        cdef int64_t found = INT64_MIN
        for number in range(self.header.packets):
            if self.packets[number].track != track or not self.packets[number].flags & KEYFRAME:
                continue
            if found != INT64_MIN and self.packets[number].dts_us > dts_us:
                break
            found = self.packets[number].dts_us
        return None if found == INT64_MIN else found

    def mux(self, Muxer muxer not None, list places not None, uint32_t first=0, int64_t from_us=INT64_MIN,
            int64_t to_us=INT64_MAX, size_t limit=0, bint new_init=False):
        """Write packets to a muxer, by decode time; returns the number of the packet to go on with.

        places: the muxer's track number for each of the stream's tracks, -1 for one that is left out. first: packet to
        begin with. from_us, to_us: only decode times from the one to before the other. limit: stop once the muxer holds
        this many bytes, 0 for no limit.
        new_init: the muxer was given new init data; the first packet of every track says so.
        """
        cdef int[MAX_PLACES] place_of
        cdef uint64_t seen = 0
        cdef uint32_t number = first
        cdef uint32_t flags
        cdef SpanPacket* record
        cdef int track
        for track in range(MAX_PLACES):
            place_of[track] = places[track] if track < len(places) else -1
        if not limit:
            muxer.out.reserve(self.header.bytes + self.header.bytes // 16)   # all at once: growing means copying
        while number < self.header.packets:
            record = &self.packets[number]
            number += 1
            track = place_of[record.track & (MAX_PLACES - 1)]
            if track < 0 or record.dts_us < from_us or record.dts_us >= to_us:
                continue
            flags = record.flags
            if new_init and not seen >> track & 1:
                seen |= <uint64_t> 1 << track
                flags |= NEW_INIT
            self.write_one(muxer, track, record, flags)
            if limit and muxer.out.size >= limit:
                break
        return number

    cdef int write_one(self, Muxer muxer, int place, const SpanPacket* record, uint32_t flags) except -1:
        cdef PacketView view
        if record.position + record.size > self.header.bytes:
            raise LimitExceededError("a span's record points outside of its payload")
        view.dts_us, view.offset_us = record.dts_us, record.offset_us
        view.flags = flags
        view.data = self.payload + record.position
        view.size = record.size
        return muxer.write_view(place, &view)

    def payload_run(self, list places not None, int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX):
        """Return (position in the memory, bytes) of what `mux` would write of nothing but payload; None when it lies in pieces.

        places, from_us, to_us: as `mux` takes them.
        """
        cdef uint64_t begin = 0
        cdef uint64_t end = 0
        cdef uint32_t number
        cdef SpanPacket* record
        cdef uint64_t chosen = 0
        for number in range(min(len(places), MAX_PLACES)):
            if places[number] >= 0:
                chosen |= <uint64_t> 1 << number
        for number in range(self.header.packets):
            record = &self.packets[number]
            if (
                not record.size or record.dts_us < from_us or record.dts_us >= to_us
                or not chosen >> (record.track & (MAX_PLACES - 1)) & 1
            ):
                continue
            if record.position + record.size > self.header.bytes:
                raise LimitExceededError("a span's record points outside of its payload")
            if end == 0:
                begin = record.position
            elif record.position != end:
                return None
            end = record.position + record.size
        return self.header.payload + begin, end - begin

    def time_of(self, uint32_t number):
        """Return the decode time of a packet. Raises IndexError."""
        if number >= self.header.packets:
            raise IndexError(number)
        return self.packets[number].dts_us

    def first_shown_us(self, int track):
        """Return the earliest presentation time of a track's packets; None without any."""
        cdef uint32_t number
        cdef SpanPacket* record
        cdef int64_t found = INT64_MAX
        for number in range(self.header.packets):
            record = &self.packets[number]
            if record.track == track:
                found = min(found, record.dts_us + record.offset_us)
        return None if found == INT64_MAX else found

    def packet_list(self):
        """Return all packets with copies of their payload."""
        cdef uint32_t number
        cdef SpanPacket* record
        found = []
        for number in range(self.header.packets):
            record = &self.packets[number]
            payload = PyBytes_FromStringAndSize(<const char*> self.payload + record.position, record.size)
            found.append(Packet(record.track, record.dts_us, record.offset_us, record.flags & KEYFRAME != 0, payload))
        return found


def open_span(int fd):
    """Map a span whose descriptor came from the process that made it; the descriptor stays the caller's.

    Raises NotFound when it is none.
    """
    cdef Span span = Span()
    cdef SpanHeader* header
    span.segment = map_memory("mist span", fd)
    header = span.header = <SpanHeader*> span.segment.data
    if (
        span.segment.size < sizeof(SpanHeader)
        or header.magic != SPAN_MAGIC
        or header.version != SPAN_LAYOUT
        or header.payload > span.segment.size
        or header.bytes > span.segment.size - header.payload
        or sizeof(SpanHeader) + <size_t> header.packets * sizeof(SpanPacket) > header.payload
    ):
        raise NotFound(f"the memory is not a span of layout {SPAN_LAYOUT}")
    span.packets = <SpanPacket*> (span.segment.data + sizeof(SpanHeader))
    span.payload = span.segment.data + header.payload
    return span
