from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.blobs cimport Blob, BlobStore
from mist.core.shm cimport Segment

cdef enum:
    WAITING = 1              # for the first packet where it may begin
    PAUSED = 2

# What a replacement goes on from. Bytes are counted from the moment the connection was accepted.
ctypedef struct Progress:
    uint64_t sent_at         # bytes handed to the kernel when this was written; `pending` begins there
    uint64_t received        # bytes that `state` takes into account
    uint64_t arena           # number of the arena that the media comes from, 0: none
    uint64_t position        # in the arena, of what follows `pending`
    uint32_t flags
    uint32_t padding
    Blob pending[2]
    Blob between             # to be sent at the next boundary between two packets
    Blob state               # what the protocol needs to go on

# One connection. Fixed size, so that its place never moves; written by the worker, read by the statistics and, after
# a crash, by the replacement.
ctypedef struct ConnectionRecord:
    uint32_t state           # 0 free, 1 active, 2 ended
    uint32_t generation      # rises with each use of the record
    uint32_t pid
    uint32_t connection      # the guardian's number of the connection, 0 unknown
    uint64_t identity        # unique while the server runs, and the same in every process that goes on with the connection
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
    # Recovery
    uint64_t base_sent       # the kernel's counts when the connection was accepted
    uint64_t base_received
    uint32_t recoverable     # a replacement can go on with the connection
    uint32_t current         # which progress holds
    Progress progress[2]

cdef class Record:
    cdef ConnectionRecord* data
    cdef Segment segment
    cdef BlobStore blobs
    cdef uint32_t* handling      # the table's
    cdef readonly int number
    cdef Progress* begin(self) noexcept
    cdef int commit(self) except -1
    cdef int replace(self, Blob* old, Blob* fresh) except -1
    cdef int count_once(self, const Blob* old, const Blob* fresh) except -1
    cdef int fill(self, Progress* fresh, list pending, bytes between, bytes state) except -1
    cdef Progress* held(self) noexcept
    cdef void count(self, uint64_t down, uint64_t up, int64_t now_us) noexcept
