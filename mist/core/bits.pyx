"""Numbers of any bit width, most significant bit first, out of bytes and into bytes."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t

from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError

# Exp-Golomb codes of 32-bit values have at most 32 leading zeros (H.264 clause 9.1).
cdef enum:
    MAX_EXP_GOLOMB_ZEROS = 32
    MAX_WIDTH_BITS = 64


@cython.final
cdef class BitReader:
    """A position in bytes that moves by bits.

    data: kept for the life of the reader. start: first byte to read.
    Every method raises TruncatedError (position unchanged) where fewer bits are left than it needs.
    """

    def __init__(self, bytes data not None, Py_ssize_t start=0):
        if start < 0 or start > PyBytes_GET_SIZE(data):
            raise TruncatedError(f"reading starts at byte {start} of {len(data)}", offset=start)
        self.data = data
        self.bytes_at = <const uint8_t*> PyBytes_AS_STRING(data)
        self.position_bits = start * 8
        self.size_bits = PyBytes_GET_SIZE(data) * 8

    cdef int need(self, Py_ssize_t count) except -1:
        if count < 0:
            raise LocalProtocolError(f"a bit count of {count}")
        if count > self.size_bits - self.position_bits:
            raise TruncatedError(
                f"{count} bits wanted, {self.size_bits - self.position_bits} left", offset=self.position_bits >> 3
            )
        return 0

    cdef uint64_t read(self, int count) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint64_t value = 0
        cdef Py_ssize_t at
        cdef int used, taken
        if count > MAX_WIDTH_BITS:
            raise LocalProtocolError(f"{count} bits do not fit in one number")
        self.need(count)
        at = self.position_bits
        self.position_bits += count
        while count > 0:
            used = at & 7
            taken = 8 - used
            if taken > count:
                taken = count
            value = (value << taken) | ((self.bytes_at[at >> 3] >> (8 - used - taken)) & ((1 << taken) - 1))
            at += taken
            count -= taken
        return value

    cdef uint64_t read_ue(self) except? 0xFFFFFFFFFFFFFFFF:
        cdef Py_ssize_t at = self.position_bits
        cdef Py_ssize_t begin = at
        cdef int zeros = 0
        cdef uint64_t tail
        while True:
            if at >= self.size_bits:
                raise TruncatedError("the data ends inside an Exp-Golomb code", offset=begin >> 3)
            if self.bytes_at[at >> 3] & (0x80 >> (at & 7)):
                break
            zeros += 1
            at += 1
            if zeros > MAX_EXP_GOLOMB_ZEROS:
                raise RemoteProtocolError(
                    "an Exp-Golomb code of more than 32 bits", offset=begin >> 3, spec="H.264 clause 9.1"
                )
        self.position_bits = at + 1
        try:
            tail = self.read(zeros)
        except TruncatedError:
            self.position_bits = begin
            raise
        return ((<uint64_t> 1) << zeros) - 1 + tail

    @property
    def position(self):
        """Bits read so far, counted from the first byte of the data."""
        return self.position_bits

    @property
    def remaining(self):
        """Bits left."""
        return self.size_bits - self.position_bits

    def u(self, int count):
        """Read an unsigned number of count bits (0 to 64)."""
        return self.read(count)

    def flag(self):
        """Read one bit as a bool."""
        return self.read(1) != 0

    def ue(self):
        """Read an unsigned Exp-Golomb code of at most 32 leading zeros.   Spec: H.264 clause 9.1."""
        return self.read_ue()

    def se(self):
        """Read a signed Exp-Golomb code.   Spec: H.264 clause 9.1.1."""
        cdef uint64_t code = self.read_ue()
        if code & 1:
            return <int64_t> ((code + 1) >> 1)
        return -<int64_t> (code >> 1)

    def take(self, Py_ssize_t count):
        """Read count whole bytes, from any bit position."""
        cdef bytearray taken
        cdef Py_ssize_t begin
        if count < 0 or count > (self.size_bits - self.position_bits) >> 3:
            self.need(max(count, 0) * 8)
            raise LocalProtocolError(f"a byte count of {count}")
        if not self.position_bits & 7:
            begin = self.position_bits >> 3
            self.position_bits += count * 8
            return self.data[begin:begin + count]
        taken = bytearray()
        for _ in range(count):
            taken.append(self.read(8))
        return bytes(taken)

    def skip(self, Py_ssize_t count):
        """Move on by count bits."""
        self.need(count)
        self.position_bits += count

    def peek(self, int count):
        """Return what `u(count)` would, and stay."""
        cdef Py_ssize_t begin = self.position_bits
        cdef uint64_t value = self.read(count)
        self.position_bits = begin
        return value

    def align(self):
        """Move on to the next whole byte, if not at one."""
        self.position_bits = (self.position_bits + 7) & ~<Py_ssize_t> 7

    def more_rbsp_data(self):
        """Tell whether syntax elements are left before the trailing bits.   Spec: H.264 clause 7.2."""
        cdef Py_ssize_t last = (self.size_bits >> 3) - 1
        cdef Py_ssize_t stop
        while last >= 0 and self.bytes_at[last] == 0:
            last -= 1
        if last < 0:
            return False
        stop = last * 8 + 7
        while not self.bytes_at[last] & (0x80 >> (stop & 7)):
            stop -= 1
        return self.position_bits < stop


@cython.final
cdef class BitWriter:
    """Bytes written by bits."""

    def __init__(self):
        self.written = bytearray()
        self.pending = 0
        self.pending_bits = 0

    cdef int put(self, uint64_t value, int count) except -1:
        cdef int place
        for place in range(count - 1, -1, -1):
            self.pending = (self.pending << 1) | ((value >> place) & 1)
            self.pending_bits += 1
            if self.pending_bits == 8:
                self.written.append(<uint8_t> self.pending)
                self.pending = 0
                self.pending_bits = 0
        return 0

    @property
    def size_bits(self):
        """Bits written so far."""
        return len(self.written) * 8 + self.pending_bits

    def u(self, uint64_t value, int count):
        """Write an unsigned number in count bits (0 to 64); raise LocalProtocolError where it does not fit."""
        if count < 0 or count > MAX_WIDTH_BITS or (count < MAX_WIDTH_BITS and value >> count):
            raise LocalProtocolError(f"{value} does not fit in {count} bits")
        self.put(value, count)

    def ue(self, uint64_t value):
        """Write an unsigned Exp-Golomb code of a value below 2**32.   Spec: H.264 clause 9.1."""
        cdef int width = 0
        if value >> MAX_EXP_GOLOMB_ZEROS:
            raise LocalProtocolError(f"{value} has no Exp-Golomb code of 32 bits")
        while (value + 1) >> (width + 1):
            width += 1
        self.put(0, width)
        self.put(value + 1, width + 1)

    def se(self, int64_t value):
        """Write a signed Exp-Golomb code.   Spec: H.264 clause 9.1.1."""
        self.ue(<uint64_t> (2 * value - 1) if value > 0 else <uint64_t> (-2 * value))

    def write(self, bytes data not None):
        """Write whole bytes, at any bit position."""
        cdef uint8_t value
        if self.pending_bits == 0:
            self.written += data
            return
        for value in data:
            self.put(value, 8)

    def align(self):
        """Fill up with zeros to a whole byte."""
        if self.pending_bits:
            self.put(0, 8 - self.pending_bits)

    def getvalue(self):
        """Return what was written, filled up with zeros to a whole byte."""
        if self.pending_bits:
            return bytes(self.written) + bytes([<uint8_t> (self.pending << (8 - self.pending_bits))])
        return bytes(self.written)
