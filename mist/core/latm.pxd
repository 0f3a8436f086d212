from libc.stdint cimport uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer

cdef class LatmReader:
    cdef readonly bytes config          # AudioSpecificConfig in force, b"" before the first
    cdef readonly bint changed          # the last element brought another one
    cdef readonly uint32_t rate_hz
    cdef readonly uint32_t samples      # of one frame
    cdef ByteBuffer out                 # payload of the last element
    # The element that is being read.
    cdef const uint8_t* data
    cdef size_t size_bits
    cdef size_t at

    cdef bint read(self, const uint8_t* data, size_t size) except -1
    cdef uint32_t u(self, int count) noexcept
    cdef uint32_t value(self) noexcept
    cdef bint mux_config(self) except -1
    cdef bint audio_config(self) noexcept
    cdef bytes bits(self, size_t begin, size_t end)
    cdef int payload(self, size_t size) except -1
