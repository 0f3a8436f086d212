from libc.stdint cimport uint64_t

from mist.core.shm cimport Segment

ctypedef struct Blob:
    uint64_t offset              # in the segment
    uint64_t size                # 0: nothing there

cdef class BlobStore:
    cdef Segment segment
    cdef uint64_t begin
    cdef uint64_t bump
    cdef uint64_t reserved
    cdef dict free_blocks        # size class -> [offset]
    cdef dict shared             # offset -> [users, the bytes]
    cdef dict by_identity
    cdef dict kept               # offset -> its block's size, of shared strings without users; the one unused for longest is first
    cdef uint64_t kept_bytes
    cdef dict warm               # offset -> size, of free large blocks that have their memory
    cdef uint64_t warm_bytes
    cdef int put(self, bytes data, Blob* blob) except -1
    cdef int fill(self, uint64_t offset, bytes data) except -1
    cdef bint written(self, uint64_t offset, bytes data) except -1
    cdef int chill(self, uint64_t offset, uint64_t block) except -1
    cdef int drop(self, const Blob* blob) except -1
    cdef int release(self, uint64_t offset, uint64_t block) except -1

cdef bytes read_blob(Segment segment, const Blob* blob)
