"""Named shared-memory segments.

Memory is reserved before it is written: a full /dev/shm is an error at one known place instead of a SIGBUS anywhere.
"""

cimport cython
from libc.errno cimport EEXIST, EINTR, ENOENT, ENOSPC, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport strerror
from posix.fcntl cimport O_CREAT, O_EXCL, O_RDONLY, O_RDWR
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap, shm_open, shm_unlink
from posix.stat cimport fstat, struct_stat
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close, ftruncate

from mist.errors import NotFound, SharedMemoryFull

cdef extern from "<stdio.h>" nogil:
    int rename(const char* old, const char* new)

cdef extern from "<fcntl.h>" nogil:
    int posix_fallocate(int fd, long offset, long count)

cdef extern from "<sys/mman.h>" nogil:
    int memfd_create(const char* name, unsigned int flags)
    void* mremap(void* data, size_t old_size, size_t new_size, int flags, ...)
    int madvise(void* data, size_t size, int advice)
    enum: MFD_CLOEXEC
    enum: MREMAP_MAYMOVE

SEGMENT_MODE = 0o600

cdef enum:
    POPULATE_WRITE = 23              # MADV_POPULATE_WRITE of Linux 5.14


cdef int64_t monotonic_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef int64_t unix_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t> now.tv_sec * 1000000 + now.tv_nsec // 1000


def monotonic_now_us():
    """Return the clock that stream tables use, microseconds."""
    return monotonic_us()


@cython.final
cdef class Segment:
    """One mapped shared-memory object.

    Made by `create` or `open_segment`. The mapping stays valid after the name is unlinked, for as long as this object
    lives; whoever keeps a pointer into it keeps the object.
    """

    def __cinit__(self):
        self.data = NULL
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        if self.data is not NULL:
            munmap(self.data, self.size)

    cdef int allocate(self, size_t upto) except -1:
        """Reserve memory for the first `upto` bytes; SharedMemoryFull when there is none."""
        cdef int failed
        if upto <= self.allocated:
            return 0
        if upto > self.size:
            upto = self.size
        failed = EINTR
        while failed == EINTR:
            failed = posix_fallocate(self.fd, <long> self.allocated, <long> (upto - self.allocated))
        if failed:
            raise SharedMemoryFull(
                f"no room for {upto - self.allocated} bytes of shared memory in {self.name}: "
                f"{strerror(failed).decode()}; free /dev/shm or lower config.memory"
            )
        self.allocated = upto
        return 0

    cdef int extend(self, size_t size) except -1:
        """Make a segment of `create_memory` larger, with all its memory reserved; its data may move."""
        cdef void* data
        if ftruncate(self.fd, <long> size) < 0:
            raise_os_error(self.name)
        data = mremap(self.data, self.size, size, MREMAP_MAYMOVE)
        if data is MAP_FAILED:
            raise_os_error(self.name)
        self.data = <uint8_t*> data
        self.size = size
        return self.allocate(size)

    def fileno(self):
        """Return the descriptor of a segment that still has it, else -1."""
        return self.fd

    cdef int settle(self) noexcept:
        """Give up the descriptor: the segment grows no more."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        return 0


def create_segment(str name not None, size_t size, size_t reserve):
    """Create a segment, replacing one of the same name that a killed process left.

    size: bytes mapped. reserve: bytes that memory is reserved for at once.
    Raises SharedMemoryFull, OSError.
    """
    cdef bytes path = b"/" + name.encode()
    cdef Segment segment = Segment()
    cdef int fd = shm_open(path, O_CREAT | O_EXCL | O_RDWR, SEGMENT_MODE)
    if fd < 0 and errno == EEXIST:
        shm_unlink(path)
        fd = shm_open(path, O_CREAT | O_EXCL | O_RDWR, SEGMENT_MODE)
    if fd < 0:
        raise_os_error(name)
    segment.fd = fd
    segment.name = name
    if ftruncate(fd, <long> size) < 0:
        shm_unlink(path)
        raise_os_error(name)
    map_segment(segment, size, True)
    try:
        segment.allocate(reserve)
    except SharedMemoryFull:
        shm_unlink(path)
        raise
    return segment


def open_segment(str name not None, bint writable=False, bint growing=False):
    """Open a segment that another process made; with `growing`, memory can be reserved in it.

    Raises NotFound when there is none.
    """
    cdef bytes path = b"/" + name.encode()
    cdef struct_stat status
    cdef Segment segment = Segment()
    cdef int fd = shm_open(path, O_RDWR if writable else O_RDONLY, 0)
    if fd < 0:
        if errno == ENOENT:
            raise NotFound(f"no shared memory of the name {name}")
        raise_os_error(name)
    segment.fd = fd
    segment.name = name
    if fstat(fd, &status) < 0:
        raise_os_error(name)
    if status.st_size <= 0:
        raise NotFound(f"shared memory {name} is not made yet")
    map_segment(segment, <size_t> status.st_size, writable)
    if not growing:
        segment.settle()
    return segment


def create_memory(str label not None, size_t size):
    """Make a segment without a name, which others get by its descriptor; it goes with the last that holds it.

    label: what /proc shows of it. size: bytes, all of them reserved. Raises SharedMemoryFull, OSError.
    """
    cdef Segment segment = Segment()
    segment.name = label
    segment.fd = memfd_create(label.encode(), MFD_CLOEXEC)
    if segment.fd < 0 or ftruncate(segment.fd, <long> size) < 0:
        raise_os_error(label)
    map_segment(segment, size, True)
    if madvise(segment.data, size, POPULATE_WRITE) == 0:   # it will all be written: memory and its mapping in one call
        segment.allocated = size
    segment.allocate(size)
    return segment


def map_memory(str label not None, int fd):
    """Map what another process made with `create_memory`, for reading. The descriptor stays the caller's.

    Raises NotFound when it is empty, OSError.
    """
    cdef struct_stat status
    cdef Segment segment = Segment()
    segment.name = label
    if fstat(fd, &status) < 0:
        raise_os_error(label)
    if status.st_size <= 0:
        raise NotFound(f"shared memory {label} is empty")
    segment.fd = fd
    try:
        map_segment(segment, <size_t> status.st_size, False)
    finally:
        segment.fd = -1
    return segment


def unlink_segment(str name not None):
    """Remove a name; mappings stay valid. A name that does not exist is fine."""
    shm_unlink(b"/" + name.encode())


def rename_segment(Segment segment not None, str name not None):
    """Give a segment another name, replacing what has it now in one step."""
    if rename(f"/dev/shm/{segment.name}".encode(), f"/dev/shm/{name}".encode()) < 0:
        raise_os_error(name)
    segment.name = name


cdef int map_segment(Segment segment, size_t size, bint writable) except -1:
    cdef void* data = mmap(
        NULL, size, PROT_READ | PROT_WRITE if writable else PROT_READ, MAP_SHARED, segment.fd, 0
    )
    if data is MAP_FAILED:
        raise_os_error(segment.name)
    segment.data = <uint8_t*> data
    segment.size = size
    return 0


cdef int raise_os_error(str name) except -1:
    cdef int number = errno
    if number == ENOSPC:
        raise SharedMemoryFull(f"/dev/shm is full (while making {name})")
    raise OSError(number, strerror(number).decode(), name)
