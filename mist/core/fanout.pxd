from libc.stdint cimport int64_t, uint32_t, uint64_t

from mist.core.muxing cimport MuxGroup
from mist.core.poller cimport Poller
from mist.core.track_buffer cimport Table

cdef class Group(MuxGroup):
    cdef Fanout fanout
    cdef Watch watch
    cdef list subscriptions
    cdef bint alone              # nobody joins later: nothing is kept for that
    cdef Py_ssize_t first        # place of the viewer that is served first next time
    cdef int flush(self) except -1

cdef class Watch:
    cdef readonly object reader
    cdef Table table
    cdef int slot
    cdef readonly uint32_t cookie
    cdef uint64_t inode          # of the stream's table: another one is another stream, whatever its name
    cdef list groups
    cdef list callbacks
    cdef bint due

cdef class Fanout(Poller):
    cdef dict watches            # cookie -> Watch
    cdef dict by_name            # stream name -> Watch
    cdef dict adopted            # number of the arena -> Group
    cdef uint32_t last_cookie
    cdef uint32_t last_arena
    cdef object failure
    cdef public object arena_made
    cdef public object arena_gone
    cdef int keep_group(self, Group group) except -1
    cdef int deliver(self, Watch watch) except -1
    cdef int deliver_group(self, Group group) except -1
    cdef int service(self, Watch watch) except -1
    cdef int reap(self) except -1
