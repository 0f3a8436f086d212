"""What MP4 and QuickTime store of a packet, changed to the form that the project keeps it in."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.mp4_tables cimport be32
from mist.core.nal cimport NalUnit, next_length_prefixed

FORM_SKIPPED = SKIPPED
FORM_AS_IT_IS = AS_IT_IS
FORM_NAL_UNITS = NAL_UNITS
FORM_LITTLE_ENDIAN = LITTLE_ENDIAN
FORM_SIGNED_BYTES = SIGNED_BYTES
FORM_LENGTH_AND_TEXT = LENGTH_AND_TEXT
FORM_OBUS = OBUS
FORM_CUES = CUES


cdef const uint8_t* packet_of(const Form* form, const uint8_t* data, size_t* size, ByteBuffer out) except? NULL:
    if form.kind == AS_IT_IS:
        return data
    if form.kind == OBUS:
        return obus(data, size, out)
    out.clear()
    if form.kind == NAL_UNITS:
        return nal_units(data, size, form.width, out)
    if form.kind == LITTLE_ENDIAN:
        return swapped(data, size, form.width, out)
    if form.kind == SIGNED_BYTES:
        return unsigned_bytes(data, size, out)
    if form.kind == LENGTH_AND_TEXT:
        return text(data, size)
    return cues(data, size, out)


cdef uint8_t* nal_units(const uint8_t* data, size_t* size, int width, ByteBuffer out) except? NULL:
    """Spec: ISO/IEC 14496-15 clause 5.3.4.2."""
    cdef size_t at = 0
    cdef NalUnit unit
    cdef uint8_t* place
    cdef int found = next_length_prefixed(data, size[0], &at, width, &unit)
    while found > 0:
        place = out.reserve(unit.size + 4)
        place[0], place[1] = <uint8_t> (unit.size >> 24), <uint8_t> (unit.size >> 16)
        place[2], place[3] = <uint8_t> (unit.size >> 8), <uint8_t> unit.size
        memcpy(place + 4, unit.data, unit.size)
        out.commit(unit.size + 4)
        found = next_length_prefixed(data, size[0], &at, width, &unit)
    size[0] = out.size
    return out.data if found == 0 and out.size else NULL


cdef uint8_t* swapped(const uint8_t* data, size_t* size, int width, ByteBuffer out) except? NULL:
    cdef size_t words = size[0] // <size_t> width
    cdef size_t word
    cdef int place
    cdef uint8_t* to = out.reserve(size[0])
    if width == 2:
        for word in range(words):
            to[2 * word] = data[2 * word + 1]
            to[2 * word + 1] = data[2 * word]
    else:
        for word in range(words):
            for place in range(width):
                to[word * width + place] = data[word * width + width - 1 - place]
    size[0] = words * width
    out.commit(size[0])
    return out.data if size[0] else NULL


cdef uint8_t* unsigned_bytes(const uint8_t* data, size_t* size, ByteBuffer out) except? NULL:
    cdef size_t at
    cdef uint8_t* to = out.reserve(size[0])
    for at in range(size[0]):
        to[at] = data[at] ^ 0x80
    out.commit(size[0])
    return to


cdef const uint8_t* text(const uint8_t* data, size_t* size) noexcept:
    """Spec: 3GPP TS 26.245 section 5.17."""
    cdef size_t length
    if size[0] < 2:
        return NULL
    length = <size_t> data[0] << 8 | data[1]
    size[0] = min(length, size[0] - 2)
    return data + 2 if size[0] else NULL


cdef const uint8_t* cues(const uint8_t* data, size_t* size, ByteBuffer out) except? NULL:
    """Return the text of all cues of a sample, one a line.   Spec: ISO/IEC 14496-30 clause 7."""
    cdef size_t at = 0
    cdef size_t inner
    cdef size_t box
    cdef size_t part
    while at + 8 <= size[0]:
        box = be32(data + at)
        if box < 8 or box > size[0] - at:
            break
        inner = at + 8
        while memcmp(data + at + 4, b"vttc", 4) == 0 and inner + 8 <= at + box:
            part = be32(data + inner)
            if part < 8 or part > at + box - inner:
                break
            if memcmp(data + inner + 4, b"payl", 4) == 0 and part > 8:
                if out.size:
                    out.append(b"\n", 1)
                out.append(data + inner + 8, part - 8)
            inner += part
        at += box
    size[0] = out.size
    return out.data if out.size else NULL


cdef size_t leb128(const uint8_t* data, size_t size, size_t* value) noexcept:
    """Read a number of up to five bytes; return how many it took, 0 where it is broken."""
    cdef size_t at = 0
    value[0] = 0
    while at < size and at < 5:
        value[0] |= <size_t> (data[at] & 0x7F) << (7 * at)
        at += 1
        if not data[at - 1] & 0x80:
            return at
    return 0


cdef const uint8_t* obus(const uint8_t* data, size_t* size, ByteBuffer out) except? NULL:
    """Leave out temporal delimiters, and give the last OBU a size if it has none.   Spec: AV1 in ISOBMFF section 2.4."""
    cdef size_t at = 0
    cdef size_t head
    cdef size_t length = 0
    cdef size_t taken
    cdef uint8_t* place
    if size[0] >= 2 and data[0] == 0x12 and data[1] == 0:
        data += 2
        size[0] -= 2
    while at < size[0]:
        head = 2 if data[at] & 4 else 1
        if data[at] & 2:
            taken = leb128(data + at + head, size[0] - at - head, &length) if at + head < size[0] else 0
            if taken == 0 or length > size[0] - at - head - taken:
                return NULL
            at += head + taken + length
            continue
        if at + head > size[0]:
            return NULL
        length = size[0] - at - head
        out.clear()
        place = out.reserve(size[0] + 5)
        memcpy(place, data, at + head)
        place[at] |= 2
        taken = at + head
        while True:
            place[taken] = (length & 0x7F) | (0x80 if length >> 7 else 0)
            taken += 1
            length >>= 7
            if not length:
                break
        memcpy(place + taken, data + at + head, size[0] - at - head)
        size[0] += taken - at - head
        out.commit(size[0])
        return out.data
    return data if size[0] else NULL
