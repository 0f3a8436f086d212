from libc.stdint cimport uint8_t, uint32_t

# CRC-32/MPEG-2 of bytes, going on from crc (0xFFFFFFFF at the start). Over a section with its CRC it is 0.
cdef uint32_t crc32_mpeg2_of(const uint8_t* data, size_t size, uint32_t crc) noexcept nogil
