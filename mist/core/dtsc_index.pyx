"""The records of a DTSC index: fragments, keys, the sizes of keys, and parts, between arrays and bytes.

Columns are `array.array` of type "I" (32 bits), "Q" (64 bits) or "i" (signed 32 bits). All records are big-endian, without gaps.
What does not fit its field is written as the field's greatest value.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from mist.core.dtsc_objects cimport be16, be32, be64, put_be32, put_be64

from array import array

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from mist.errors import LocalProtocolError, RemoteProtocolError

FRAGMENT_BYTES = 13     # duration 32 bits, keys 8, number of the first key plus 1 32, payload bytes 32
KEY_BYTES = 25          # position 64 bits, duration 24, number 32, parts 16, time 64
KEY_SIZE_BYTES = 4      # bytes of the key's packets 32 bits
PART_BYTES = 9          # payload bytes 24 bits, duration 24, offset 24 signed


cdef inline uint32_t be24(const uint8_t* at) noexcept:
    return <uint32_t> at[0] << 16 | <uint32_t> at[1] << 8 | at[2]


cdef inline uint8_t* put_be24(uint8_t* at, uint32_t value) noexcept:
    if value > 0xFFFFFF:
        value = 0xFFFFFF
    at[0] = value >> 16
    at[1] = (value >> 8) & 0xFF
    at[2] = value & 0xFF
    return at + 3


cdef inline uint8_t* put_offset(uint8_t* at, int32_t value) noexcept:
    """Write a signed 24-bit number."""
    if value > 0x7FFFFF:
        value = 0x7FFFFF
    elif value < -0x800000:
        value = -0x800000
    return put_be24(at, <uint32_t> value & 0xFFFFFF)


cdef Py_ssize_t records_in(bytes data, int size, str what) except -1:
    """Return how many records there are. Raises RemoteProtocolError for a part of one."""
    if len(data) % size:
        raise RemoteProtocolError(f"{len(data)} bytes of {what} are no whole number of records of {size}", spec="DTSC")
    return len(data) // size


cdef int same_length(columns) except -1:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise LocalProtocolError(f"columns of different lengths: {sorted(lengths)}")
    return 0


def column(str kind not None, Py_ssize_t count):
    """Return an array of zeros."""
    return array(kind, bytes(count * (8 if kind == "Q" else 4)))


def parse_fragments(bytes data not None):
    """Return (durations ms, key counts, numbers of first keys, payload bytes), each array("I")."""
    cdef Py_ssize_t count = records_in(data, FRAGMENT_BYTES, "fragments")
    cdef Py_ssize_t i
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    result = tuple([column("I", count) for _ in range(4)])
    cdef uint32_t[::1] durations = result[0]
    cdef uint32_t[::1] keys = result[1]
    cdef uint32_t[::1] firsts = result[2]
    cdef uint32_t[::1] sizes = result[3]
    for i in range(count):
        durations[i], keys[i], firsts[i], sizes[i] = be32(at), at[4], be32(at + 5) - 1, be32(at + 9)
        at += 13
    return result


def serialize_fragments(const uint32_t[::1] durations, const uint32_t[::1] keys, const uint32_t[::1] firsts, const uint32_t[::1] sizes):
    """Return the records of fragments; parameters as `parse_fragments` returns them."""
    cdef Py_ssize_t i
    same_length((durations, keys, firsts, sizes))
    data = PyBytes_FromStringAndSize(NULL, durations.shape[0] * 13)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(durations.shape[0]):
        at = put_be32(at, durations[i])
        at[0] = keys[i] if keys[i] < 255 else 255
        at = put_be32(at + 1, firsts[i] + 1)
        at = put_be32(at, sizes[i])
    return data


def parse_keys(bytes data not None):
    """Return (positions "Q", durations ms "I", numbers "I", part counts "I", times ms "Q")."""
    cdef Py_ssize_t count = records_in(data, KEY_BYTES, "keys")
    cdef Py_ssize_t i
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    result = tuple([column(kind, count) for kind in "QIIIQ"])
    cdef uint64_t[::1] positions = result[0]
    cdef uint32_t[::1] durations = result[1]
    cdef uint32_t[::1] numbers = result[2]
    cdef uint32_t[::1] parts = result[3]
    cdef uint64_t[::1] times = result[4]
    for i in range(count):
        positions[i], durations[i], numbers[i] = be64(at), be24(at + 8), be32(at + 11)
        parts[i], times[i] = be16(at + 15), be64(at + 17)
        at += 25
    return result


def serialize_keys(const uint64_t[::1] positions, const uint32_t[::1] durations, const uint32_t[::1] numbers,
                   const uint32_t[::1] parts, const uint64_t[::1] times):
    """Return the records of keys; parameters as `parse_keys` returns them."""
    cdef Py_ssize_t i
    cdef uint32_t count
    same_length((positions, durations, numbers, parts, times))
    data = PyBytes_FromStringAndSize(NULL, positions.shape[0] * 25)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(positions.shape[0]):
        at = put_be64(at, positions[i])
        at = put_be24(at, durations[i])
        at = put_be32(at, numbers[i])
        count = parts[i] if parts[i] < 0xFFFF else 0xFFFF
        at[0] = count >> 8
        at[1] = count & 0xFF
        at = put_be64(at + 2, times[i])
    return data


def parse_key_sizes(bytes data not None):
    """Return the bytes of each key's packets, array("I")."""
    cdef Py_ssize_t count = records_in(data, KEY_SIZE_BYTES, "key sizes")
    cdef Py_ssize_t i
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    result = column("I", count)
    cdef uint32_t[::1] sizes = result
    for i in range(count):
        sizes[i] = be32(at + 4 * i)
    return result


def serialize_key_sizes(const uint32_t[::1] sizes):
    """Return the records of the sizes of keys."""
    cdef Py_ssize_t i
    data = PyBytes_FromStringAndSize(NULL, sizes.shape[0] * 4)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(sizes.shape[0]):
        at = put_be32(at, sizes[i])
    return data


def parse_parts(bytes data not None):
    """Return (payload bytes "I", durations ms "I", offsets ms "i")."""
    cdef Py_ssize_t count = records_in(data, PART_BYTES, "parts")
    cdef Py_ssize_t i
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef uint32_t offset
    result = tuple([column(kind, count) for kind in "IIi"])
    cdef uint32_t[::1] sizes = result[0]
    cdef uint32_t[::1] durations = result[1]
    cdef int32_t[::1] offsets = result[2]
    for i in range(count):
        sizes[i], durations[i], offset = be24(at), be24(at + 3), be24(at + 6)
        offsets[i] = <int32_t> offset - (0x1000000 if offset & 0x800000 else 0)
        at += 9
    return result


def serialize_parts(const uint32_t[::1] sizes, const uint32_t[::1] durations, const int32_t[::1] offsets):
    """Return the records of parts; parameters as `parse_parts` returns them."""
    cdef Py_ssize_t i
    same_length((sizes, durations, offsets))
    data = PyBytes_FromStringAndSize(NULL, sizes.shape[0] * 9)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(data)
    for i in range(sizes.shape[0]):
        at = put_be24(at, sizes[i])
        at = put_be24(at, durations[i])
        at = put_offset(at, offsets[i])
    return data
