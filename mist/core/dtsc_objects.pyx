"""The typed objects of DTSC: what its headers, commands and packets are made of.

A value is a type byte and what belongs to it; an object is pairs of a name (16-bit length first) and a value up to a name of length 0
and one byte that nobody looks at. All numbers are big-endian. Strings hold any bytes and are `bytes` here; names are text.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError

MAX_DEPTH = 16              # containers in containers; headers have 3
MAX_VALUES = 1 << 16        # in one object, those of its containers included; a header of 64 tracks has some 1,000
MAX_NAME_BYTES = 0xFFFF

cdef enum:
    DEPTH_LIMIT = 16
    VALUE_LIMIT = 1 << 16
    END_BYTES = 3


cdef size_t value_end(const uint8_t* data, size_t at, size_t size, int depth) except 0:
    """Return where the value at `at` ends.

    Raises TruncatedError, RemoteProtocolError, LimitExceededError.
    """
    cdef uint8_t kind
    if at >= size:
        raise TruncatedError("a value is missing", offset=at)
    kind = data[at]
    at += 1
    if kind == INTEGER or kind == DOUBLE:
        return fits(at, 8, size)
    if kind == STRING:
        fits(at, 4, size)
        return fits(at + 4, be32(data + at), size)
    if kind == NULL_VALUE:
        return at
    if kind != ARRAY and kind != OBJECT and kind != OTHER_OBJECT:
        raise RemoteProtocolError(f"value of unknown type 0x{kind:02x}", offset=at - 1)
    if depth >= DEPTH_LIMIT:
        raise LimitExceededError(f"more than {MAX_DEPTH} containers in each other", offset=at)
    while not at_end(data, at, size):
        if kind != ARRAY:
            at = fits(at, 2 + <size_t> be16(data + at), size)
        at = value_end(data, at, size, depth + 1)
    return at + END_BYTES


cdef size_t fits(size_t at, size_t count, size_t size) except 0:
    """Return the place after `count` bytes, which must be there."""
    if count > size or at > size - count:
        raise TruncatedError(f"{count} bytes of a value go beyond the object's end", offset=at)
    return at + count


cdef bint at_end(const uint8_t* data, size_t at, size_t size) except -1:
    """Return whether a container ends here; an element or member begins here else."""
    fits(at, 2, size)
    if data[at] == 0 and data[at + 1] == 0:
        fits(at, END_BYTES, size)
        return True
    return False


cdef class _Parser:
    cdef const uint8_t* data
    cdef object source              # a memoryview of the same, where long strings may be parts of it
    cdef size_t long_bytes          # so long they must be
    cdef size_t at
    cdef size_t size
    cdef int values

    cdef object value(self, int depth):
        cdef uint8_t kind
        cdef uint64_t bits
        cdef double number
        cdef size_t start
        self.values += 1
        if self.values > VALUE_LIMIT:
            raise LimitExceededError(f"more than {MAX_VALUES} values in an object", offset=self.at)
        fits(self.at, 1, self.size)
        kind = self.data[self.at]
        start = self.at + 1
        if kind == OBJECT or kind == OTHER_OBJECT or kind == ARRAY:
            if depth >= DEPTH_LIMIT:
                raise LimitExceededError(f"more than {MAX_DEPTH} containers in each other", offset=self.at)
            self.at = start
            return self.items(depth) if kind == ARRAY else self.members(depth)
        self.at = value_end(self.data, self.at, self.size, depth)
        if kind == INTEGER:
            return <int64_t> be64(self.data + start)
        if kind == STRING and self.source is not None and self.at - start - 4 >= self.long_bytes:
            return self.source[start + 4:self.at]
        if kind == STRING:
            return PyBytes_FromStringAndSize(<const char*> self.data + start + 4, <Py_ssize_t> (self.at - start - 4))
        if kind == DOUBLE:
            bits = be64(self.data + start)
            memcpy(&number, &bits, 8)
            return number
        return None

    cdef dict members(self, int depth):
        cdef dict found = {}
        cdef size_t start
        while not at_end(self.data, self.at, self.size):
            start = self.at + 2
            self.at = fits(start, be16(self.data + self.at), self.size)
            name = PyBytes_FromStringAndSize(<const char*> self.data + start, <Py_ssize_t> (self.at - start))
            found[name.decode("utf-8", "surrogateescape")] = self.value(depth + 1)
        self.at += END_BYTES
        return found

    cdef list items(self, int depth):
        cdef list found = []
        while not at_end(self.data, self.at, self.size):
            found.append(self.value(depth + 1))
        self.at += END_BYTES
        return found


def parse_object(data, size_t offset=0, size_t long_bytes=0):
    """Return the object that begins at a place, as a dictionary in the order of its members; what follows it is not looked at.

    Integers are int, strings bytes, null None. With long_bytes, strings of so many bytes and more are memoryviews of the data.
    Raises RemoteProtocolError, TruncatedError, LimitExceededError.
    """
    cdef const uint8_t[::1] view = data
    cdef _Parser parser = _Parser()
    if long_bytes:
        parser.source, parser.long_bytes = memoryview(data), long_bytes
    return parse_with(parser, &view[0] if view.shape[0] else NULL, offset, <size_t> view.shape[0])


cdef dict parse_at(const uint8_t* data, size_t at, size_t size):
    """Return the object at a place of `size` bytes; see `parse_object`."""
    return parse_with(_Parser(), data, at, size)


cdef dict parse_with(_Parser parser, const uint8_t* data, size_t at, size_t size):
    if at >= size:
        raise TruncatedError("an object is missing", offset=at)
    if data[at] != OBJECT and data[at] != OTHER_OBJECT:
        raise RemoteProtocolError(f"type 0x{data[at]:02x} where an object must be", offset=at)
    parser.data, parser.at, parser.size = data, at, size
    return parser.value(0)


cdef int put_value(ByteBuffer out, object value, int depth) except -1:
    cdef uint8_t* at
    cdef uint64_t bits
    cdef double number
    cdef bytes text
    if depth > DEPTH_LIMIT:
        raise LocalProtocolError(f"more than {MAX_DEPTH} containers in each other")
    if isinstance(value, int):
        at = out.reserve(9)
        at[0] = INTEGER
        put_be64(at + 1, <uint64_t> <int64_t> value)
        out.commit(9)
    elif isinstance(value, (bytes, str)):
        text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        at = out.reserve(5)
        at[0] = STRING
        put_be32(at + 1, <unsigned int> PyBytes_GET_SIZE(text))
        out.commit(5)
        out.append(<const uint8_t*> PyBytes_AS_STRING(text), <size_t> PyBytes_GET_SIZE(text))
    elif value is None:
        out.append(<const uint8_t*> b"\x03", 1)
    elif isinstance(value, float):
        number = value
        memcpy(&bits, &number, 8)
        at = out.reserve(9)
        at[0] = DOUBLE
        put_be64(at + 1, bits)
        out.commit(9)
    elif isinstance(value, (list, tuple)):
        out.append(<const uint8_t*> b"\x0a", 1)
        for item in value:
            put_value(out, item, depth + 1)
        out.append(<const uint8_t*> b"\x00\x00\xee", END_BYTES)
    else:
        put_members(out, value, depth)
    return 0


cdef int put_members(ByteBuffer out, object members, int depth) except -1:
    cdef uint8_t* at
    cdef bytes text
    out.append(<const uint8_t*> b"\xe0", 1)
    for name, value in members.items():
        text = name.encode("utf-8", "surrogateescape")
        if not 0 < PyBytes_GET_SIZE(text) <= 0xFFFF:
            raise LocalProtocolError(f"a member's name of {len(text)} bytes")
        at = out.reserve(2)
        at[0] = (PyBytes_GET_SIZE(text) >> 8) & 0xFF
        at[1] = PyBytes_GET_SIZE(text) & 0xFF
        out.commit(2)
        out.append(<const uint8_t*> PyBytes_AS_STRING(text), <size_t> PyBytes_GET_SIZE(text))
        put_value(out, value, depth + 1)
    out.append(<const uint8_t*> b"\x00\x00\xee", END_BYTES)
    return 0


def serialize_value(value):
    """Return a value in its typed form: int and bool as integers, bytes and str as strings, mappings in the order they have.

    Raises LocalProtocolError for an empty name, OverflowError for an integer beyond 64 bits.
    """
    cdef ByteBuffer out = ByteBuffer()
    put_value(out, value, 0)
    return out.take()


def serialize_object(members):
    """Return an object in its typed form; see `serialize_value`."""
    cdef ByteBuffer out = ByteBuffer()
    put_members(out, members, 0)
    return out.take()
