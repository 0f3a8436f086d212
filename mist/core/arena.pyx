"""The memory of a group of viewers: a ring of muxed bytes, where its packets begin, and what is needed to go on muxing.

It is a memory file, so that it outlives its process for as long as somebody holds a duplicate of the descriptor. What holds
at one moment is published in one of two states: the other one is filled first, and a single store makes it the current one.
Bytes and entries beyond what the current state says are not there for whoever takes the group over.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close, ftruncate

from mist.core.shm cimport load32, store32

import os

from mist.errors import LimitExceededError, MistError

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MAP_FIXED
        MAP_ANONYMOUS
        MAP_PRIVATE
        MFD_CLOEXEC
    int memfd_create(const char*, unsigned int)

cdef extern from "<fcntl.h>" nogil:
    enum:
        FALLOC_FL_PUNCH_HOLE
        FALLOC_FL_KEEP_SIZE
    int fallocate(int, int, long, long)

LAYOUT_VERSION = 1
ARENA_BYTES = ARENA_SIZE         # of address space; memory is what lies between tail and end

# The file: header, two descriptions of tracks, a table of entries for each power of two that they have had, the ring.
cdef enum:
    MAGIC = 0x4D535241
    VERSION = 1
    HEADER_BYTES = 64 << 10
    TEXT_BYTES = 1 << 20
    ENTRY_LIMIT = 1 << 19
    FIRST_ENTRIES = 256
    ENTRIES_AT = (64 << 10) + (2 << 20)
    RING_AT = (64 << 10) + (2 << 20) + (32 << 20)
    PUNCH_BLOCK = 128 << 10


@cython.final
cdef class Arena:
    """A byte ring of ARENA_BYTES, mapped twice in a row, with what belongs to it; positions only rise."""

    def __cinit__(self, *arguments):
        self.base = self.area = NULL
        self.fd = -1

    def __init__(self, uint64_t number, uint64_t stream_inode):
        """Make an empty one. number: tells it from others of its guardian. Raises MemoryError."""
        assert sizeof(ArenaHeader) <= HEADER_BYTES and sizeof(Entry) == 32
        self.fd = memfd_create(b"mist-arena", MFD_CLOEXEC)
        if self.fd < 0 or ftruncate(self.fd, RING_AT + ARENA_SIZE) < 0:
            raise MemoryError("no memory for a muxer's arena")
        self.map()
        self.header.version = VERSION
        self.header.number = number
        self.header.stream_inode = stream_inode
        self.entry_capacity = FIRST_ENTRIES
        self.entries = <Entry*> (self.area + ENTRIES_AT) + FIRST_ENTRIES
        store32(&self.header.magic, MAGIC)

    def __dealloc__(self):
        if self.area is not NULL:
            munmap(self.area, RING_AT + 2 * <size_t> ARENA_SIZE)
        if self.fd >= 0:
            close(self.fd)

    cdef int map(self) except -1:
        cdef void* area = mmap(NULL, RING_AT + 2 * <size_t> ARENA_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        cdef int flags = MAP_SHARED | MAP_FIXED
        if area is MAP_FAILED:
            raise MemoryError("no address space for a muxer's arena")
        self.area = <uint8_t*> area
        self.base = self.area + RING_AT
        if (
            mmap(area, RING_AT + ARENA_SIZE, PROT_READ | PROT_WRITE, flags, self.fd, 0) is MAP_FAILED
            or mmap(self.base + ARENA_SIZE, ARENA_SIZE, PROT_READ | PROT_WRITE, flags, self.fd, RING_AT) is MAP_FAILED
        ):
            raise MemoryError("no address space for a muxer's arena")
        self.header = <ArenaHeader*> self.area
        return 0

    @property
    def number(self):
        return self.header.number

    # -- bytes and entries -----------------------------------------------------------------------------------------

    cdef int append(self, const uint8_t* source, size_t count) except -1:
        """Copy bytes to the end; the caller made room."""
        memcpy(self.base + (self.end & (ARENA_SIZE - 1)), source, count)
        self.end += count
        return 0

    cdef int release(self, uint64_t upto) noexcept:
        """Forget everything before `upto`, and give whole blocks back to the kernel."""
        cdef uint64_t edge = upto // PUNCH_BLOCK * PUNCH_BLOCK
        cdef uint64_t offset, count
        self.tail = upto
        while self.punched + PUNCH_BLOCK <= edge:
            offset = self.punched & (ARENA_SIZE - 1)
            count = edge - self.punched
            if offset + count > ARENA_SIZE:
                count = ARENA_SIZE - offset
            fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, RING_AT + <long> offset, <long> count)
            self.punched += count
        return 0

    cdef int grow_entries(self, uint64_t tail, uint64_t head) except -1:
        """Double the table of entries; the old one stays as it is, the current state may refer to it."""
        cdef size_t capacity = self.entry_capacity * 2
        cdef Entry* grown = <Entry*> (self.area + ENTRIES_AT) + capacity
        cdef uint64_t number
        if capacity > ENTRY_LIMIT:
            raise LimitExceededError(f"more than {ENTRY_LIMIT} packets are kept for viewers that are behind")
        for number in range(tail, head):
            grown[number % capacity] = self.entries[number % self.entry_capacity]
        self.entries, self.entry_capacity = grown, capacity
        return 0

    # -- states ----------------------------------------------------------------------------------------------------

    cdef int describe(self, bytes text) except -1:
        """Keep a description of the tracks; it holds from the next `publish` on. Raises LimitExceededError."""
        if len(text) > TEXT_BYTES:
            raise LimitExceededError(f"the description of the tracks is over {TEXT_BYTES} bytes")
        self.text_area = 1 - self.state().text_area
        self.text_size = <uint32_t> len(text)
        memcpy(self.area + HEADER_BYTES + self.text_area * <size_t> TEXT_BYTES, PyBytes_AS_STRING(text), len(text))
        return 0

    cdef bytes description(self, const GroupState* state):
        cdef size_t size = min(<size_t> state.text_size, <size_t> TEXT_BYTES)
        cdef size_t area = state.text_area & 1
        return PyBytes_FromStringAndSize(
            <const char*> self.area + HEADER_BYTES + area * TEXT_BYTES, <Py_ssize_t> size
        )

    cdef GroupState* state(self) noexcept:
        """Return the state that holds."""
        return &self.header.states[load32(&self.header.current) & 1]

    cdef GroupState* next_state(self) noexcept:
        """Return the other state, to be filled for `publish`."""
        return &self.header.states[1 - (self.header.current & 1)]

    cdef int publish(self) noexcept:
        """Make what `next_state` returned the state that holds, with this arena's own members."""
        cdef GroupState* state = self.next_state()
        state.end, state.tail = self.end, self.tail
        state.entry_capacity = self.entry_capacity
        state.text_area, state.text_size = self.text_area, self.text_size
        store32(&self.header.current, 1 - (self.header.current & 1))
        return 0


