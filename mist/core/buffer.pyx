"""A growing byte buffer that muxers write into."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove
from posix.unistd cimport write


@cython.final
cdef class ByteBuffer:
    """Bytes written at the end, grown by doubling, taken all at once.

    `reserve(n)` gives room for n bytes at the end, valid until the next call; `commit(n)` keeps what was written.
    """

    def __cinit__(self):
        self.data = NULL
        self.size = 0
        self.capacity = 0

    def __dealloc__(self):
        free(self.data)

    cdef uint8_t* reserve(self, size_t count) except NULL:
        cdef size_t wanted = self.size + count
        cdef size_t capacity
        cdef uint8_t* grown
        if wanted > self.capacity or self.data is NULL:
            capacity = self.capacity if self.capacity else 4096
            while capacity < wanted:
                capacity *= 2
            grown = <uint8_t*> realloc(self.data, capacity)
            if grown is NULL:
                raise MemoryError
            self.data = grown
            self.capacity = capacity
        return self.data + self.size

    cdef int append(self, const uint8_t* source, size_t count) except -1:
        if count:
            memcpy(self.reserve(count), source, count)
            self.size += count
        return 0

    def write(self, bytes source not None):
        """Append source."""
        self.append(<const uint8_t*> <const char*> source, len(source))

    def take(self):
        """Return everything written since the last take, and forget it."""
        cdef object taken = PyBytes_FromStringAndSize(<char*> self.data, <Py_ssize_t> self.size)
        self.size = 0
        return taken

    def write_to(self, int fd, size_t count):
        """Write the first bytes to a blocking file descriptor, and forget them. count: at most `len`.

        Raises OSError; then the bytes that were written are forgotten.
        """
        cdef size_t done = 0
        cdef ssize_t written
        count = min(count, self.size)
        try:
            while done < count:
                with nogil:
                    written = write(fd, self.data + done, count - done)
                if written >= 0:
                    done += <size_t> written
                elif errno == EINTR:
                    PyErr_CheckSignals()
                else:
                    PyErr_SetFromErrno(OSError)
        finally:
            self.size -= done
            if self.size:
                memmove(self.data, self.data + done, self.size)

    def __len__(self):
        return self.size
