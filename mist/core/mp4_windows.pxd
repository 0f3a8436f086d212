from libc.stdint cimport int64_t, uint8_t

from mist.core.buffer cimport ByteBuffer

cdef enum:
    MAX_WINDOWS = 160
    WINDOW_BYTES = 1 << 18          # read at a time
    MAX_WANT_BYTES = 1 << 26        # asked for at a time where something larger is needed in one piece
    KEPT_AHEAD_BYTES = 1 << 24      # how far before a window somebody may stand for it to be kept

ctypedef struct Window:
    int64_t begin
    int64_t end
    const uint8_t* data

cdef class Windows:
    cdef Window[MAX_WINDOWS] windows
    cdef list owners                # what holds the bytes of each window
    cdef int count
    cdef int newest                 # -1 once it was forgotten
    cdef int64_t newest_end
    cdef bint needs                 # bytes are wanted
    cdef bint beyond                # what was asked for last lies behind the end of the input
    cdef int64_t need_position
    cdef int64_t need_bytes         # asked for
    cdef int64_t least_bytes        # without which nothing can go on
    cdef int64_t input_end          # no byte of the input is at or behind this
    cdef ByteBuffer partial         # of a window that came in pieces
    cdef ByteBuffer joined          # what lies in more than one window
    cdef const uint8_t* gather(self, int64_t position, size_t size, int64_t through) except? NULL
    cdef void ask(self, int64_t position, int64_t size, int64_t through) noexcept
    cdef int find(self, int64_t position) noexcept
    cdef bint has(self, int64_t position, size_t size, int64_t through) noexcept
    cdef int copy(self, int64_t position, uint8_t* room, size_t size) except -1
    cdef bytes whole(self, int64_t position, size_t size)
    cdef int take(self, object data) except -1
    cdef bint continued(self) except -1
    cdef int add(self, int64_t begin, object owner, const uint8_t* data, size_t size) except -1
    cdef int forget_until(self, int64_t position) except -1
    cdef int remove(self, int place) except -1
    cdef int trim(self, const int64_t* positions, int count) except -1
    cdef void forget_need(self) noexcept
