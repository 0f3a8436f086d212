from mist.core.buffer cimport ByteBuffer
from mist.core.packet cimport PacketView

cdef class Muxer:
    cdef readonly ByteBuffer out
    cdef int write_view(self, int track, const PacketView* packet) except -1
