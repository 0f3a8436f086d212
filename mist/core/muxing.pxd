from libc.stdint cimport int64_t, uint64_t

from mist.core.arena cimport Arena
from mist.core.muxer cimport Muxer
from mist.core.poller cimport Poller
from mist.core.track_buffer cimport Table

cdef class MuxGroup:
    cdef Poller poller
    cdef Table table
    cdef readonly object key
    cdef Muxer muxer
    cdef object reader
    cdef object reselect
    cdef list order             # track indexes, by the muxer's track number
    cdef list infos
    cdef list readers
    cdef uint64_t[64] next_sequence
    cdef int main
    cdef uint64_t seen_track_set
    cdef Arena arena
    cdef uint64_t entry_tail
    cdef uint64_t entry_head
    cdef uint64_t newest_start   # entry number, valid if has_start
    cdef bint has_start
    cdef bint ended
    cdef str end_reason
    # A group of its own, for a viewer with a position or pace of its own:
    cdef bint private
    cdef bint by_time            # tracks are merged by decode time
    cdef double rate
    cdef int64_t ahead_us
    cdef int64_t stop_us
    cdef int64_t pace_clock_us
    cdef int64_t pace_media_us
    cdef int64_t due_us          # monotonic time of the next packet, 0 when none is held back
    cdef int lead(self) except -1
    cdef int publish(self) except -1
    cdef uint64_t unsent(self) noexcept
    cdef int started(self, int64_t dts_us) except -1
    cdef int spare(self, uint64_t tail) except -1
    cdef int pump(self) except -1
    cdef int pick(self) except -2
    cdef int pick_by_time(self) except -2
    cdef int finish_removed(self) except -1
    cdef int mux_one(self, int place) except -1
    cdef int append_output(self) except -1
    cdef int add_entry(self, int64_t dts_us, uint64_t arrival, bint start) except -1
    cdef uint64_t entry_at(self, uint64_t position) noexcept
    cdef int make_room(self, size_t count) except -1
    cdef bint held_back(self, int64_t dts_us) noexcept
