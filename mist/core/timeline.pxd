from libc.stdint cimport int64_t

# The times of one track: given out last, asked for last (where it would be had it not been moved alone), usual distance.
ctypedef struct TrackTime:
    bint known
    bint has_step
    int64_t last_us
    int64_t asked_us
    int64_t step_us

cdef class Timeline:
    cdef readonly bint jumped           # the last packet began a new time base
    cdef readonly int64_t moved_us      # how far the last packet was moved alone, so that its presentation time can stay
    cdef readonly int64_t shift_us      # added to the input's times now
    cdef int64_t previous_us            # the shift before
    cdef bint has_previous
    cdef readonly int64_t newest_us     # the highest time given out
    cdef bint begun
    cdef bint led                       # there was a packet that was placed, not one that followed
    cdef bint resuming                  # the next packet tells the shift: it is near newest_us
    cdef int64_t[3] bases               # the shifts that may hold here, in a part of the input that was read before
    cdef int base_count
    cdef TrackTime* tracks
    cdef int capacity
    cdef int64_t place(self, int track, int64_t dts_us) except? -1
    cdef int64_t follow(self, int track, int64_t dts_us) except? -1
    cdef int64_t choose(self, TrackTime* known, int64_t dts_us) noexcept
    cdef int grow(self, int track) except -1
    cdef void resume(self, int64_t dts_us) noexcept
    cdef int know(self, tuple bases) except -1
    cdef int64_t known_base(self, int64_t dts_us, int64_t reference) noexcept
    cdef bint is_far(self, int64_t dts_us) noexcept
