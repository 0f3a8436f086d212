"""How soon a woken process runs where others have the processor: its time slice, as asked of the kernel's scheduler (EEVDF)."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_sched_getattr
    long SYS_sched_setattr

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)

cdef extern from "<sched.h>" nogil:
    enum:
        SCHED_OTHER

cdef uint64_t RESET_ON_FORK = 1  # SCHED_FLAG_RESET_ON_FORK


# struct sched_attr of linux/sched/types.h, first version; glibc has had it under that name since 2.41 only.
cdef struct Attributes:
    uint32_t size
    uint32_t policy
    uint64_t flags
    int32_t nice
    uint32_t priority
    uint64_t runtime_ns
    uint64_t deadline_ns
    uint64_t period_ns


cdef bint read_attributes(Attributes* attributes) noexcept nogil:
    memset(attributes, 0, sizeof(Attributes))
    return syscall(SYS_sched_getattr, 0, attributes, <unsigned int> sizeof(Attributes), 0) == 0


def slice_us():
    """Return the time slice of this thread, µs.

    0 where the kernel does not tell (Linux before 6.12) or there is none (real-time policies).
    """
    cdef Attributes attributes
    if not read_attributes(&attributes) or attributes.policy != SCHED_OTHER:
        return 0
    return attributes.runtime_ns // 1000


def ask_for_slice(unsigned int wanted_us):
    """Ask for this time slice, 100 to 100,000 µs, and return whether this thread has it now.

    A thread that wakes goes before a running one with a longer slice, and so does not wait for the end of that one's (1 to 3 ms); the
    share of the processor stays the same. Threads and processes that this one starts have the usual slice again. Nothing changes on
    kernels that do not know slices of single threads (before 6.12), or where an operator chose another policy than the usual one.
    """
    cdef Attributes attributes
    if not read_attributes(&attributes) or attributes.policy != SCHED_OTHER:
        return False
    attributes.size = sizeof(Attributes)
    attributes.flags |= RESET_ON_FORK
    attributes.runtime_ns = <uint64_t> wanted_us * 1000
    return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0 and slice_us() == wanted_us
