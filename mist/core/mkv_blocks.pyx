"""Blocks that say more than a simple one does: groups, and several frames in one.   Spec: RFC 9559 sections 5.1.3.5 and 10.3."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.ebml cimport BLOCK, BLOCK_DURATION, DISCARD_PADDING, REFERENCE_BLOCK, read_header, read_size, read_unsigned

cdef enum:
    XIPH_LACING = 0x02
    FIXED_LACING = 0x04
    MAX_FRAME_BYTES = 64 << 20


cdef void read_group(const uint8_t* data, size_t size, Group* group) noexcept:
    cdef size_t at = 0
    cdef uint32_t element = 0
    cdef uint64_t body = 0
    cdef int head
    group.block = NULL
    group.size = 0
    group.keyframe = True
    group.ticks = -1
    group.padding_ns = 0
    while at < size:
        head = read_header(data + at, size - at, &element, &body)
        if head <= 0 or body > size - at - head:
            break
        at += head
        if element == BLOCK:
            group.block = data + at
            group.size = <size_t> body
        elif element == REFERENCE_BLOCK:
            group.keyframe = False
        elif element == BLOCK_DURATION and body <= 7:
            group.ticks = <int64_t> read_unsigned(data + at, <size_t> body)
        elif element == DISCARD_PADDING and 0 < body <= 7 and not data[at] & 0x80:     # a negative one is of the frame's beginning
            group.padding_ns = <int64_t> read_unsigned(data + at, <size_t> body)
        at += body


cdef int lace_sizes(const uint8_t* data, size_t size, int lacing, size_t* start, size_t* sizes) noexcept:
    cdef size_t at = start[0]
    cdef size_t total = 0
    cdef int count, place
    cdef int64_t value = 0
    cdef uint64_t coded = 0
    cdef int length
    if at >= size:
        return 0
    count = data[at] + 1
    at += 1
    for place in range(count - 1):
        if lacing == FIXED_LACING:
            value = <int64_t> ((size - at) // count)
        elif lacing == XIPH_LACING:
            value = 0
            while at < size and data[at] == 255:
                value += 255
                at += 1
            if at >= size:
                return 0
            value += data[at]
            at += 1
        else:
            length = read_size(data + at, size - at, &coded)
            if length <= 0 or coded > MAX_FRAME_BYTES:
                return 0
            # The first size is plain, the others are signed differences.
            value = value + <int64_t> coded - (((<int64_t> 1) << (7 * length - 1)) - 1) if place else <int64_t> coded
            at += length
        if value < 0 or value > MAX_FRAME_BYTES:
            return 0
        sizes[place] = <size_t> value
        total += sizes[place]
    if at > size or total > size - at:
        return 0
    sizes[count - 1] = size - at - total
    if lacing == FIXED_LACING and count > 1 and sizes[count - 1] != <size_t> value:
        return 0
    start[0] = at
    return count
