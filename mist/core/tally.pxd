from cpython cimport array
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    NAME_BYTES = 336             # connector, stream, host and token of a connection's record

cdef class ConnectionSnapshot:
    cdef char raw_names[NAME_BYTES]
    cdef uint64_t identity
    cdef readonly object record_id
    cdef readonly tuple names
    cdef readonly int64_t pid, started_us, updated_us, down_bytes, up_bytes, position_us
    cdef readonly int64_t packets, packets_lost, packets_retransmitted
    cdef readonly bint active

cdef class History:
    cdef readonly int width
    cdef array.array fine
    cdef array.array coarse
    cdef int add(self, int64_t* row) except -1

cdef class Counted:
    cdef public int64_t up, down, packets, lost, resent

cdef class StreamCounts(Counted):
    cdef public int64_t viewseconds

cdef class SessionCounts(Counted):
    cdef public int64_t position_ms, connected_s, unspent_s, touched, seen, linger_s, ended
    cdef public bint counted, watches
    cdef public History history
    cdef public StreamCounts home_totals

cdef class Connection:
    cdef public tuple key
    cdef public SessionCounts session
    cdef public StreamCounts totals
    cdef public Counted series
    cdef public int64_t sent, received, packets, lost, resent, seen
