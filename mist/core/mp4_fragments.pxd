from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    MAX_FRAGMENT_TRACKS = 64
    MAX_QUEUED_SAMPLES = 1 << 20    # of all tracks together: fragments are read ahead of their media

ctypedef struct FragmentSample:
    int64_t position                # byte in the file
    int64_t fragment                # byte where its moof begins, or the first event before that
    int64_t dts_ticks
    int64_t offset_ticks
    uint32_t size
    uint32_t duration
    uint32_t description            # sample entry, from 0
    bint key

# What trex and then tfhd say of samples that say nothing themselves.
ctypedef struct Defaults:
    uint32_t description
    uint32_t duration
    uint32_t size
    uint32_t flags

ctypedef struct FragmentTrack:
    uint32_t track_id
    bint unread                     # only its places count
    Defaults defaults
    int64_t next_ticks              # decode time where the last fragment ended
    bint timed                      # next_ticks is known: not before the first fragment and after a jump
    int64_t negative_ticks          # how far composition went before decoding
    FragmentSample* samples         # a queue: from first to end
    size_t first
    size_t end
    size_t capacity

cdef class FragmentReader:
    cdef FragmentTrack[MAX_FRAGMENT_TRACKS] tracks
    cdef int count                  # that are read
    cdef int named                  # and those passed over behind them
    cdef int64_t resume             # of the samples that are read next: their `fragment`, -1 where that is their moof
    cdef int own_base               # whether positions of data in the first moof begin at its own first byte; -1 unknown
    cdef bint is_placed             # such a position was read in this moof
    cdef int64_t moved              # where they do, how far this moof is from where it says: bytes are missing before it, or too many
    cdef readonly size_t queued     # samples of all tracks
    cdef readonly int64_t queued_bytes
    cdef FragmentSample* head(self, int track) noexcept
    cdef void drop(self, int track) noexcept
    cdef void clear(self) noexcept
    cdef int read(self, const uint8_t* moof, size_t size, int64_t position) except -1
    cdef int read_track(self, const uint8_t* body, size_t size, int64_t position, int64_t fragment, int64_t* data_end) except -1
    cdef int read_time(self, FragmentTrack* track, const uint8_t* kind, const uint8_t* inner, size_t size, int64_t position) except -1
    cdef FragmentTrack* read_header(self, const uint8_t* body, size_t size, int64_t position, int64_t fragment,
                                    Defaults* defaults, int64_t* base) except? NULL
    cdef int read_run(self, FragmentTrack* track, const uint8_t* body, size_t size, int64_t position, int64_t fragment,
                      const Defaults* defaults, int64_t base, int64_t* data_end) except -1
    cdef int append(self, FragmentTrack* track, const FragmentSample* sample) except -1
