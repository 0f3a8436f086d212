from libc.stdint cimport uint8_t

from mist.core.buffer cimport ByteBuffer

cdef class SectionReader:
    cdef ByteBuffer held
    cdef bint open              # a section is under way in `held`
    cdef int counter            # continuity counter of the last packet, -1 unknown
    cdef bint tables            # only sections with the long header and a right CRC
    cdef bytes newest           # the last section given out
    cdef list feed(self, const uint8_t* data, size_t size, bint start, int counter, bint broken)
    cdef int more(self, const uint8_t* data, size_t size, list found) except -1
    cdef int check(self, list found) except -1
