from mist.core.buffer cimport ByteBuffer
from mist.core.packet cimport PacketView

cdef class Muxer:
    cdef readonly ByteBuffer out
    cdef int begin_here(self) except -1
    cdef int write_view(self, int track, const PacketView* packet) except -1
