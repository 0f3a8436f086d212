"""Times and sizes of all packets of a file: what the exact length of another format's file follows from, without its payload."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.span_index cimport SpanIndex
from mist.core.trim cimport MAX_TRIM_US, trim_flags, trim_of

from array import array

from mist.errors import RemoteProtocolError, TruncatedError

MAX_LOGGED = 4 << 20             # packets, 24 bytes each: 16 hours of pictures and sound


cdef enum:
    MAX_PLACES = 64
    LOGGED_KEY = 0x80            # beside the track, in the lowest byte of a mark and the first one of a packed packet
    PACKED_TRIM = 0x40           # the same: the trim follows the size
    MOST_PACKED_BYTES = 1 + 4 * 10


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


@cython.final
cdef class PackedNumbers:
    """Reads what `put_number` and `put_signed` wrote."""

    cdef const uint8_t* data
    cdef Py_ssize_t at
    cdef Py_ssize_t size

    cdef uint64_t number(self) except? 0xFFFFFFFFFFFFFFFF:
        """Return the next number. Raises TruncatedError, RemoteProtocolError."""
        cdef uint64_t value = 0
        cdef int shift = 0
        while True:
            if self.at >= self.size:
                raise TruncatedError("a packed packet has no end", offset=self.at)
            if shift > 63:
                raise RemoteProtocolError("a packed number of more than 64 bits", offset=self.at)
            value |= <uint64_t> (self.data[self.at] & 0x7F) << shift
            self.at += 1
            if self.data[self.at - 1] < 0x80:
                return value
            shift += 7

    cdef int64_t signed_number(self) except? -1:
        cdef uint64_t value = self.number()
        return <int64_t> (value >> 1) ^ -<int64_t> (value & 1)


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
        cdef Logged* one
        cdef Logged* grown
        if not self.whole:
            return 0
        if (
            self.count >= MAX_LOGGED or track >= MAX_PLACES or packet.size > 0xFFFFFFFF
            or packet.offset_us != <int32_t> packet.offset_us
        ):
            self.whole = False
            self.count = self.capacity = 0
            free(self.packets)
            self.packets = NULL
            return 0
        if self.count == self.capacity:
            self.capacity = self.capacity * 2 if self.capacity else 1024
            grown = <Logged*> realloc(self.packets, self.capacity * sizeof(Logged))
            if grown is NULL:
                raise MemoryError
            self.packets = grown
        one = &self.packets[self.count]
        one.dts_us, one.offset_us = packet.dts_us, <int32_t> packet.offset_us
        one.size, one.order = <uint32_t> packet.size, <uint32_t> self.count
        one.mark = <uint32_t> track | (LOGGED_KEY if packet.flags & KEYFRAME else 0) | trim_flags(trim_of(packet.flags))
        if self.count and packet.dts_us < self.packets[self.count - 1].dts_us:
            self.in_order = False
        self.count += 1
        return 0

    def pack(self):
        """Return all packets in few bytes each, for `unpack_log`."""
        cdef int64_t[MAX_PLACES] before
        cdef ByteBuffer packed = ByteBuffer()
        cdef size_t number
        cdef int track
        cdef Logged* one
        cdef uint8_t* begin
        cdef uint8_t* at
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
                int64_t from_us=INT64_MIN, int64_t to_us=INT64_MAX, measure=None):
        """Write packets without payload (data is NULL) to a sink, in the order in which the spans have them.

        places, from_us, to_us: as for `Span.mux`. Returns an array: for each span how many packets were written before it, and at its end
        how many in all; with measure what that returned there. Nothing may be logged any more afterwards.
        """
        cdef int[MAX_PLACES] place_of
        cdef PacketView view
        cdef uint64_t span = 0
        cdef uint64_t spans = index.header.count
        cdef size_t number
        cdef int64_t written = 0
        cdef int track
        cdef Logged* one
        self.sort()
        for track in range(MAX_PLACES):
            place_of[track] = places[track] if track < len(places) else -1
        counts = array("q")
        append = counts.append
        view.data = NULL
        for number in range(self.count):
            one = &self.packets[number]
            while span < spans and one.dts_us >= index.records[span].from_us:
                append(written if measure is None else measure())
                span += 1
            track = place_of[track_of(one)]
            if track < 0 or one.dts_us < from_us or one.dts_us >= to_us:
                continue
            view.dts_us, view.offset_us = one.dts_us, one.offset_us
            view.size, view.flags = one.size, (KEYFRAME if one.mark & LOGGED_KEY else 0) | trim_flags(trim_of(one.mark))
            layout.write_view(track, &view)
            written += 1
        while span <= spans:
            append(written if measure is None else measure())
            span += 1
        return counts


def unpack_log(bytes data not None):
    """Return the log whose `pack` this is. Raises RemoteProtocolError, TruncatedError."""
    cdef int64_t[MAX_PLACES] before
    cdef PacketLog log = PacketLog()
    cdef PackedNumbers numbers = PackedNumbers()
    cdef PacketView view
    cdef uint8_t head
    cdef uint64_t trim_us
    cdef int track
    for track in range(MAX_PLACES):
        before[track] = 0
    numbers.data = <const uint8_t*> PyBytes_AS_STRING(data)
    numbers.size = len(data)
    view.data = NULL
    while numbers.at < numbers.size:
        head = numbers.data[numbers.at]
        track = head & (MAX_PLACES - 1)
        view.flags = KEYFRAME if head & LOGGED_KEY else 0
        numbers.at += 1
        view.dts_us = before[track] + numbers.signed_number()
        view.offset_us = numbers.signed_number()
        view.size = <size_t> numbers.number()
        if head & PACKED_TRIM:
            trim_us = numbers.number()
            if not 0 < trim_us <= MAX_TRIM_US:
                raise RemoteProtocolError(f"a packed packet that loses {trim_us} microseconds", offset=numbers.at)
            view.flags |= trim_flags(<int64_t> trim_us)
        before[track] = view.dts_us
        log.write_view(track, &view)
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
