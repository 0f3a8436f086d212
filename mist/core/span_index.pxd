from libc.stdint cimport int64_t, uint32_t, uint64_t

from mist.core.demuxer cimport Demuxer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport PacketView
from mist.core.shm cimport Segment

cdef enum:
    SPAN_KEY = 1             # begins with a keyframe of the main track: playing may begin here
    SPAN_VERSION = 0x100     # one of the counter in the upper bits: how often a track's init data changed before

ctypedef struct SpanRecord:
    int64_t from_us          # decode time; everything from here to the next record's
    int64_t position         # byte in the file at which reading must begin
    uint64_t bytes           # payload of its packets
    uint32_t packets
    uint32_t flags
    int64_t shift_us         # what was added to the file's times at its first packet

ctypedef struct IndexHeader:
    uint32_t magic
    uint32_t version
    uint32_t stale           # the file is another one now
    uint32_t complete
    uint64_t count           # records that readers may use
    uint64_t capacity
    int64_t end_us           # where the last published span ends
    uint32_t main            # track whose keyframes begin the spans
    uint32_t versions
    uint64_t identity[3]

cdef class SpanIndex:
    cdef Segment segment
    cdef IndexHeader* header
    cdef SpanRecord* records
    cdef bint writer
    cdef int append(self, const SpanRecord* record, int64_t to_us) except -1

ctypedef struct Loose:
    int64_t dts_us
    int64_t position
    uint64_t size

ctypedef struct TrackFigures:
    uint64_t packets
    uint64_t bytes
    int64_t first_us
    int64_t last_us
    int64_t last_length_us
    int64_t first_offset_us
    int64_t window_us        # the highest rate is that of the busiest stretch of a second or more
    uint64_t window_bytes
    uint64_t most_per_second
    bint sparse              # text and data: nobody waits for it
    bint reorders

cdef class SpanIndexer(Muxer):
    cdef SpanIndex index
    cdef Muxer log               # of the packets that are in the index
    cdef Demuxer source
    cdef int main
    cdef int64_t segment_us
    cdef SpanRecord* waiting     # spans that are not published yet, the last one still open
    cdef int waiting_count
    cdef int waiting_capacity
    cdef Loose* loose            # packets of the open span that may belong to the next one
    cdef size_t loose_count
    cdef size_t loose_capacity
    cdef TrackFigures[64] tracks
    cdef int track_count
    cdef int64_t main_last_us
    cdef uint32_t version
    cdef bint version_due
    cdef readonly uint64_t late
    cdef int cut(self, int64_t from_us, int64_t position, bint key) except -1
    cdef int put(self, int track, const PacketView* packet) except -1
    cdef int keep_loose(self, int64_t dts_us, uint64_t size) except -1
    cdef int publish(self) except -1
    cdef bint settled(self, int64_t end_us) noexcept
    cdef int measure(self, int track, const PacketView* packet) except -1
