"""What the kernel knows of a TCP connection that a dead process cannot tell: how many bytes it was given, and gave."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EFAULT, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset, strerror

cdef extern from "<linux/tcp.h>" nogil:
    enum:
        TCP_INFO
    struct tcp_info:
        uint8_t tcpi_state
        uint64_t tcpi_bytes_acked
        uint64_t tcpi_bytes_received

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_TCP "6"
        MSG_DONTWAIT
        MSG_MORE
        MSG_NOSIGNAL
        MSG_PEEK
        MSG_TRUNC
    int getsockopt(int, int, int, void*, unsigned int*)
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int, unsigned long, ...)

cdef extern from "<linux/sockios.h>" nogil:
    enum:
        SIOCINQ
        SIOCOUTQ

cdef enum:
    LOOK_BYTES = 256 << 10

cdef char[LOOK_BYTES] looked_at   # one for all connections: what a read asks for, not what it gets, would be allocated each time

# States of a connection whose peer has said that it sends no more: that counts as a byte. include/net/tcp_states.h
cdef uint64_t HALF_CLOSED = (1 << 5) | (1 << 6) | (1 << 8) | (1 << 9) | (1 << 11)


cdef uint64_t count(int fd, bint sent) except? 0xFFFFFFFFFFFFFFFF:
    cdef tcp_info info
    cdef unsigned int size
    cdef uint64_t before = 0
    cdef uint64_t after = 0
    cdef int queued = 0
    cdef int look
    for look in range(64):
        size = sizeof(info)
        memset(&info, 0, sizeof(info))
        if getsockopt(fd, SOL_TCP, TCP_INFO, &info, &size) < 0:
            raise OSError(errno, strerror(errno).decode())
        after = info.tcpi_bytes_acked if sent else info.tcpi_bytes_received
        if look and after == before:
            break
        before = after
        if ioctl(fd, SIOCOUTQ if sent else SIOCINQ, &queued) < 0:
            raise OSError(errno, strerror(errno).decode())
    if sent:
        return before + <uint64_t> queued
    if HALF_CLOSED >> info.tcpi_state & 1:
        before -= 1
    return before - <uint64_t> queued


def sent_bytes(int fd):
    """Return how many bytes were ever handed to the kernel for a connection; only differences mean something.

    Raises OSError for a socket that is not TCP.
    """
    return count(fd, True)


def received_bytes(int fd):
    """Return how many bytes were ever taken from the kernel; see `sent_bytes`."""
    return count(fd, False)


def look_at_received(int fd):
    """Return what has arrived and leave it in the kernel; b"" at the end, None when nothing is there. Raises OSError."""
    cdef ssize_t size = recv(fd, looked_at, LOOK_BYTES, MSG_DONTWAIT | MSG_PEEK)
    if size < 0:
        if errno == EAGAIN or errno == EINTR:
            return None
        raise OSError(errno, strerror(errno).decode())
    return PyBytes_FromStringAndSize(looked_at, size)


def send_from(int fd, bytes data not None, size_t begin, bint more=False):
    """Send what stands from begin on; return how many bytes the socket took, -1 when it takes none. Raises OSError.

    more: the rest of the same reply follows at once, so a small piece need not be a packet of its own.
    """
    cdef int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (MSG_MORE if more else 0)
    cdef size_t size = <size_t> len(data)
    cdef ssize_t sent
    cdef const char* text = PyBytes_AS_STRING(data)
    assert begin <= size
    with nogil:
        sent = send(fd, text + begin, size - begin, flags)
    if sent < 0:
        if errno == EAGAIN or errno == EINTR:
            return -1
        raise OSError(errno, strerror(errno).decode())
    return sent


def skip_received(int fd, size_t count):
    """Take bytes from the kernel that were looked at already. What is not there, or no longer, is not waited for."""
    cdef ssize_t taken
    cdef char[4096] dropped
    while count:
        taken = recv(fd, NULL, count, MSG_DONTWAIT | MSG_TRUNC)
        if taken < 0 and errno == EFAULT:   # not TCP: such a socket wants a place for the bytes
            taken = recv(fd, dropped, min(count, sizeof(dropped)), MSG_DONTWAIT)
        if taken <= 0:
            return
        count -= <size_t> taken
