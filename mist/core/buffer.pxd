from libc.stdint cimport uint8_t

cdef class ByteBuffer:
    cdef uint8_t* data      # owned; valid from 0 to size
    cdef size_t size        # bytes written
    cdef size_t capacity
    cdef uint8_t* reserve(self, size_t count) except NULL
    cdef int append(self, const uint8_t* source, size_t count) except -1

    cdef inline void commit(self, size_t count) noexcept:
        self.size += count

    cdef inline void clear(self) noexcept:
        self.size = 0
