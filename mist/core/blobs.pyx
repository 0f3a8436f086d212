"""Byte strings in shared memory that connections refer to: what they must still send, and what they need to be resumed.

Only the process that writes knows which blocks are free; whoever takes over reads what records refer to.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from mist.core.shm cimport Segment

from mist.errors import SharedMemoryFull

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef extern from "<fcntl.h>" nogil:
    enum:
        FALLOC_FL_PUNCH_HOLE
        FALLOC_FL_KEEP_SIZE
    int fallocate(int, int, long, long)
    int posix_fallocate(int, long, long)

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int, const void*, size_t, long)

cdef enum:
    SMALLEST = 256
    RESERVE_STEP = 64 << 10
    RETURNED_AT = 64 << 10       # blocks from this size on give their memory back when they are freed,
    WARM_BYTES = 2 << 20         # but for so much of it, which the next ones spare themselves to ask for
    SHARED_AT = 32 << 10         # strings from this size on are kept once for all who send the same object
    KEPT_BYTES = 16 << 20        # of strings that nobody sends just now, while somebody else has the object
    OWN_REFERENCES = 2           # to an object that nobody but the store has, while it is asked about


@cython.final
cdef class BlobStore:
    """Blocks of powers of two in the part of a segment from `begin` on."""

    def __init__(self, Segment segment not None, uint64_t begin):
        self.segment = segment
        self.begin = self.bump = self.reserved = (begin + 4095) // 4096 * 4096
        self.free_blocks, self.shared, self.by_identity, self.kept, self.warm = {}, {}, {}, {}, {}

    cdef int put(self, bytes data, Blob* blob) except -1:
        """Keep a string. Raises SharedMemoryFull."""
        cdef uint64_t size = <uint64_t> len(data)
        blob.offset = blob.size = 0
        if not size:
            return 0
        if size >= SHARED_AT:
            known = self.by_identity.get(id(data))
            if known is not None:
                self.shared[known][0] += 1
                self.kept_bytes -= <uint64_t> self.kept.pop(known, 0)
                blob.offset, blob.size = known, size
                return 0
        blob.offset = self.take(size_class(size))
        if size_class(size) >= RETURNED_AT:
            self.fill(blob.offset, data)
        else:
            memcpy(self.segment.data + blob.offset, PyBytes_AS_STRING(data), size)
        blob.size = size
        if size >= SHARED_AT:
            self.shared[blob.offset] = [1, data]
            self.by_identity[id(data)] = blob.offset
        return 0

    def take(self, uint64_t size):
        """Return the offset of a block with its memory reserved. Raises SharedMemoryFull."""
        try:
            return self.place(size)
        except SharedMemoryFull:
            if not self.kept:
                raise
            self.forget_kept(0)
            return self.place(size)

    cdef int fill(self, uint64_t offset, bytes data) except -1:
        """Write a large string into its block; without memory the block is free again.

        By a call: that takes the memory, too, without a page fault for each page and without zeros in it first.
        """
        if self.written(offset, data):
            return 0
        self.forget_kept(0)
        self.forget_warm()
        if self.written(offset, data):
            return 0
        self.chill(offset, size_class(len(data)))
        raise SharedMemoryFull("no shared memory for what connections send; free /dev/shm or lower config.memory")

    cdef bint written(self, uint64_t offset, bytes data) except -1:
        """Write a string, and tell whether there was memory for all of it."""
        cdef size_t size = <size_t> len(data)
        cdef size_t done = 0
        cdef ssize_t count
        while done < size:
            count = pwrite(self.segment.fd, PyBytes_AS_STRING(data) + done, size - done, <long> (offset + done))
            if count > 0:
                done += <size_t> count
            elif count == 0 or errno != EINTR:
                return False
        return True

    def place(self, uint64_t size):
        cdef uint64_t offset
        free = self.free_blocks.get(size)
        if free:
            offset = free.pop()
            self.warm_bytes -= <uint64_t> self.warm.pop(offset, 0)
            return offset
        offset = self.bump
        if offset + size > self.segment.size:
            raise SharedMemoryFull("the memory in which connections keep what they send is full")
        if size >= RETURNED_AT:
            offset = (offset + 4095) // 4096 * 4096
            self.reserved = max(self.reserved, offset + size)
        elif offset + size > self.reserved:
            self.reserve(self.reserved, RESERVE_STEP)
            self.reserved += RESERVE_STEP
        self.bump = offset + size
        return offset

    def reserve(self, uint64_t offset, uint64_t size):
        cdef int failed = EINTR
        while failed == EINTR:
            failed = posix_fallocate(self.segment.fd, <long> offset, <long> size)
        if failed:
            raise SharedMemoryFull("no shared memory for what connections send; free /dev/shm or lower config.memory")

    cdef int drop(self, const Blob* blob) except -1:
        """Free a block, unless others refer to it too."""
        cdef uint64_t block
        if not blob.size:
            return 0
        block = size_class(blob.size)
        entry = self.shared.get(blob.offset)
        if entry is None:
            return self.release(blob.offset, block)
        entry[0] -= 1
        if entry[0]:
            return 0
        if is_held(entry[1]):  # who comes next for it spares itself the copy and the fresh memory
            self.kept[blob.offset] = block
            self.kept_bytes += block
        else:
            self.release(blob.offset, block)
        self.forget_kept(KEPT_BYTES)
        return 0

    def forget_kept(self, uint64_t most_bytes):
        """Free strings without users until they are no more than that, and the oldest is one that somebody still has."""
        cdef uint64_t offset, block
        while self.kept:
            offset = next(iter(self.kept))
            if self.kept_bytes <= most_bytes and is_held(self.shared[offset][1]):
                return
            block = self.kept.pop(offset)
            self.kept_bytes -= block
            self.release(offset, block)

    cdef int release(self, uint64_t offset, uint64_t block) except -1:
        """Free a block."""
        entry = self.shared.pop(offset, None)
        if entry is not None:
            del self.by_identity[id(entry[1])]
        if block < RETURNED_AT:
            self.free_blocks.setdefault(block, []).append(offset)
        elif self.warm_bytes + block <= WARM_BYTES:
            self.warm[offset] = block
            self.warm_bytes += block
            self.free_blocks.setdefault(block, []).append(offset)
        else:
            self.chill(offset, block)
        return 0

    cdef int chill(self, uint64_t offset, uint64_t block) except -1:
        """Free a block and give its memory back; others of its size that have theirs are used before it."""
        fallocate(self.segment.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <long> offset, <long> block)
        self.free_blocks.setdefault(block, []).insert(0, offset)
        return 0

    def forget_warm(self):
        """Give back the memory of all free blocks."""
        cdef uint64_t offset, block
        for offset, block in self.warm.items():
            fallocate(self.segment.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <long> offset, <long> block)
        self.warm.clear()
        self.warm_bytes = 0


cdef bint is_held(bytes data) noexcept:
    """Tell whether anybody but the store has the object."""
    return Py_REFCNT(data) > OWN_REFERENCES


cdef uint64_t size_class(uint64_t size) noexcept:
    cdef uint64_t block = SMALLEST
    while block < size:
        block *= 2
    return block


cdef bytes read_blob(Segment segment, const Blob* blob):
    """Return the string, b"" for one that cannot be: the writer was of another kind."""
    if not blob.size or blob.offset + blob.size > segment.size:
        return b""
    return PyBytes_FromStringAndSize(<const char*> segment.data + blob.offset, <Py_ssize_t> blob.size)
