from libc.stdint cimport uint32_t

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef class Ringer:
    cdef int fd
    cdef bytes folder
    cdef int ring(self, uint32_t pid, uint32_t cookie) noexcept
    cdef bint is_gone(self, uint32_t pid) noexcept
    cdef void address_of(self, uint32_t pid, sockaddr_un* address) noexcept

cdef class Doorbell:
    cdef readonly int fd
    cdef readonly str path
    cdef int next_cookie(self, uint32_t* cookie) noexcept
