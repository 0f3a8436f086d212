from libc.stdint cimport uint64_t

from mist.core.checkpoint cimport Record
from mist.core.muxing cimport MuxGroup
from mist.core.poller cimport Poller

cdef class Subscription:
    cdef readonly int fd
    cdef Poller poller
    cdef MuxGroup group
    cdef uint64_t position
    cdef bytes pending           # goes before the media at `position`
    cdef size_t pending_sent
    cdef list out_of_band
    cdef bint blocked
    cdef bint paused
    cdef bint waiting            # for the first packet where it may begin
    cdef bint dead
    cdef bint dirty              # the record does not say what comes next
    cdef bint holding            # nothing is sent before what was received is written down
    cdef bytes state             # for the record, None when it has the newest
    cdef str reason
    cdef str leaving             # why it ends at position `until`, None if it goes on
    cdef uint64_t until
    cdef object on_close
    cdef object on_readable
    cdef Record record
    cdef readonly uint64_t bytes_sent
    cdef uint64_t sent_before    # bytes of the connection before those
    cdef uint64_t received
    cdef int flush(self) noexcept
    cdef int send_pending(self) noexcept
    cdef int note_sent(self, ssize_t count) noexcept
    cdef int take_out_of_band(self) noexcept
    cdef int skip_ahead(self, uint64_t number) except -1
    cdef int publish(self) noexcept
    cdef int resume(self) except -1
    cdef int begin_at(self, uint64_t number) except -1
