"""The turn of a process that delivers: one epoll descriptor with the sockets of its viewers, a doorbell and one timer."""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport clock_gettime, itimerspec, timespec
from posix.unistd cimport close, read

from mist.core.doorbell cimport Doorbell
from mist.core.linux cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, POLLIN, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait, poll, pollfd
)
from mist.core.shm cimport monotonic_us, unix_us

import os

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec*, itimerspec*)

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
        CLOCK_THREAD_CPUTIME_ID

EVENTS = 128
STAY_ROUNDS = 32                 # turns that `run` takes at most before the event loop gets one
STAY_MS = 25                     # longer than packets of a usual stream are apart
MERGE_STEP_US = 10_000
MERGE_MAX_US = 100_000
LOAD_INTERVAL_US = 500_000

cdef enum:
    BELL_EVENT = 1
    TIMER_EVENT = 2

cdef uint64_t SPECIAL = <uint64_t> 1 << 32


cdef class Poller:
    """Waits for sockets, the doorbell and a time; a subclass says what is done then."""

    def __init__(self, str bell_folder not None, merge_ms="auto"):
        """bell_folder: directory of the doorbells. merge_ms: send at most this often a viewer, milliseconds; "auto" is 0
        while the process is mostly idle and up to 100 as it fills its core."""
        cdef epoll_event event
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0 or self.timer_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.bell = Doorbell(bell_folder)
        self.subscriptions, self.dead = {}, []
        self.loop_fd = -1
        self.merge_auto = merge_ms == "auto"
        self.merge_us = 0 if self.merge_auto else int(merge_ms) * 1000
        self.merge_max_us = MERGE_MAX_US
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        for number, fd in ((BELL_EVENT, self.bell.fd), (TIMER_EVENT, self.timer_fd)):
            event.events = EPOLLIN
            event.data.u64 = SPECIAL | <uint64_t> number
            epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event)

    def __dealloc__(self):
        if self.timer_fd > 0:
            close(self.timer_fd)
        if self.fd > 0:
            close(self.fd)

    def fileno(self):
        return self.fd

    def __len__(self):
        return len(self.subscriptions)

    def register(self, int fd):
        """Begin to wait for a socket. Raises OSError."""
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint64_t> fd
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))

    cdef int forget(self, int fd) noexcept:
        """Wait for a socket no longer."""
        cdef epoll_event event
        self.subscriptions.pop(fd, None)
        return epoll_ctl(self.fd, EPOLL_CTL_DEL, fd, &event)

    cdef int interest(self, int fd, bint writable) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN | (EPOLLOUT if writable else 0)
        event.data.u64 = <uint64_t> fd
        return epoll_ctl(self.fd, EPOLL_CTL_MOD, fd, &event)

    cdef int set_timer(self, int64_t at_us) noexcept:
        """Have `run` called at a monotonic time, or earlier."""
        cdef itimerspec spec
        if self.timer_at_us and self.timer_at_us <= at_us:
            return 0
        self.timer_at_us = at_us
        memset(&spec, 0, sizeof(spec))
        spec.it_value.tv_sec = at_us // 1000000
        spec.it_value.tv_nsec = at_us % 1000000 * 1000
        return timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &spec, NULL)

    # -- running ---------------------------------------------------------------------------------------------------

    def attach(self, int loop_fd):
        """Name the descriptor that the owner's event loop waits on, so that `run` may stay a while.

        A wake-up through the event loop costs several times one through `poll(2)`: while packets keep coming, `run` waits
        for the next one itself, and returns as soon as the loop has something to do.
        """
        self.loop_fd = loop_fd

    def run(self):
        """Do everything that is due. Called when `fileno()` is readable."""
        cdef pollfd[2] fds
        cdef int rounds = 0
        self.called = False
        self.turn()
        fds[0].fd, fds[0].events = self.fd, POLLIN
        fds[1].fd, fds[1].events = self.loop_fd, POLLIN
        while self.loop_fd >= 0 and rounds < STAY_ROUNDS and not self.called:
            if poll(fds, 2, STAY_MS) <= 0 or (fds[1].revents and self.loop_has_more()):
                return
            self.turn()
            rounds += 1

    cdef bint loop_has_more(self) noexcept:
        """Return whether the event loop has something to do besides this fan-out, which it watches too."""
        cdef epoll_event[2] events
        return epoll_wait(self.loop_fd, events, 2, 0) != 1 or <int> events[0].data.u64 != self.fd

    cdef int turn(self) except -1:
        """Look what happened, and do what is due."""
        cdef epoll_event[128] events
        cdef int count, i
        cdef uint32_t cookie
        cdef uint64_t expirations
        cdef bint timer = False
        count = epoll_wait(self.fd, events, EVENTS, 0)
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        self.wakeups += 1
        for i in range(count):
            if events[i].data.u64 == SPECIAL | BELL_EVENT:
                if self.bell.next_cookie(&cookie):
                    self.rung(cookie)
            elif events[i].data.u64 == SPECIAL | TIMER_EVENT:
                read(self.timer_fd, &expirations, 8)
                self.timer_at_us = 0
                timer = True
            else:
                self.socket_event(<int> events[i].data.u64, events[i].events)
        if timer and self.flush_at_us and self.flush_at_us <= self.now_us:
            self.flush_at_us = 0
        self.serve(timer)
        if self.flush_at_us:
            self.set_timer(self.flush_at_us)
        self.adapt()
        return self.end_turn()

    cdef int rung(self, uint32_t cookie) except -1:
        """A stream has news."""
        raise NotImplementedError

    cdef int socket_event(self, int fd, uint32_t happened) except -1:
        raise NotImplementedError

    cdef int serve(self, bint timer) except -1:
        """Do what is due, everything if the timer has fired."""
        raise NotImplementedError

    cdef int end_turn(self) except -1:
        raise NotImplementedError

    cdef int adapt(self) noexcept:
        """Merge more while the process fills its core or runs late, less when there is room again."""
        cdef timespec used
        cdef int64_t cpu_us, elapsed, load
        if not self.merge_auto or self.now_us - self.load_clock_us < LOAD_INTERVAL_US:
            return 0
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used)
        cpu_us = <int64_t> used.tv_sec * 1000000 + used.tv_nsec // 1000
        elapsed = self.now_us - self.load_clock_us
        if self.load_clock_us and elapsed < 4 * LOAD_INTERVAL_US:
            load = (cpu_us - self.load_cpu_us) * 100 // elapsed
            if load > 60 or self.lateness_us > 50000:
                self.merge_us = min(self.merge_us + MERGE_STEP_US, self.merge_max_us)
            elif load < 35 and self.merge_us:
                self.merge_us -= MERGE_STEP_US
        self.load_clock_us, self.load_cpu_us = self.now_us, cpu_us
        return 0
