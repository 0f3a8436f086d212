"""How much of the end of a frame of sound is not to be heard, since its source ended inside of the frame.

It stands in the upper bits of a packet's flags, in microseconds, and goes wherever they go. What is not to be heard at a track's
beginning has presentation times before zero instead.
"""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    TRIM_SHIFT = 8
    MAX_TRIM_US = 0xFFFFFF


cdef inline uint32_t trim_flags(int64_t trim_us) noexcept nogil:
    # Return the flags that say how much is not to be heard.
    return <uint32_t> max(<int64_t> 0, min(trim_us, <int64_t> MAX_TRIM_US)) << TRIM_SHIFT


cdef inline int64_t trim_of(uint32_t flags) noexcept nogil:
    # Return how many microseconds are not to be heard.
    return flags >> TRIM_SHIFT
