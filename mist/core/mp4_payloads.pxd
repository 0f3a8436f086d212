from libc.stdint cimport uint8_t

from mist.core.buffer cimport ByteBuffer

# How a sample's bytes become a packet's.
cdef enum:
    SKIPPED = 0             # nothing that is carried
    AS_IT_IS = 1
    NAL_UNITS = 2           # lengths of `width` bytes, which become four
    LITTLE_ENDIAN = 3       # words of `width` bytes, which are swapped
    SIGNED_BYTES = 4        # which become unsigned
    LENGTH_AND_TEXT = 5     # two bytes of length, text, boxes
    OBUS = 6                # AV1
    CUES = 7                # WebVTT in boxes

ctypedef struct Form:
    int kind
    int width

# Return the packet's bytes and their size in *size, in the sample or in out; NULL for a sample without a packet or a broken one.
cdef const uint8_t* packet_of(const Form* form, const uint8_t* data, size_t* size, ByteBuffer out) except? NULL

cdef inline size_t size_without_reading(const Form* form, size_t size) noexcept:
    if form.kind == LENGTH_AND_TEXT:
        return size - 2 if size > 2 else 0
    return size
