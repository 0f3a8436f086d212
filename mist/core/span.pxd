from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mist.core.muxer cimport Muxer
from mist.core.packet cimport PacketView
from mist.core.shm cimport Segment

ctypedef struct SpanHeader:
    uint32_t magic
    uint32_t version
    uint32_t packets
    uint32_t tracks
    int64_t from_us
    int64_t to_us
    uint64_t payload         # byte in the segment where payload begins
    uint64_t bytes

ctypedef struct SpanPacket:
    int64_t dts_us
    int64_t offset_us
    uint64_t position        # of the payload, behind the beginning of all payload; in the order of the records
    uint32_t size
    uint32_t order           # in which the demuxer wrote them
    uint32_t flags
    uint16_t track
    uint16_t padding

cdef class SpanWriter(Muxer):
    cdef Segment segment
    cdef SpanHeader* header
    cdef SpanPacket* packets
    cdef uint8_t* payload
    cdef uint32_t packets_wanted
    cdef uint64_t room
    cdef uint64_t beyond         # bit for each track that has got past the span's end
    cdef uint64_t tracks
    cdef readonly uint32_t refused
    cdef bint sorted
    cdef int place(self) noexcept
    cdef int grow(self, size_t size) except -1
    cdef int line_up(self) except -1

cdef class Span:
    cdef Segment segment
    cdef SpanHeader* header
    cdef SpanPacket* packets
    cdef const uint8_t* payload
    cdef int write_one(self, Muxer muxer, int place, const SpanPacket* record, uint32_t flags) except -1
