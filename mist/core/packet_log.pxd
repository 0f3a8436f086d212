from libc.stdint cimport int32_t, int64_t, uint32_t

from mist.core.muxer cimport Muxer
from mist.core.packet cimport PacketView

ctypedef struct Logged:
    int64_t dts_us
    int32_t offset_us
    uint32_t size
    uint32_t order
    uint32_t mark                    # the track's number, LOGGED_KEY, and the trim where flags of packets have it

cdef class PacketLog(Muxer):
    cdef Logged* packets
    cdef readonly size_t count
    cdef size_t capacity
    cdef readonly bint whole         # nothing had to be left out
    cdef readonly bint ordered       # each track by its decode times
    cdef int64_t[64] newest          # time of each track's last packet
    cdef object packed               # all packets as `pack` returns them, until they are needed one by one; else None
    cdef int add(self, Logged* one) except -1
    cdef int give_up(self) except -1
    cdef PacketLog by_times(self)
