from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef class BitReader:
    cdef readonly bytes data
    cdef const uint8_t* bytes_at    # borrowed from data
    cdef Py_ssize_t position_bits
    cdef Py_ssize_t size_bits
    cdef uint64_t read(self, int count) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t read_ue(self) except? 0xFFFFFFFFFFFFFFFF
    cdef int need(self, Py_ssize_t count) except -1

cdef class BitWriter:
    cdef bytearray written
    cdef uint64_t pending
    cdef int pending_bits
    cdef int put(self, uint64_t value, int count) except -1
