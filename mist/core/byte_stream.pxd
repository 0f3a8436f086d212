from libc.stdint cimport int64_t, uint8_t

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer

cdef class ByteStreamDemuxer(Demuxer):
    cdef ByteBuffer kept        # bytes read and not parsed yet
    cdef int64_t base           # input position of the first byte that `parse` is given
    cdef int64_t next_read      # input position of the byte to be fed next
    cdef size_t skip            # bytes to pass over before going on
    # Take what is complete and return how many bytes that was; more than size: pass over the bytes to come as well.
    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF
    # The input ended; `parse` has had its last call.
    cdef int finish(self) except -1
    cdef int restart(self, int64_t position) except -1
    cdef int take(self, const uint8_t* data, size_t size) except -1
