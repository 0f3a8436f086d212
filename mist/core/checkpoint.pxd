from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.shm cimport Segment

cdef enum:
    MAX_CURSORS = 16

# One connection. Fixed size, so that its place never moves; written by the worker, read by the statistics and, after
# a crash, by the replacement.
ctypedef struct ConnectionRecord:
    uint32_t state           # 0 free, 1 active, 2 ended
    uint32_t generation      # rises with each use of the record
    uint32_t pid
    uint32_t connection      # the guardian's number of the connection, 0 unknown
    char connector[32]
    char stream[128]
    char host[48]
    char token[128]
    int64_t started_us
    int64_t updated_us
    uint64_t down_bytes
    uint64_t up_bytes
    int64_t position_us
    uint64_t packets
    uint64_t packets_lost
    uint64_t packets_retransmitted
    # Recovery: where in the bytes of this connection the next packet begins, and what the muxer needs to go on.
    uint64_t base_bytes      # the kernel's count of bytes handed over when the connection was accepted
    uint64_t boundary_bytes  # bytes of the connection before the packet that is being sent
    uint64_t arrival         # of that packet
    char format[32]
    uint32_t track_count
    uint32_t tracks[16]
    uint64_t next_sequence[16]
    uint32_t muxer_state_size
    uint8_t muxer_state[128]

cdef class Record:
    cdef ConnectionRecord* data
    cdef Segment segment
    cdef readonly int number
    cdef void count(self, uint64_t down, uint64_t up, int64_t now_us) noexcept
