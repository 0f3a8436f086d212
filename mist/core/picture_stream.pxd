from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer
from mist.core.byte_stream cimport ByteStreamDemuxer

cdef class Picture:
    cdef ByteBuffer data
    cdef int64_t order          # in presentation, higher is later
    cdef int64_t number         # in decoding
    cdef int64_t rank           # in presentation; -1 while not known
    cdef int64_t position
    cdef bint key
    cdef object info            # TrackInfo that begins here, or None

cdef class PictureStreamDemuxer(ByteStreamDemuxer):
    cdef Picture current        # being gathered, or None
    cdef list waiting           # in decoding order
    cdef list spare
    cdef size_t waiting_bytes
    cdef int depth              # pictures that may precede one in decoding and follow it in presentation; -1 unknown
    cdef int unranked
    cdef int64_t count
    cdef int64_t next_rank
    cdef int64_t base_us        # time of the picture `base_count`
    cdef int64_t base_count
    cdef int64_t rate           # pictures in `rate_period` seconds
    cdef int64_t rate_period
    cdef int set_rate(self, int64_t rate, int64_t period) except -1
    cdef int set_depth(self, int depth) except -1
    cdef int64_t time_of(self, int64_t number) noexcept
    cdef int begin_picture(self, int64_t position) except -1
    cdef int check_size(self, size_t more) except -1
    cdef int close_picture(self) except -1
    cdef int flush_sample(self) except -1
    cdef int rank_next(self) except -1
    cdef int write_ranked(self) except -1
    cdef int flush_pictures(self) except -1
    cdef int write_picture(self, Picture picture) except -1
