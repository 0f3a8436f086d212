from libc.stdint cimport int64_t, uint32_t, uint64_t

from mist.core.doorbell cimport Doorbell

cdef class Poller:
    cdef readonly int fd
    cdef int timer_fd
    cdef Doorbell bell
    cdef dict subscriptions      # fd -> Subscription
    cdef list dead
    cdef int64_t now_us
    cdef int64_t wall_us
    cdef int64_t timer_at_us
    cdef readonly int64_t merge_us
    cdef bint merge_auto
    cdef int64_t merge_max_us
    cdef int64_t flush_at_us
    cdef int64_t load_clock_us
    cdef int64_t load_cpu_us
    cdef int64_t lateness_us
    cdef readonly uint64_t wakeups
    cdef int loop_fd
    cdef bint called             # Python code ran, which may have given the event loop something to do
    cdef int turn(self) except -1
    cdef int rung(self, uint32_t cookie) except -1
    cdef int socket_event(self, int fd, uint32_t happened) except -1
    cdef int serve(self, bint timer) except -1
    cdef int end_turn(self) except -1
    cdef bint loop_has_more(self) noexcept
    cdef int forget(self, int fd) noexcept
    cdef int interest(self, int fd, bint writable) noexcept
    cdef int set_timer(self, int64_t at_us) noexcept
    cdef int adapt(self) noexcept
