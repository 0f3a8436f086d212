"""Sends what lies in files over sockets, without a copy: one epoll descriptor for all that wait until their peer has taken something."""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.types cimport off_t
from posix.unistd cimport close

from mist.core.linux cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLOUT, POLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait, poll, pollfd
)

import os

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int target, int source, off_t* position, size_t count)

cdef enum:
    EVENTS = 64
    TURN_BYTES = 4 << 20         # that one socket gets before the others have their turn
    STAY_ROUNDS = 16             # turns that `run` takes at most before the event loop gets one
    STAY_MS = 2


@cython.final
cdef class FileRun:
    """Bytes of a file that are on their way to a socket."""

    cdef readonly int sock
    cdef int memory
    cdef readonly off_t position     # of the first byte that the kernel has not taken
    cdef off_t end
    cdef object on_taken
    cdef object on_end

    cdef int advance(self) except -1:
        """Send what the socket takes; returns whether it is done. Raises OSError."""
        cdef off_t before = self.position
        cdef off_t until = min(self.end, before + TURN_BYTES)
        cdef ssize_t taken = 0
        with nogil:
            while self.position < until:
                taken = sendfile(self.sock, self.memory, &self.position, <size_t> (until - self.position))
                if taken <= 0 and not (taken < 0 and errno == EINTR):
                    break
        if self.position > before:
            self.on_taken(self.position - before, 0)
        if taken < 0 and errno != EAGAIN:
            raise OSError(errno, os.strerror(errno))
        if taken == 0 and self.position < until:
            raise OSError(0, "the file is shorter than it was")
        return self.position >= self.end


@cython.final
cdef class FilePump:
    """All runs of a process. `run` is called when `fileno()` is readable."""

    cdef int fd
    cdef int loop_fd
    cdef dict runs                   # by socket

    def __init__(self, int loop_fd=-1):
        """loop_fd: descriptor that the owner's event loop waits on, so that `run` may stay a while. Raises OSError."""
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.loop_fd = loop_fd
        self.runs = {}

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self):
        return self.fd

    def __len__(self):
        return len(self.runs)

    def send(self, int sock, int memory, off_t position, off_t count, on_taken not None, on_end not None):
        """Begin to send bytes of a file; returns the run, whose end is told.

        sock: does not block; it has one run at a time. memory: a file that does not change; both stay open until the end.
        on_taken(count, 0): called when the kernel has taken bytes. on_end(error): called once, perhaps at once, error None when
        all bytes were taken. Neither may raise. Raises OSError when the socket cannot be waited for.
        """
        cdef epoll_event event
        cdef FileRun run = FileRun()
        run.sock, run.memory, run.position, run.end = sock, memory, position, position + count
        run.on_taken, run.on_end = on_taken, on_end
        if not self.advance(run):
            memset(&event, 0, sizeof(event))
            event.events = EPOLLOUT
            event.data.u64 = <uint64_t> sock
            if epoll_ctl(self.fd, EPOLL_CTL_ADD, sock, &event) < 0:
                raise OSError(errno, os.strerror(errno))
            self.runs[sock] = run
        return run

    def forget(self, FileRun run not None):
        """Send no more of a run, whose end is not told any more. One that has ended is passed over."""
        cdef epoll_event event
        if self.runs.get(run.sock) is run:
            del self.runs[run.sock]
            epoll_ctl(self.fd, EPOLL_CTL_DEL, run.sock, &event)

    cdef bint advance(self, FileRun run) except -1:
        """Send what the socket takes; returns whether the run has ended, which is told."""
        try:
            if not run.advance():
                return False
        except OSError as error:
            run.on_end(error)
            return True
        run.on_end(None)
        return True

    def run(self):
        """Go on with all sockets that take bytes.

        A wake-up through the event loop costs several times one through `poll(2)`: while peers keep taking bytes, this waits for
        the next one itself, and returns as soon as a run has ended or the loop has something to do.
        """
        cdef pollfd[2] fds
        cdef int rounds = 0
        cdef int ready
        fds[0].fd, fds[0].events = self.fd, POLLIN
        fds[1].fd, fds[1].events = self.loop_fd, POLLIN
        while not self.turn() and self.loop_fd >= 0 and rounds < STAY_ROUNDS:
            with nogil:
                ready = poll(fds, 2, STAY_MS)
            if ready <= 0 or (fds[1].revents and self.loop_has_more()):
                return
            rounds += 1

    cdef bint loop_has_more(self) noexcept:
        """Return whether the event loop has something to do besides this pump, which it watches too."""
        cdef epoll_event[2] events
        return epoll_wait(self.loop_fd, events, 2, 0) != 1 or <int> events[0].data.u64 != self.fd

    cdef bint turn(self) except -1:
        """Let each socket have its turn; returns whether a run has ended."""
        cdef epoll_event[64] events
        cdef int count = epoll_wait(self.fd, events, EVENTS, 0)
        cdef int number
        cdef bint ended = False
        cdef FileRun run
        for number in range(count):
            run = self.runs.get(<int> events[number].data.u64)
            if run is not None and self.advance(run):
                self.forget(run)
                ended = True
        return ended
