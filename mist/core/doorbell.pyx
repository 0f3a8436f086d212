"""Doorbells: how a writer wakes the processes that sleep until there is something new.

A doorbell is a datagram socket `<runtime directory>/bell/<pid>`; a ring is a datagram of four bytes, the cookie that
the sleeper chose. It is rung only for sleepers that armed themselves, so a busy reader costs the writer nothing.
"""

cimport cython
from libc.errno cimport ECONNREFUSED, ENOENT, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset
from posix.unistd cimport close

import os
import socket

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNIX
        AF_UNSPEC
        SOCK_DGRAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        MSG_DONTWAIT
        MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    int c_socket "socket"(int, int, int)
    int c_connect "connect"(int, const sockaddr*, socklen_t)
    ssize_t sendto(int, const void*, size_t, int, const sockaddr*, socklen_t)
    ssize_t recv(int, void*, size_t, int)

cdef extern from "<stdio.h>" nogil:
    int snprintf(char*, size_t, const char*, ...)

MAX_FOLDER_BYTES = 90


@cython.final
cdef class Ringer:
    """Rings other processes' doorbells."""

    def __cinit__(self, str folder not None):
        """folder: the directory of the doorbells, at most 90 bytes long."""
        self.folder = os.fsencode(folder)
        self.fd = -1
        if len(self.folder) > MAX_FOLDER_BYTES:
            raise OSError(f"the path {folder} is longer than {MAX_FOLDER_BYTES} bytes, too long for doorbell sockets")
        self.fd = c_socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    cdef int ring(self, uint32_t pid, uint32_t cookie) noexcept:
        """Ring one process; returns -1 if it is gone, 0 otherwise (a full queue has been rung already)."""
        cdef sockaddr_un address
        self.address_of(pid, &address)
        if sendto(self.fd, &cookie, 4, MSG_DONTWAIT | MSG_NOSIGNAL, <const sockaddr*> &address, sizeof(address)) < 0:
            if errno == ECONNREFUSED or errno == ENOENT:
                return -1
        return 0

    cdef bint is_gone(self, uint32_t pid) noexcept:
        """Tell whether a process has no doorbell any more, without waking it."""
        cdef sockaddr_un address
        cdef bint gone
        self.address_of(pid, &address)
        gone = c_connect(self.fd, <const sockaddr*> &address, sizeof(address)) < 0 and errno in (ECONNREFUSED, ENOENT)
        address.sun_family = AF_UNSPEC
        c_connect(self.fd, <const sockaddr*> &address, sizeof(address.sun_family))
        return gone

    cdef void address_of(self, uint32_t pid, sockaddr_un* address) noexcept:
        cdef const char* folder = self.folder
        memset(address, 0, sizeof(sockaddr_un))
        address.sun_family = AF_UNIX
        snprintf(address.sun_path, sizeof(address.sun_path), b"%s/%u", folder, pid)


@cython.final
cdef class Doorbell:
    """This process's own doorbell."""

    def __cinit__(self, str folder not None):
        self.fd = -1
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.path = f"{folder}/{os.getpid()}"
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            self.fd = -1  # the usual case: no process of this number left one behind
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        opened.bind(self.path)
        self.fd = opened.detach()

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def close(self):
        """Remove the doorbell."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                return

    def fileno(self):
        return self.fd

    cdef int next_cookie(self, uint32_t* cookie) noexcept:
        """Take one ring; returns 1 and its cookie, or 0 when there is no more."""
        return 1 if recv(self.fd, cookie, 4, MSG_DONTWAIT) == 4 else 0

    def drain(self):
        """Return the cookies of all rings since the last call."""
        cdef uint32_t cookie
        cookies = set()
        while self.next_cookie(&cookie):
            cookies.add(cookie)
        return cookies
