"""Pieces of a file that are kept for a while, because several tracks read in it at places of their own."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer


@cython.final
cdef class Windows:
    """What was read of an input, as long as somebody stands before it, and what must be read next.

    A file whose tracks are interleaved is read once, from front to back. One whose tracks lie far apart has a window for each.
    """

    def __cinit__(self):
        self.owners = []
        self.count = 0
        self.newest = -1
        self.newest_end = -1
        self.input_end = <int64_t> 1 << 62
        self.partial = ByteBuffer()
        self.joined = ByteBuffer()

    cdef const uint8_t* gather(self, int64_t position, size_t size, int64_t through) except? NULL:
        """Return bytes of the input, valid until the next call; NULL where they must be read first (`needs`) or are `beyond` the end.

        through: bytes that are read although nobody asked for them, rather than left out, to get there.
        """
        cdef int place = self.find(position)
        if not self.has(position, size, through):
            return NULL
        if place >= 0 and self.windows[place].end >= position + <int64_t> size:
            return self.windows[place].data + (position - self.windows[place].begin)
        self.joined.clear()
        self.joined.reserve(size)
        self.copy(position, self.joined.data, size)
        return self.joined.data

    cdef bint has(self, int64_t position, size_t size, int64_t through) noexcept:
        """Return whether bytes of the input are there; where they are not, as `gather`."""
        cdef int64_t at = position
        cdef int64_t end = position + <int64_t> size
        cdef int place
        self.beyond = end > self.input_end
        if self.beyond:
            return False
        while at < end:
            place = self.find(at)
            if place < 0:
                self.ask(at, end - at, through)
                return False
            at = self.windows[place].end
        return True

    cdef int copy(self, int64_t position, uint8_t* room, size_t size) except -1:
        """Copy bytes that are there."""
        cdef int64_t at = position
        cdef int64_t end = position + <int64_t> size
        cdef int64_t taken
        cdef Window* window
        while at < end:
            window = &self.windows[self.find(at)]
            taken = min(window.end, end) - at
            memcpy(room + (at - position), window.data + (at - window.begin), <size_t> taken)
            at += taken
        return 0

    cdef bytes whole(self, int64_t position, size_t size):
        """Return bytes that are there as an object, which is not forgotten with the windows."""
        cdef bytes found
        cdef int place = self.find(position)
        cdef Window* window = &self.windows[place]
        if type(self.owners[place]) is bytes and window.begin == position and window.end == position + <int64_t> size:
            return self.owners[place]
        found = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        self.copy(position, <uint8_t*> PyBytes_AS_STRING(found), size)
        return found

    cdef void ask(self, int64_t position, int64_t size, int64_t through) noexcept:
        self.needs = True
        self.need_position = position
        self.need_bytes = max(size, <int64_t> WINDOW_BYTES)
        self.least_bytes = size
        if 0 <= self.newest_end < position and position - self.newest_end <= through and self.find(self.newest_end) < 0:
            self.need_position = self.newest_end
            self.need_bytes = min(self.need_bytes + position - self.newest_end, <int64_t> WINDOW_BYTES)
            self.least_bytes = 1

    cdef int find(self, int64_t position) noexcept:
        """Return the number of the window that holds a byte, -1 for none."""
        cdef int place
        for place in range(self.count - 1, -1, -1):
            if self.windows[place].begin <= position < self.windows[place].end:
                return place
        return -1

    def wanted(self):
        """Return (position, count) of the bytes to read."""
        cdef int64_t have = <int64_t> self.partial.size
        return self.need_position + have, min(self.need_bytes - have, <int64_t> MAX_WANT_BYTES)

    cdef int take(self, object data) except -1:
        """Take the bytes at the place that was wanted; none: the input ends there."""
        cdef bytes owner
        cdef size_t size
        if not self.needs:
            return 0
        owner = data if type(data) is bytes else bytes(data)
        size = <size_t> PyBytes_GET_SIZE(owner)
        if size and not self.partial.size and <int64_t> size >= self.need_bytes:
            self.needs = False
            return self.add(self.need_position, owner, <const uint8_t*> PyBytes_AS_STRING(owner), size)
        self.partial.append(<const uint8_t*> PyBytes_AS_STRING(owner), size)
        if size == 0:
            self.input_end = min(self.input_end, self.need_position + <int64_t> self.partial.size)
        if size == 0 or <int64_t> self.partial.size >= self.least_bytes:
            self.needs = False
            if self.partial.size and not self.continued():
                self.add(self.need_position, self.partial, self.partial.data, self.partial.size)
                self.partial = ByteBuffer()
        return 0

    cdef bint continued(self) except -1:
        """Put bytes that came in small pieces behind those before them."""
        cdef Window* window
        cdef ByteBuffer owner
        if self.newest < 0 or self.windows[self.newest].end != self.need_position:
            return False
        window = &self.windows[self.newest]
        if type(self.owners[self.newest]) is not ByteBuffer or window.end - window.begin >= WINDOW_BYTES:
            return False
        owner = self.owners[self.newest]
        owner.append(self.partial.data, self.partial.size)
        self.partial.clear()
        window.data = owner.data
        window.end = window.begin + <int64_t> owner.size
        self.newest_end = window.end
        return True

    cdef int add(self, int64_t begin, object owner, const uint8_t* data, size_t size) except -1:
        if self.count == MAX_WINDOWS:
            self.remove(0)
        self.windows[self.count].begin = begin
        self.windows[self.count].end = begin + <int64_t> size
        self.windows[self.count].data = data
        self.owners.append(owner)
        self.newest = self.count
        self.newest_end = begin + <int64_t> size
        self.count += 1
        return 0

    cdef int remove(self, int place) except -1:
        cdef int other
        del self.owners[place]
        self.count -= 1
        for other in range(place, self.count):
            self.windows[other] = self.windows[other + 1]
        if self.newest == place:
            self.newest = -1
        elif self.newest > place:
            self.newest -= 1
        return 0

    cdef int forget_until(self, int64_t position) except -1:
        """Forget what lies before a place."""
        cdef int place
        for place in range(self.count - 1, -1, -1):
            if self.windows[place].end <= position:
                self.remove(place)
        self.joined = ByteBuffer()
        return 0

    cdef int trim(self, const int64_t* positions, int count) except -1:
        """Forget what nobody stands in or before. The newest window stays."""
        cdef int place
        cdef int reader
        cdef bint used
        for place in range(self.count - 2, -1, -1):
            used = False
            for reader in range(count):
                if positions[reader] < self.windows[place].end and (
                    self.windows[place].begin - positions[reader] <= KEPT_AHEAD_BYTES
                ):
                    used = True
            if not used:
                self.remove(place)
        return 0

    cdef void forget_need(self) noexcept:
        """Want nothing any more: reading goes on elsewhere."""
        self.needs = False
        self.partial.clear()
