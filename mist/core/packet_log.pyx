"""Times and sizes of all packets of a file: what the exact length of another format's file follows from, without its payload."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.span_index cimport SpanIndex
from mist.core.trim cimport MAX_TRIM_US, trim_flags, trim_of

from array import array

from mist.errors import RemoteProtocolError, TruncatedError

cdef enum:
    LOGGED_LIMIT = 4 << 20       # packets, 24 bytes each: 16 hours of pictures and sound
    MAX_PLACES = 64
    LOGGED_KEY = 0x80            # beside the track, in the lowest byte of a mark and the first one of a packed packet
    PACKED_TRIM = 0x40           # the same: the trim follows the size
    MOST_PACKED_BYTES = 1 + 4 * 10

MAX_LOGGED = LOGGED_LIMIT


cdef int by_time(const void* one, const void* other) noexcept nogil:
    cdef const Logged* first = <const Logged*> one
    cdef const Logged* second = <const Logged*> other
    if first.dts_us != second.dts_us:
        return -1 if first.dts_us < second.dts_us else 1
    return -1 if first.order < second.order else 1


cdef inline int track_of(const Logged* one) noexcept nogil:
    return <int> (one.mark & (MAX_PLACES - 1))


cdef inline uint8_t* put_number(uint8_t* at, uint64_t value) noexcept:
    """Write a number in groups of seven bits, lowest first; the top bit says that more follow."""
    while value >= 0x80:
        at[0] = <uint8_t> (value & 0x7F) | 0x80
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint8_t* put_signed(uint8_t* at, int64_t value) noexcept:
    """Write a number whose sign is its lowest bit."""
    return put_number(at, (<uint64_t> value << 1) ^ <uint64_t> (value >> 63))


cdef inline const uint8_t* take_number(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept:
    """Read a number; returns where it ends. NULL when it has no end in the data, or more than 64 bits."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift <= 63:
        value[0] |= <uint64_t> (at[0] & 0x7F) << shift
        at += 1
        if at[-1] < 0x80:
            return at
        shift += 7
    return NULL


cdef inline const uint8_t* take_signed(const uint8_t* at, const uint8_t* end, int64_t* value) noexcept:
    cdef uint64_t bits = 0
    at = take_number(at, end, &bits)
    value[0] = <int64_t> (bits >> 1) ^ -<int64_t> (bits & 1)
    return at


@cython.final
cdef class PackedPackets:
    """Reads what `PacketLog.pack` wrote, one packet after the other."""

    cdef const uint8_t[::1] data
    cdef const uint8_t* at
    cdef const uint8_t* end
    cdef int64_t[MAX_PLACES] before

    def __init__(self, data):
        cdef int track
        self.data = data
        self.at = &self.data[0] if self.data.shape[0] else NULL
        self.end = self.at + self.data.shape[0]
        for track in range(MAX_PLACES):
            self.before[track] = 0

    cdef bint next(self, Logged* one) except -1:
        """Read a packet; False behind the last one. Raises TruncatedError, RemoteProtocolError."""
        cdef uint8_t head
        cdef uint64_t size = 0, trim_us = 0
        cdef int64_t step_us = 0, offset_us = 0
        cdef int track
        cdef const uint8_t* at = self.at
        if at == self.end:
            return False
        head = at[0]
        track = head & (MAX_PLACES - 1)
        at = take_signed(at + 1, self.end, &step_us)
        at = take_signed(at, self.end, &offset_us) if at is not NULL else NULL
        at = take_number(at, self.end, &size) if at is not NULL else NULL
        if at is not NULL and head & PACKED_TRIM:
            at = take_number(at, self.end, &trim_us)
        if at is NULL:
            self.refuse()
        if size > <uint64_t> 0xFFFFFFFF or offset_us != <int32_t> offset_us or (head & PACKED_TRIM and not 0 < trim_us <= MAX_TRIM_US):
            raise RemoteProtocolError("a packed packet beyond all bounds", offset=self.at - &self.data[0])
        self.at = at
        self.before[track] += step_us
        one.dts_us, one.offset_us, one.size = self.before[track], <int32_t> offset_us, <uint32_t> size
        one.mark = <uint32_t> track | (head & LOGGED_KEY) | trim_flags(<int64_t> trim_us)
        return True

    cdef int refuse(self) except -1:
        """Raise TruncatedError for a packet without an end, RemoteProtocolError for one with a number of more than 64 bits."""
        offset = self.at - &self.data[0]
        if self.end - self.at < MOST_PACKED_BYTES:
            raise TruncatedError("a packed packet has no end", offset=offset)
        raise RemoteProtocolError("a packed number of more than 64 bits", offset=offset)


