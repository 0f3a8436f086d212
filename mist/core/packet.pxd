from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    KEYFRAME = 1        # random access point
    NEW_INIT = 2        # the track's init data or properties changed just before this packet
    DISCONTINUITY = 4   # the source restarted or jumped here (its times were repaired)

# One packet as muxers see it: payload is borrowed and valid for the call only.
ctypedef struct PacketView:
    int64_t dts_us
    int64_t offset_us
    uint32_t flags
    const uint8_t* data
    size_t size

cdef class Packet:
    cdef readonly int track
    cdef readonly int64_t dts_us
    cdef readonly int64_t offset_us
    cdef readonly bint keyframe
    cdef readonly bytes payload
    cdef void view(self, PacketView* out) noexcept
