"""Times and sizes of all packets of a file: what the exact length of another format's file follows from, without its payload."""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.span_index cimport SpanIndex

from array import array

MAX_LOGGED = 4 << 20             # packets, 24 bytes each: 16 hours of pictures and sound


cdef enum:
    MAX_PLACES = 64


cdef int by_time(const void* one, const void* other) noexcept nogil:
    cdef const Logged* first = <const Logged*> one
    cdef const Logged* second = <const Logged*> other
    if first.dts_us != second.dts_us:
        return -1 if first.dts_us < second.dts_us else 1
    return -1 if first.order < second.order else 1


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
        one.track, one.flags = <uint8_t> track, packet.flags & KEYFRAME
        if self.count and packet.dts_us < self.packets[self.count - 1].dts_us:
            self.in_order = False
        self.count += 1
        return 0

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
        self.sort()
        for track in range(MAX_PLACES):
            place_of[track] = places[track] if track < len(places) else -1
        counts = array("q")
        append = counts.append
        view.data = NULL
        for number in range(self.count):
            one = &self.packets[number]
            while span < spans and one.dts_us >= index.records[span].from_us:
                append(written)
                span += 1
            if place_of[one.track] < 0 or one.dts_us < from_us or one.dts_us >= to_us:
                continue
            view.dts_us, view.offset_us = one.dts_us, one.offset_us
            view.size, view.flags = one.size, one.flags
            layout.write_view(place_of[one.track], &view)
            written += 1
        while span <= spans:
            append(written)
            span += 1
        return counts


@cython.final
cdef class PayloadSink(Muxer):
    """A muxer of nothing but payload, one packet behind the other."""

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        return self.out.append(packet.data, packet.size)
