from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    ARENA_SIZE = 64 << 20        # bytes of the ring
    STATE_LIMIT = 1024           # bytes of a muxer's state

# Where one muxed packet begins in the group's byte stream.
ctypedef struct Entry:
    uint64_t position
    int64_t dts_us
    uint64_t arrival
    uint64_t start               # a viewer may begin here

# What another process needs to go on with a group: all of it holds at the same moment.
ctypedef struct GroupState:
    uint64_t end
    uint64_t tail
    uint64_t entry_tail
    uint64_t entry_head
    uint64_t entry_capacity
    uint64_t newest_start
    uint64_t seen_track_set
    int64_t ahead_us
    int64_t stop_us
    int64_t pace_clock_us
    int64_t pace_media_us
    double rate
    uint32_t has_start
    uint32_t ended
    uint32_t private_
    uint32_t by_time
    uint32_t track_count
    uint32_t text_area           # which of the two areas has the description of the tracks
    uint32_t text_size
    uint32_t muxer_state_size
    char end_reason[64]
    uint32_t tracks[64]
    uint64_t next_sequence[64]
    uint8_t muxer_state[1024]

ctypedef struct ArenaHeader:
    uint32_t magic
    uint32_t version
    uint64_t number
    uint64_t stream_inode        # of the stream's table in shared memory
    uint32_t current             # which state holds
    uint32_t padding
    GroupState states[2]

cdef class Arena:
    cdef uint8_t* base           # of the ring, which is mapped twice in a row
    cdef uint8_t* area
    cdef readonly int fd
    cdef ArenaHeader* header
    cdef Entry* entries
    cdef size_t entry_capacity
    cdef readonly uint64_t tail
    cdef readonly uint64_t end
    cdef uint64_t punched
    cdef uint32_t text_area
    cdef uint32_t text_size
    cdef int map(self) except -1
    cdef int grow_entries(self, uint64_t tail, uint64_t head) except -1
    cdef int append(self, const uint8_t* source, size_t count) except -1
    cdef int release(self, uint64_t upto) noexcept
    cdef int describe(self, bytes text) except -1
    cdef bytes description(self, const GroupState* state)
    cdef GroupState* next_state(self) noexcept
    cdef GroupState* state(self) noexcept
    cdef int publish(self) noexcept