cdef inline void show(const Logged* one, PacketView* view) noexcept:
    view.dts_us, view.offset_us = one.dts_us, one.offset_us
    view.size, view.flags = one.size, (KEYFRAME if one.mark & LOGGED_KEY else 0) | trim_flags(trim_of(one.mark))


cdef int read_places(list places, int* place_of) except -1:
    cdef int track
    for track in range(MAX_PLACES):
        place_of[track] = places[track] if track < len(places) else -1
    return 0


@cython.final
cdef class PacketLog(Muxer):
    """A sink that keeps of every packet what it is, but not its payload; beyond MAX_LOGGED packets it gives up and is not whole."""

    def __cinit__(self, *args, **kwargs):
        self.packets = NULL
        self.whole = True
        self.in_order = True

    def __dealloc__(self):
        free(self.packets)

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef Logged one
        if track >= MAX_PLACES or packet.size > <uint64_t> 0xFFFFFFFF or packet.offset_us != <int32_t> packet.offset_us:
            return self.give_up()
        one.dts_us, one.offset_us, one.size = packet.dts_us, <int32_t> packet.offset_us, <uint32_t> packet.size
        one.mark = <uint32_t> track | (LOGGED_KEY if packet.flags & KEYFRAME else 0) | trim_flags(trim_of(packet.flags))
        return self.add(&one)

    cdef int add(self, Logged* one) except -1:
        cdef Logged* grown
        if not self.whole:
            return 0
        if self.count >= LOGGED_LIMIT:
            return self.give_up()
        if self.count == self.capacity:
            self.capacity = self.capacity * 2 if self.capacity else 1024
            grown = <Logged*> realloc(self.packets, self.capacity * sizeof(Logged))
            if grown is NULL:
                raise MemoryError
            self.packets = grown
        if self.count and one.dts_us < self.packets[self.count - 1].dts_us:
            self.in_order = False
        one.order = <uint32_t> self.count
        self.packets[self.count] = one[0]
        self.count += 1
        return 0

    cdef int give_up(self) except -1:
        self.whole = False
        self.count = self.capacity = 0
        free(self.packets)
        self.packets = NULL
        return 0

    def unpack(self):
        """Read the packets of a log that was kept packed. Raises TruncatedError, RemoteProtocolError."""
        cdef Logged one
        cdef PackedPackets packed
        if self.packed is None:
            return
        packed = PackedPackets(self.packed)
        self.count = 0
        while packed.next(&one):
            self.add(&one)
        self.packed = None

    def pack(self):
        """Return all packets in few bytes each, for `packed_log`."""
        cdef int64_t[MAX_PLACES] before
        cdef ByteBuffer packed = ByteBuffer()
        cdef size_t number
        cdef int track
        cdef Logged* one
        cdef uint8_t* begin
        cdef uint8_t* at
        self.unpack()
        for number in range(MAX_PLACES):
            before[number] = 0
        for number in range(self.count):
            one = &self.packets[number]
            begin = packed.reserve(MOST_PACKED_BYTES)
            track = track_of(one)
            begin[0] = <uint8_t> (one.mark & 0xFF)
            at = put_signed(begin + 1, one.dts_us - before[track])
            at = put_signed(at, one.offset_us)
            at = put_number(at, one.size)
            if trim_of(one.mark):
                begin[0] |= PACKED_TRIM
                at = put_number(at, <uint64_t> trim_of(one.mark))
            packed.commit(at - begin)
            before[track] = one.dts_us
        return PyBytes_FromStringAndSize(<const char*> packed.data, <Py_ssize_t> packed.size)

    cdef int sort(self) noexcept:
        """Bring the packets into the order in which spans hold them."""
        if not self.in_order:
            qsort(self.packets, self.count, sizeof(Logged), by_time)
            self.in_order = True
        return 0

    def lay_out(self, Muxer layout not None, list places not None, SpanIndex index not None,
                int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX):
        """Write packets without payload (data is NULL) to a sink, in the order in which the spans have them.

        places, from_us, to_us: as for `Span.mux`. Returns an array: for each span how many packets were written before it, and at its end
        how many in all. Nothing may be logged any more afterwards.
        """
        cdef int[MAX_PLACES] place_of
        cdef PacketView view
        cdef uint64_t span = 0
        cdef uint64_t spans = index.header.count
        cdef size_t number
        cdef int64_t written = 0
        cdef int track
        cdef Logged* one
        self.unpack()
        self.sort()
        read_places(places, place_of)
        counts = array("q")
        append = counts.append
        view.data = NULL
        for number in range(self.count):
            one = &self.packets[number]
            while span < spans and one.dts_us >= index.records[span].from_us:
                append(written)
                span += 1
            track = place_of[track_of(one)]
            if track < 0 or one.dts_us < from_us or one.dts_us >= to_us:
                continue
            show(one, &view)
            layout.write_view(track, &view)
            written += 1
        while span <= spans:
            append(written)
            span += 1
        return counts

    def span_ends(self, Muxer sizes not None, measure, list places not None, SpanIndex index not None,
                  int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX):
        """Write packets without payload (data is NULL) to a sink that measures each by itself, in the order of the file.

        measure() -> what all have taken. The rest as for `lay_out`; returns an array: what was taken before each span, and in all.
        """
        cdef int[MAX_PLACES] place_of
        cdef PacketView view
        cdef Logged one
        cdef uint64_t span = 0       # so many begin at the packet or before it
        cdef uint64_t spans = index.header.count
        cdef size_t number = 0
        cdef int64_t taken, before = 0
        cdef int track
        cdef PackedPackets packed = PackedPackets(self.packed if self.packed is not None else b"")
        cdef int64_t[::1] sums
        read_places(places, place_of)
        ends = array("q", bytes(8 * (spans + 1)))
        sums = ends
        view.data = NULL
        while True:
            if self.packed is not None:
                if not packed.next(&one):
                    break
            elif number == self.count:
                break
            else:
                one = self.packets[number]
                number += 1
            track = place_of[track_of(&one)]
            if track < 0 or one.dts_us < from_us or one.dts_us >= to_us:
                continue
            if (span < spans and one.dts_us >= index.records[span].from_us) or (
                span and one.dts_us < index.records[span - 1].from_us
            ):
                taken = measure()
                sums[span] += taken - before
                before = taken
                while span < spans and one.dts_us >= index.records[span].from_us:
                    span += 1
                while span and one.dts_us < index.records[span - 1].from_us:
                    span -= 1
            show(&one, &view)
            sizes.write_view(track, &view)
        sums[span] += <int64_t> measure() - before
        for span in range(1, spans + 1):
            sums[span] += sums[span - 1]
        return ends


def packed_log(data):
    """Return the log whose `pack` this is; it is read when it is needed. Raises TruncatedError, RemoteProtocolError then."""
    cdef PacketLog log = PacketLog()
    log.packed = data
    return log


@cython.final
cdef class PayloadSink(Muxer):
    """A muxer of nothing but payload, one packet behind the other."""

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        return self.out.append(packet.data, packet.size)


@cython.final
cdef class FrameSizes(Muxer):
    """Counts what packets of one track take in a file that holds little but their payload.

    before: bytes before each. frame_bytes: what is left of one at the end of a packet is dropped. most: packets beyond it are left out,
    and with it the empty ones; 0 for no limit.
    """

    cdef size_t before
    cdef size_t frame_bytes
    cdef size_t most
    cdef readonly int64_t total_bytes

    def __init__(self, size_t before=0, size_t frame_bytes=1, size_t most=0):
        self.before = before
        self.frame_bytes = max(frame_bytes, <size_t> 1)
        self.most = most

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if self.most and not 0 < packet.size <= self.most:
            return 0
        self.total_bytes += <int64_t> (self.before + packet.size - packet.size % self.frame_bytes)
        return 0