def adopt_arena(int fd):
    """Map the arena of a process that has ended, to go on with it. The descriptor is the arena's from now on.

    Raises MistError for one of another layout, MemoryError.
    """
    cdef Arena arena = Arena.__new__(Arena)
    cdef GroupState* state
    arena.fd = fd
    if os.fstat(fd).st_size != RING_AT + ARENA_SIZE:
        raise MistError("an arena of another size: made by another version")
    arena.map()
    if load32(&arena.header.magic) != MAGIC or arena.header.version != VERSION:
        raise MistError(f"an arena of layout {arena.header.version}, not {VERSION}")
    state = arena.state()
    if (
        state.entry_capacity > ENTRY_LIMIT or state.entry_capacity < FIRST_ENTRIES
        or state.entry_capacity & (state.entry_capacity - 1)
        or state.tail > state.end or state.end - state.tail > ARENA_SIZE
        or state.muxer_state_size > STATE_LIMIT or state.track_count > 64
    ):
        raise MistError("an arena whose state is damaged")
    arena.end, arena.tail = state.end, state.tail
    arena.punched = state.tail // PUNCH_BLOCK * PUNCH_BLOCK
    arena.entry_capacity = state.entry_capacity
    arena.entries = <Entry*> (arena.area + ENTRIES_AT) + arena.entry_capacity
    arena.text_area, arena.text_size = state.text_area & 1, state.text_size
    return arena
