"""EBML, the form that Matroska is written in: variable-length integers, element headers, small elements.

Spec: RFC 8794.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import struct

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError

MAX_CHILDREN = 65536                # elements directly in one that is read whole
UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
cdef Py_ssize_t CHILD_LIMIT = MAX_CHILDREN


cdef int read_id(const uint8_t* data, size_t size, uint32_t* value) noexcept nogil:
    cdef int length = 1
    cdef int place
    cdef uint8_t mask = 0x80
    if not size:
        return MORE
    while not data[0] & mask:
        mask >>= 1
        length += 1
        if length > 4:
            return BROKEN
    if size < <size_t> length:
        return MORE
    value[0] = 0
    for place in range(length):
        value[0] = value[0] << 8 | data[place]
    return length


cdef int read_size(const uint8_t* data, size_t size, uint64_t* value) noexcept nogil:
    cdef int length = 1
    cdef int place
    cdef uint8_t mask = 0x80
    cdef uint64_t found
    if not size:
        return MORE
    if not data[0]:
        return BROKEN
    while not data[0] & mask:
        mask >>= 1
        length += 1
    if size < <size_t> length:
        return MORE
    found = data[0] & (mask - 1)
    for place in range(1, length):
        found = found << 8 | data[place]
    value[0] = ~(<uint64_t> 0) if found == ((<uint64_t> 1) << (7 * length)) - 1 else found
    return length


cdef int read_header(const uint8_t* data, size_t size, uint32_t* element, uint64_t* body) noexcept nogil:
    cdef int id_length = read_id(data, size, element)
    cdef int size_length
    if id_length <= 0:
        return id_length
    size_length = read_size(data + id_length, size - id_length, body)
    return size_length if size_length <= 0 else id_length + size_length


cdef uint64_t read_unsigned(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint64_t value = 0
    cdef size_t place
    for place in range(size):
        value = value << 8 | data[place]
    return value


cdef uint8_t* put_size(uint8_t* at, uint64_t value) noexcept nogil:
    cdef int length = 1
    cdef int place
    while value >= ((<uint64_t> 1) << (7 * length)) - 1:
        length += 1
    value |= (<uint64_t> 1) << (7 * length)
    for place in range(length):
        at[place] = <uint8_t> (value >> (8 * (length - 1 - place)))
    return at + length


cdef uint8_t* put_id(uint8_t* at, uint32_t value) noexcept nogil:
    cdef int length = 1
    cdef int place
    while length < 4 and value >> (8 * length):
        length += 1
    for place in range(length):
        at[place] = <uint8_t> (value >> (8 * (length - 1 - place)))
    return at + length


def split_elements(bytes data not None, Py_ssize_t offset=0):
    """Return the elements that a master element's content consists of, as (ID, content) pairs.

    offset: of data in the input, for messages. Raises RemoteProtocolError; LimitExceededError for more than MAX_CHILDREN.
    Spec: RFC 8794 sections 5 and 6.
    """
    cdef const uint8_t* begin = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef size_t size = <size_t> PyBytes_GET_SIZE(data)
    cdef size_t at = 0
    cdef uint32_t element
    cdef uint64_t body
    cdef int head
    cdef list found = []
    while at < size:
        head = read_header(begin + at, size - at, &element, &body)
        if head == BROKEN:
            raise RemoteProtocolError("no element begins here", offset=offset + at, spec="RFC 8794 section 5")
        if head == MORE or body > size - at - head:
            raise TruncatedError("an element goes past the end of its parent", offset=offset + at, spec="RFC 8794 section 6.2")
        if len(found) >= CHILD_LIMIT:
            raise LimitExceededError(f"more than {CHILD_LIMIT} elements in one", offset=offset + at)
        found.append((element, PyBytes_FromStringAndSize(<const char*> begin + at + head, <Py_ssize_t> body)))
        at += head + body
    return found


def element_id(uint32_t element):
    """Return an ID as it is written: 1 to 4 bytes."""
    cdef uint8_t[4] place
    return PyBytes_FromStringAndSize(<char*> place, put_id(place, element) - place)


def element_size(uint64_t value):
    """Return a size as it is written, in as few bytes as hold it. Raises LocalProtocolError for 2^56 - 1 and more."""
    cdef uint8_t[8] place
    if value >= ((<uint64_t> 1) << 56) - 1:
        raise LocalProtocolError(f"an element of {value} bytes")
    return PyBytes_FromStringAndSize(<char*> place, put_size(place, value) - place)


def element(uint32_t number, bytes content not None):
    """Return a whole element."""
    return element_id(number) + element_size(len(content)) + content


def unsigned_element(uint32_t number, value):
    """Return an unsigned integer element of as few bytes as hold the value."""
    return element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def float_element(uint32_t number, double value):
    """Return a floating point element of 8 bytes."""
    return element(number, struct.pack(">d", value))


def text_element(uint32_t number, str value not None):
    """Return a string element."""
    return element(number, value.encode())


def void_element(int size_bytes):
    """Return an element that says nothing and is that long, header included: 2 bytes or more."""
    if size_bytes < 2:
        raise LocalProtocolError(f"a Void of {size_bytes} bytes")
    if size_bytes < 10:
        return element_id(VOID) + element_size(size_bytes - 2) + bytes(size_bytes - 2)
    return element_id(VOID) + sized(size_bytes - 9) + bytes(size_bytes - 9)


def sized(value):
    """Return a size in 8 bytes, as it is written where the value comes later. Raises LocalProtocolError."""
    if value >= (1 << 56) - 1:
        raise LocalProtocolError(f"an element of {value} bytes")
    return (value | 1 << 56).to_bytes(8, "big")


def unsigned_value(bytes content not None):
    """Return an unsigned integer element's value. Raises RemoteProtocolError for more than 8 bytes.   Spec: RFC 8794 section 7.2."""
    if len(content) > 8:
        raise RemoteProtocolError(f"an integer of {len(content)} bytes", spec="RFC 8794 section 7.2")
    return int.from_bytes(content, "big")


def float_value(bytes content not None):
    """Return a floating point element's value. Raises RemoteProtocolError for any size but 0, 4 and 8 bytes.

    Spec: RFC 8794 section 7.3.
    """
    if len(content) == 8:
        return struct.unpack(">d", content)[0]
    if len(content) == 4:
        return struct.unpack(">f", content)[0]
    if not content:
        return 0.0
    raise RemoteProtocolError(f"a floating point number of {len(content)} bytes", spec="RFC 8794 section 7.3")


def text_value(bytes content not None):
    """Return a string element's value, up to the first zero byte; what is no UTF-8 becomes a replacement character."""
    return content.partition(b"\0")[0].decode("utf-8", "replace")
