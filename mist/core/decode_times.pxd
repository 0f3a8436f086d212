from libc.stdint cimport int64_t

cdef enum:
    MAX_DEPTH = 16          # pictures that may be decoded before one that is shown before them (H.264 and HEVC annex A)
    MAX_WAITING = 33        # packets held until the depth is known

cdef class DecodeTimes:
    cdef readonly int depth             # of reordering; -1 until it is known
    cdef int64_t frame_us               # usual distance of pictures, 0 where not known
    cdef bint running                   # the first times are out: `advance` tells each next one at once
    cdef int waiting                    # packets added and not settled yet
    cdef int64_t[33] presented          # … when each is shown
    cdef int64_t[33] decoded            # … when each is decoded, set by `settle`
    cdef int64_t[17] window             # rising: presentation times that have not become decode times yet
    cdef int filled
    cdef int64_t last_us
    cdef bint has_last
    cdef void reset(self) noexcept
    cdef bint add(self, int64_t pts_us) noexcept
    cdef void settle(self) noexcept
    cdef bint learn(self) noexcept
    cdef void agree(self, int place, int64_t dts_us) noexcept
    cdef int64_t advance(self, int64_t pts_us) noexcept
    cdef int64_t step_us(self) noexcept
    cdef int observed(self) noexcept
    cdef int64_t rising(self, int64_t dts_us) noexcept
    cdef void insert(self, int64_t pts_us) noexcept
    cdef int64_t take(self) noexcept
    cdef int64_t usual_us(self) noexcept
    cdef bint known(self) noexcept
