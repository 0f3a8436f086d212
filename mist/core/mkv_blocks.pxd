from libc.stdint cimport int64_t, uint8_t

cdef enum:
    MAX_LACES = 256         # their number is one byte, and one less than there are
    LACING = 0x06           # bits of a block's flags

# What a BlockGroup says. block: NULL where there is none. ticks: its duration, -1 where not said. padding_ns: not to be heard at its end.
ctypedef struct Group:
    const uint8_t* block
    size_t size
    bint keyframe
    int64_t ticks
    int64_t padding_ns

# Read a BlockGroup's content, up to where it is broken; a keyframe if it refers to no other block.
cdef void read_group(const uint8_t* data, size_t size, Group* group) noexcept

# Read the sizes of a block's frames, and move start to the first of them; returns how many, 0 where they are broken.
cdef int lace_sizes(const uint8_t* data, size_t size, int lacing, size_t* start, size_t* sizes) noexcept
