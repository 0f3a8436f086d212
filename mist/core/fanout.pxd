from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.checkpoint cimport Record
from mist.core.doorbell cimport Doorbell
from mist.core.muxer cimport Muxer
from mist.core.track_buffer cimport Table, TrackReader

# Where one muxed packet begins in the group's byte stream.
ctypedef struct Entry:
    uint64_t position
    int64_t dts_us
    uint64_t arrival
    bint start              # a viewer may begin here

cdef class Arena:
    cdef uint8_t* base
    cdef int fd
    cdef readonly uint64_t tail
    cdef readonly uint64_t end
    cdef uint64_t punched
    cdef int append(self, const uint8_t* source, size_t count) except -1
    cdef int release(self, uint64_t upto) noexcept

cdef class Subscription:
    cdef readonly int fd
    cdef Fanout fanout
    cdef Group group
    cdef uint64_t position
    cdef bytes pending          # goes before the media at `position`
    cdef size_t pending_sent
    cdef list out_of_band
    cdef bint blocked
    cdef bint paused
    cdef bint waiting           # for the first packet where it may begin
    cdef bint dead
    cdef str reason
    cdef object on_close
    cdef object on_readable
    cdef Record record
    cdef readonly uint64_t bytes_sent
    cdef int flush(self) noexcept
    cdef int send_pending(self) noexcept
    cdef int note_sent(self, ssize_t count) noexcept

cdef class Group:
    cdef Fanout fanout
    cdef Watch watch
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
    cdef Entry* entries
    cdef size_t entry_capacity
    cdef uint64_t entry_tail
    cdef uint64_t entry_head
    cdef uint64_t newest_start   # entry number, valid if has_start
    cdef bint has_start
    cdef list subscriptions
    cdef Py_ssize_t first        # place of the viewer that is served first next time
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
    cdef int pump(self) except -1
    cdef int pick(self) except -2
    cdef int pick_by_time(self) except -2
    cdef int mux_one(self, int place) except -1
    cdef int add_entry(self, int64_t dts_us, uint64_t arrival, bint start) except -1
    cdef uint64_t entry_at(self, uint64_t position) noexcept
    cdef int flush(self) except -1
    cdef int skip_ahead(self, Subscription viewer, uint64_t number) except -1
    cdef int make_room(self, size_t count) except -1
    cdef bint held_back(self, int64_t dts_us) noexcept

cdef class Watch:
    cdef readonly object reader
    cdef Table table
    cdef int slot
    cdef readonly uint32_t cookie
    cdef list groups
    cdef list callbacks
    cdef bint due

cdef class Fanout:
    cdef readonly int fd
    cdef int timer_fd
    cdef Doorbell bell
    cdef dict watches            # cookie -> Watch
    cdef dict by_name            # stream name -> Watch
    cdef dict subscriptions      # fd -> Subscription
    cdef list dead
    cdef uint32_t last_cookie
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
    cdef object failure
    cdef int loop_fd
    cdef bint called             # Python code ran, which may have given the event loop something to do
    cdef int turn(self) except -1
    cdef bint loop_has_more(self) noexcept
    cdef int deliver(self, Watch watch) except -1
    cdef int deliver_group(self, Group group) except -1
    cdef int interest(self, Subscription viewer, bint writable) noexcept
    cdef int set_timer(self, int64_t at_us) noexcept
    cdef int service(self, Watch watch) except -1
    cdef int reap(self) except -1
    cdef int adapt(self) noexcept
