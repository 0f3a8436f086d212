"""What the demuxers of elementary streams share: bytes in any pieces, given to a parser that takes what is complete."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memmove

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer

from mist.core.demuxer import READ_BYTES


cdef class ByteStreamDemuxer(Demuxer):
    """A demuxer that reads its input from the beginning to the end.

    Subclasses implement `parse`, `finish` and `seek`. Cost: a piece that begins where the last one was used up is parsed in place;
    otherwise one copy of it.
    """

    def __cinit__(self, *args, **kwargs):
        self.kept = ByteBuffer()

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        raise NotImplementedError

    cdef int finish(self) except -1:
        return 0

    cdef int restart(self, int64_t position) except -1:
        """Forget what was read, and want the input from position on."""
        self.kept.clear()
        self.base = self.next_read = position
        self.skip = 0
        self.ended = False
        return 0

    def want(self):
        """Return (position, count) of the bytes to feed next, or None at the end."""
        if self.ended:
            return None
        return self.next_read, READ_BYTES

    def feed(self, data):
        """Take the bytes at the position that `want()` named. Empty: the input ends there.

        Raises RemoteProtocolError.
        """
        cdef const uint8_t[::1] view
        cdef size_t size
        if self.ended:
            return
        if not len(data):
            self.parse(self.kept.data, self.kept.size, True)
            self.kept.clear()
            self.finish()
            self.ended = True
            if not self.ready:
                self.become_ready()
            return
        view = data
        size = <size_t> view.shape[0]
        self.next_read += size
        if self.skip >= size:
            self.skip -= size
            self.base += size
            return
        self.base += self.skip
        self.take(&view[0] + self.skip, size - self.skip)

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        cdef size_t used
        self.skip = 0
        if self.kept.size:
            self.kept.append(data, size)
            size = self.kept.size
            used = self.parse(self.kept.data, size, False)
            if used < size:
                memmove(self.kept.data, self.kept.data + used, size - used)
            self.kept.size = size - used if used < size else 0
        else:
            used = self.parse(data, size, False)
            if used < size:
                self.kept.append(data + used, size - used)
        if used > size:
            self.skip = used - size
            used = size
        self.base += used
        return 0
