"""NAL units of H.264 and HEVC: found, split, joined and converted between their two framings.

Spec: H.264 and HEVC Annex B (byte stream), ISO/IEC 14496-15 clause 5.3.4.2 (length prefixes).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr

from mist.core.buffer cimport ByteBuffer

from mist.errors import LimitExceededError, LocalProtocolError, TruncatedError

# NAL units that one call may return: far over the slices of any picture that an encoder makes, and few enough objects.
MAX_NAL_UNITS = 65536
cdef Py_ssize_t LIMIT = MAX_NAL_UNITS


cdef int next_length_prefixed(
    const uint8_t* data, size_t size, size_t* offset, int length_size, NalUnit* unit
) noexcept nogil:
    cdef size_t at = offset[0]
    cdef size_t length
    cdef int place
    while at < size:
        if size - at < <size_t> length_size:
            return -1
        length = 0
        for place in range(length_size):
            length = (length << 8) | data[at + place]
        at += length_size
        if length > size - at:
            return -1
        if length:
            unit.data = data + at
            unit.size = length
            offset[0] = at + length
            return 1
    offset[0] = at
    return 0


cdef size_t find_start_code(const uint8_t* data, size_t size, size_t begin) noexcept nogil:
    # Look for the 01 (rare) and check the two bytes before it: memchr is the fastest loop there is.
    cdef size_t at = begin + 2
    cdef const void* found
    while at < size:
        found = memchr(data + at, 1, size - at)
        if found is NULL:
            return size
        at = <size_t> (<const uint8_t*> found - data)
        if data[at - 1] == 0 and data[at - 2] == 0:
            return at - 2
        at += 1
    return size


cdef int next_annexb(const uint8_t* data, size_t size, size_t* offset, NalUnit* unit) noexcept nogil:
    cdef size_t at = offset[0]
    cdef size_t end, stop
    if at == 0:
        at = find_start_code(data, size, 0)
    while at < size:
        at += 3
        end = find_start_code(data, size, at)
        stop = end
        while stop > at and data[stop - 1] == 0:
            stop -= 1
        if stop > at:
            unit.data = data + at
            unit.size = stop - at
            offset[0] = end
            return 1
        at = end
    offset[0] = size
    return 0


cdef uint64_t type_mask(const uint8_t* data, size_t size, int length_size, bint hevc) noexcept nogil:
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef uint64_t mask = 0
    cdef int found
    while True:
        found = next_length_prefixed(data, size, &offset, length_size, &unit)
        if found < 0:
            return 0
        if found == 0:
            return mask
        mask |= (<uint64_t> 1) << ((unit.data[0] >> 1) & 0x3F if hevc else unit.data[0] & 0x1F)


cdef int check_length_size(int length_size) except -1:
    if length_size < 1 or length_size > 4:
        raise LocalProtocolError(f"NAL unit lengths of {length_size} bytes")
    return 0


cdef object truncated(size_t offset):
    return TruncatedError("a NAL unit goes past the end of its packet", offset=offset, spec="ISO/IEC 14496-15 5.3.4.2")


def split_length_prefixed(bytes data not None, int length_size=4):
    """Return the NAL units of length-prefixed data; empty ones are left out.

    Raises TruncatedError for a length past the end; LimitExceededError for more than MAX_NAL_UNITS.
    """
    check_length_size(length_size)
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef int found
    cdef list units = []
    while True:
        found = next_length_prefixed(begin, PyBytes_GET_SIZE(data), &offset, length_size, &unit)
        if found < 0:
            raise truncated(offset)
        if found == 0:
            return units
        if len(units) >= LIMIT:
            raise LimitExceededError(f"more than {LIMIT} NAL units in a packet", offset=offset)
        units.append(PyBytes_FromStringAndSize(<const char*> unit.data, unit.size))


def select_units(bytes data not None, uint64_t mask, bint hevc=False, size_t limit_bytes=0):
    """Return the NAL units (4-byte lengths) whose type has its bit in mask, in order; broken lengths end the search.

    limit_bytes: longest copy of each unit, 0 for all of it. Raises LimitExceededError for more than MAX_NAL_UNITS.
    """
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef int kind
    cdef list units = []
    while next_length_prefixed(begin, PyBytes_GET_SIZE(data), &offset, 4, &unit) > 0:
        kind = (unit.data[0] >> 1) & 0x3F if hevc else unit.data[0] & 0x1F
        if not (mask >> kind) & 1:
            continue
        if len(units) >= LIMIT:
            raise LimitExceededError(f"more than {LIMIT} NAL units in a packet", offset=offset)
        if limit_bytes and unit.size > limit_bytes:
            unit.size = limit_bytes
        units.append(PyBytes_FromStringAndSize(<const char*> unit.data, unit.size))
    return units


def split_annexb(bytes data not None):
    """Return the NAL units of an Annex B byte stream, without start codes and trailing zeros.

    Raises LimitExceededError for more than MAX_NAL_UNITS.   Spec: H.264 clause B.1.
    """
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef list units = []
    while next_annexb(begin, PyBytes_GET_SIZE(data), &offset, &unit):
        if len(units) >= LIMIT:
            raise LimitExceededError(f"more than {LIMIT} NAL units in a packet", offset=offset)
        units.append(PyBytes_FromStringAndSize(<const char*> unit.data, unit.size))
    return units


def join_length_prefixed(units):
    """Return the NAL units with 4-byte lengths before them."""
    return b"".join([part for unit in units for part in (len(unit).to_bytes(4, "big"), unit)])


cdef int put_length(ByteBuffer out, size_t length) except -1:
    cdef uint8_t* place = out.reserve(4)
    place[0] = <uint8_t> (length >> 24)
    place[1] = <uint8_t> (length >> 16)
    place[2] = <uint8_t> (length >> 8)
    place[3] = <uint8_t> length
    out.commit(4)
    return 0


def annexb_to_length_prefixed(bytes data not None):
    """Return an Annex B byte stream as NAL units with 4-byte lengths."""
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef ByteBuffer out = ByteBuffer()
    while next_annexb(begin, PyBytes_GET_SIZE(data), &offset, &unit):
        put_length(out, unit.size)
        out.append(unit.data, unit.size)
    return out.take()


cdef bytes convert(bytes data, int length_size, bint start_codes):
    check_length_size(length_size)
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t offset = 0
    cdef NalUnit unit
    cdef int found
    cdef ByteBuffer out = ByteBuffer()
    while True:
        found = next_length_prefixed(begin, PyBytes_GET_SIZE(data), &offset, length_size, &unit)
        if found < 0:
            raise truncated(offset)
        if found == 0:
            return out.take()
        put_length(out, 1 if start_codes else unit.size)
        out.append(unit.data, unit.size)


def length_prefixed_to_annexb(bytes data not None, int length_size=4):
    """Return length-prefixed NAL units with 4-byte start codes instead; raise TruncatedError for broken lengths."""
    return convert(data, length_size, True)


def change_length_size(bytes data not None, int length_size):
    """Return NAL units that have lengths of length_size bytes with 4-byte lengths; raise TruncatedError."""
    return convert(data, length_size, False)


def nal_types(bytes data not None, bint hevc, int length_size=4):
    """Return the set of NAL unit types as a number with the bits `1 << type`; 0 where the lengths are broken.

    Cost: one step per NAL unit, the payload is not read.
    """
    check_length_size(length_size)
    return type_mask(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), length_size, hevc)


def unescape(bytes unit not None):
    """Return the NAL unit without emulation prevention bytes (00 00 03 becomes 00 00).   Spec: H.264 clause 7.4.1.1."""
    cdef const uint8_t* source = <const uint8_t*> PyBytes_AS_STRING(unit)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(unit)
    if b"\x00\x00\x03" not in unit:
        return unit
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size)
    cdef uint8_t* target = <uint8_t*> PyBytes_AS_STRING(result)
    cdef Py_ssize_t at
    cdef Py_ssize_t kept = 0
    cdef int zeros = 0
    for at in range(size):
        if zeros >= 2 and source[at] == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if source[at] == 0 else 0
        target[kept] = source[at]
        kept += 1
    return result[:kept]


def escape(bytes unit not None):
    """Return the NAL unit with emulation prevention bytes put in.   Spec: H.264 clause 7.4.1.1."""
    cdef const uint8_t* source = <const uint8_t*> PyBytes_AS_STRING(unit)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(unit)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, size + size // 2 + 2)
    cdef uint8_t* target = <uint8_t*> PyBytes_AS_STRING(result)
    cdef Py_ssize_t at
    cdef Py_ssize_t used = 0
    cdef int zeros = 0
    for at in range(size):
        if zeros >= 2 and source[at] <= 3:
            target[used] = 3
            used += 1
            zeros = 0
        zeros = zeros + 1 if source[at] == 0 else 0
        target[used] = source[at]
        used += 1
    if zeros and size:
        # A NAL unit must not end in a zero byte.
        target[used] = 3
        used += 1
    return result[:used]
