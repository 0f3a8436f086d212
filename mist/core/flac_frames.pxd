from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    MAX_FLAC_HEADER_BYTES = 16

ctypedef struct FlacHeader:
    bint variable_block         # number is that of the first sample, else that of the frame
    int64_t number
    uint32_t block_samples
    uint32_t sample_rate_hz     # 0: as the stream information says
    uint32_t channels
    uint32_t sample_bits        # 0: as the stream information says
    size_t size                 # bytes, with its checksum

# 1: there is one; 0: there is none; -1: more bytes are needed to tell.
cdef int parse_flac_header(const uint8_t* data, size_t size, FlacHeader* header) noexcept nogil
# CRC-16 of bytes, going on from crc (0 at the start). Over a frame with its checksum it is 0.
cdef uint16_t flac_crc16(const uint8_t* data, size_t size, uint16_t crc) noexcept nogil
