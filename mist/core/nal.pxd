from libc.stdint cimport uint8_t, uint64_t

# One NAL unit, borrowed from the bytes it was found in: header and escaped payload, without prefix.
ctypedef struct NalUnit:
    const uint8_t* data
    size_t size

# Step through length-prefixed NAL units. *offset: where the next length is, 0 at first; moved on. length_size: 1 to 4.
# Return 1 with *unit set (never empty: empty ones are passed over), 0 at the end, -1 where a length goes past the end.
cdef int next_length_prefixed(
    const uint8_t* data, size_t size, size_t* offset, int length_size, NalUnit* unit
) noexcept nogil

# Step through the NAL units of an Annex B byte stream. *offset: 0 at first, moved on. Return 1 with *unit set (never
# empty, trailing zeros removed), 0 at the end. Bytes before the first start code are passed over.
cdef int next_annexb(const uint8_t* data, size_t size, size_t* offset, NalUnit* unit) noexcept nogil

# Return where the next 00 00 01 begins, from begin on; size where there is none.
cdef size_t find_start_code(const uint8_t* data, size_t size, size_t begin) noexcept nogil

# Return the set of NAL unit types as bits (1 << type); hevc: two-byte headers. 0 where the lengths are broken.
cdef uint64_t type_mask(const uint8_t* data, size_t size, int length_size, bint hevc) noexcept nogil
