from libc.stdint cimport uint32_t

cdef class Ringer:
    cdef int fd
    cdef bytes folder
    cdef int ring(self, uint32_t pid, uint32_t cookie) noexcept

cdef class Doorbell:
    cdef readonly int fd
    cdef readonly str path
    cdef int next_cookie(self, uint32_t* cookie) noexcept
