from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "mist/core/atomics.h" nogil:
    uint64_t load64(const uint64_t*)
    void store64(uint64_t*, uint64_t)
    uint32_t load32(const uint32_t*)
    void store32(uint32_t*, uint32_t)
    uint64_t add64(uint64_t*, uint64_t)
    uint64_t or64(uint64_t*, uint64_t)
    uint64_t and64(uint64_t*, uint64_t)
    uint64_t swap64(uint64_t*, uint64_t)
    int cas32(uint32_t*, uint32_t, uint32_t)
    int cas64(uint64_t*, uint64_t, uint64_t)
    void fence()
    int lowest_bit(uint64_t)

cdef class Segment:
    cdef uint8_t* data
    cdef readonly size_t size        # bytes mapped
    cdef readonly size_t allocated   # bytes that memory is reserved for (creator only)
    cdef readonly str name
    cdef int fd                      # kept by a creator that still grows, else -1
    cdef int allocate(self, size_t upto) except -1
    cdef int settle(self) noexcept
    cdef int extend(self, size_t size) except -1

cdef int64_t monotonic_us() noexcept nogil
cdef int64_t unix_us() noexcept nogil
