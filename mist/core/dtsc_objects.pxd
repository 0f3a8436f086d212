from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                      # type bytes of values
    INTEGER = 0x01
    STRING = 0x02
    NULL_VALUE = 0x03
    DOUBLE = 0x04
    ARRAY = 0x0A
    OBJECT = 0xE0
    OTHER_OBJECT = 0xFF         # read as an object, written by nobody

cdef inline uint16_t be16(const uint8_t* at) noexcept:
    return <uint16_t> at[0] << 8 | at[1]

cdef inline uint32_t be32(const uint8_t* at) noexcept:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]

cdef inline uint64_t be64(const uint8_t* at) noexcept:
    return <uint64_t> be32(at) << 32 | be32(at + 4)

cdef inline uint8_t* put_be32(uint8_t* at, uint32_t value) noexcept:
    at[0] = value >> 24
    at[1] = (value >> 16) & 0xFF
    at[2] = (value >> 8) & 0xFF
    at[3] = value & 0xFF
    return at + 4

cdef inline uint8_t* put_be64(uint8_t* at, uint64_t value) noexcept:
    put_be32(at, <uint32_t> (value >> 32))
    return put_be32(at + 4, <uint32_t> value)

cdef inline int64_t to_ms(int64_t us) noexcept:
    """Round microseconds to milliseconds, halves up; C divides towards zero."""
    cdef int64_t shifted = us + 500
    return shifted // 1000 if shifted >= 0 else -((999 - shifted) // 1000)

cdef size_t value_end(const uint8_t* data, size_t at, size_t size, int depth) except 0
cdef dict parse_at(const uint8_t* data, size_t at, size_t size)
