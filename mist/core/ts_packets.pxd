from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from mist.core.buffer cimport ByteBuffer

cdef enum:
    PACKET = 188
    BODY = 184               # of a packet, behind its header

cdef enum:                   # adaptation field flags
    AF_DISCONTINUITY = 0x80
    AF_RANDOM_ACCESS = 0x40
    AF_PCR = 0x10

# A run of bytes to be sent, borrowed.
ctypedef struct Piece:
    const uint8_t* data
    size_t size

# One elementary stream. setup: what goes before a keyframe that has no parameter sets of its own (borrowed).
ctypedef struct Elementary:
    uint16_t pid
    uint8_t form
    uint8_t video
    uint8_t stream_id
    uint8_t counter          # continuity counter of the next packet with payload
    uint8_t[4] adts          # bytes 0 to 3 of the ADTS header, frame length 0
    const uint8_t* setup
    size_t setup_size

cdef uint64_t clock_90khz(int64_t time_us) noexcept nogil
cdef uint8_t* put_stamp(uint8_t* target, int prefix, uint64_t ticks) noexcept nogil
cdef void put_pcr(uint8_t* target, int64_t pcr_us) noexcept nogil
cdef uint8_t* put_pcr_packet(uint8_t* target, const Elementary* es, int64_t pcr_us) noexcept nogil
cdef uint8_t* packetize(
    uint8_t* target, const Piece* piece, size_t left, Elementary* es, uint8_t flags, int64_t pcr_us
) noexcept nogil
cdef void split_packet(uint8_t* packet, size_t extra, size_t behind) noexcept nogil
cdef int write_section(ByteBuffer out, int pid, bytes content, int counter) except -1
