"""AAC in LATM: the multiplex of MPEG-4 audio that some broadcasters use in transport streams.

One program with one layer and one frame in an element, AAC object types 1 to 4 with or without SBR and PS: what is in use. All other forms
are read as broken elements.   Spec: ISO/IEC 14496-3 clause 1.7.3.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer

cdef uint32_t[16] RATES = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350, 0, 0, 0,
]


@cython.final
cdef class LatmReader:
    """AudioMuxElements in, raw AAC frames out. A stream's first elements are passed over until one brings a configuration."""

    def __cinit__(self):
        self.config = b""
        self.out = ByteBuffer()

    cdef uint32_t u(self, int count) noexcept:
        """Read bits; zeros behind the end, where `at` shows that there was too little."""
        cdef uint32_t value = 0
        while count:
            value <<= 1
            if self.at < self.size_bits:
                value |= self.data[self.at >> 3] >> (7 - (self.at & 7)) & 1
            self.at += 1
            count -= 1
        return value

    cdef uint32_t value(self) noexcept:
        """Read LatmGetValue()."""
        cdef int left = <int> self.u(2)
        cdef uint32_t value = self.u(8)
        while left:
            value = value << 8 | self.u(8)
            left -= 1
        return value

    cdef bint read(self, const uint8_t* data, size_t size) except -1:
        """Take one AudioMuxElement; True with its frame in `out`, False for one without, or broken."""
        cdef uint32_t part
        cdef size_t length = 0
        self.data = data
        self.size_bits = size * 8
        self.at = 0
        self.changed = False
        self.out.clear()
        if not self.u(1) and not self.mux_config():
            self.config = b""
            return False
        if not self.config:
            return False
        while True:
            part = self.u(8)
            length += part
            if part != 255 or self.at >= self.size_bits:
                break
        if not length or self.at + length * 8 > self.size_bits:
            return False
        self.payload(length)
        return True

    cdef int payload(self, size_t size) except -1:
        """Copy bytes from any bit position."""
        cdef uint8_t* target = self.out.reserve(size)
        cdef const uint8_t* source = self.data + (self.at >> 3)
        cdef int shift = self.at & 7
        cdef size_t place
        for place in range(size):
            target[place] = source[place]
            if shift:
                target[place] = <uint8_t> (source[place] << shift | source[place + 1] >> (8 - shift))
        self.out.commit(size)
        self.at += size * 8
        return 0

    cdef bint mux_config(self) except -1:
        """Read StreamMuxConfig(); False for forms that are not known."""
        cdef uint32_t version = self.u(1)
        cdef size_t begin, end
        cdef uint32_t length
        if version and self.u(1):
            return False
        if version:
            self.value()
        if not self.u(1) or self.u(6) or self.u(4) or self.u(3):
            return False
        length = self.value() if version else 0
        begin = self.at
        if not self.audio_config():
            return False
        end = self.at
        if version:
            if length < end - begin or length > 1024:
                return False
            self.at = end = begin + length
        if self.u(3):
            return False
        self.u(8)
        if self.u(1):
            if version:
                self.value()
            else:
                while self.u(1) and self.at < self.size_bits:
                    self.u(8)
                self.u(8)
        if self.u(1):
            self.u(8)
        if self.at > self.size_bits:
            return False
        config = self.bits(begin, end)
        self.changed = config != self.config
        self.config = config
        return True

    cdef bytes bits(self, size_t begin, size_t end):
        """Return bits of the element at hand as bytes, filled up with zeros."""
        cdef size_t kept = self.at
        cdef int count
        cdef bytearray taken = bytearray()
        self.at = begin
        while self.at < end:
            count = <int> min(<size_t> 8, end - self.at)
            taken.append(self.u(count) << (8 - count))
        self.at = kept
        return bytes(taken)

    cdef bint audio_config(self) noexcept:
        """Read AudioSpecificConfig() to its end, for rate and frame length."""
        cdef uint32_t kind = self.u(5)
        cdef uint32_t index = self.u(4)
        self.rate_hz = self.u(24) if index == 15 else RATES[index]
        if not self.u(4) or not self.rate_hz:
            return False
        if kind == 5 or kind == 29:
            if self.u(4) == 15:
                self.u(24)
            kind = self.u(5)
        if not 1 <= kind <= 4:
            return False
        self.samples = 960 if self.u(1) else 1024
        if self.u(1):
            self.u(14)
        return not self.u(1)
