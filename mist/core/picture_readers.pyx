"""Access units of H.264, HEVC and MPEG-2 video out of byte streams that come in pieces.

The two fields of an interlaced frame become one unit, as all file formats want it.
Specs: H.264 clauses 7.4.1.2.3, 7.4.1.2.4 and 7.3.3; H.265 clause 7.4.2.4.4; ISO/IEC 13818-2 clause 6.2.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from mist.core.access_units cimport FINAL, OPEN, SPARE_BYTES, Unit, UnitReader
from mist.core.buffer cimport ByteBuffer
from mist.core.nal cimport NalUnit, find_start_code, next_length_prefixed, type_mask
from mist.core.slice_headers cimport has_recovery_point

cdef enum:
    MAX_UNIT_BYTES = 32 << 20
    MAX_HEADER_BYTES = 32           # of a slice header, as far as it is read

    # H.264 NAL unit types
    SLICE = 1
    PARTITION_A = 2
    IDR = 5
    SEI = 6
    SPS = 7
    DELIMITER = 9
    FILLER = 12
    HEVC_DELIMITER = 35
    HEVC_FILLER = 38

    # MPEG-2 start codes
    PICTURE = 0x00
    LAST_SLICE = 0xAF
    SEQUENCE = 0xB3
    EXTENSION = 0xB5
    GROUP = 0xB8

cdef uint64_t H264_SETS = 0x180
cdef uint64_t HEVC_SETS = <uint64_t> 7 << 32
cdef uint64_t HEVC_RANDOM_ACCESS = <uint64_t> 0xFF << 16
cdef uint64_t H264_STARTS = 0x7C3C0            # 6 to 9, 14 to 18
cdef uint64_t HEVC_STARTS = (<uint64_t> 0x8F << 32) | (<uint64_t> 0xF << 41) | (<uint64_t> 0xFF << 48)   # 32 to 35, 39, 41 to 44, 48 to 55


# -- bits of H.264 headers -----------------------------------------------------------------------------------------------

ctypedef struct Bits:
    uint8_t[MAX_HEADER_BYTES] data
    int size
    int at


cdef void open_header(Bits* bits, const NalUnit* nal) noexcept nogil:
    """Take the start of a NAL unit without its emulation prevention bytes."""
    cdef size_t place = 1
    cdef int zeros = 0
    bits.size = 0
    bits.at = 0
    while place < nal.size and bits.size < MAX_HEADER_BYTES:
        if zeros >= 2 and nal.data[place] == 3:
            zeros = 0
        else:
            zeros = zeros + 1 if nal.data[place] == 0 else 0
            bits.data[bits.size] = nal.data[place]
            bits.size += 1
        place += 1


cdef uint32_t take_bits(Bits* bits, int count) noexcept nogil:
    cdef uint32_t value = 0
    while count:
        value <<= 1
        if bits.at < bits.size * 8:
            value |= bits.data[bits.at >> 3] >> (7 - (bits.at & 7)) & 1
        bits.at += 1
        count -= 1
    return value


cdef uint32_t take_golomb(Bits* bits) noexcept nogil:
    cdef int zeros = 0
    while zeros < 31 and bits.at < bits.size * 8 and not take_bits(bits, 1):
        zeros += 1
    return (<uint32_t> 1 << zeros) - 1 + take_bits(bits, zeros)


cdef bint h264_random_access(const uint8_t* data, size_t size, uint64_t types) noexcept:
    """Decide as `mist.formats.h264.is_keyframe` does. types: of all NAL units, as bits."""
    cdef NalUnit nal
    cdef Bits bits
    cdef size_t offset = 0
    cdef uint32_t kind
    if types & (1 << IDR):
        return True
    if not types & (1 << SEI | 1 << SPS) or not types & (1 << SLICE | 1 << PARTITION_A):
        return False
    while next_length_prefixed(data, size, &offset, 4, &nal) == 1:
        kind = nal.data[0] & 31
        if kind == SEI and has_recovery_point(nal.data, nal.size):
            return True
        if kind == SLICE or kind == PARTITION_A:
            open_header(&bits, &nal)
            take_golomb(&bits)
            kind = take_golomb(&bits)
            return types & (1 << SPS) != 0 and bits.at <= bits.size * 8 and kind in (2, 4, 7, 9)
    return False


# -- H.264 and HEVC --------------------------------------------------------------------------------------------------------


@cython.final
cdef class NalReader(UnitReader):
    """H.264 or HEVC byte streams; units have 4-byte lengths, without delimiters and filler data (ISO/IEC 14496-15 clause 4.3.2)."""

    def __init__(self, bint hevc):
        self.hevc = hevc
        self.unit = ByteBuffer()
        self.fresh = True

    cdef int look_at_sps(self, const NalUnit* nal) except -1:
        """Ask what an SPS of H.264 says of slice headers, if it is not the one before."""
        cdef bytes sps = PyBytes_FromStringAndSize(<const char*> nal.data, <Py_ssize_t> nal.size)
        if self.slice_coding is not None and sps != self.sps:
            self.sps = sps
            self.interlaced, self.frame_number_bits, self.separate_planes, self.order_bits = self.slice_coding(sps)
            self.ordered = False
        return 0

    cdef void reset(self) noexcept:
        UnitReader.reset(self)
        self.unit.clear()
        self.opened = self.taken = self.inside = self.has_picture = self.lone_field = self.ordered = False
        self.types = 0
        self.scanned = self.split = 0
        self.fresh = True

    cdef size_t held(self) noexcept:
        return self.raw.capacity + self.unit.capacity

    cdef int shrink(self) except -1:
        UnitReader.shrink(self)
        if not self.unit.size and self.unit.capacity > SPARE_BYTES:
            self.unit = ByteBuffer()
        return 0

    cdef inline int kind_of(self, const NalUnit* nal) noexcept:
        return nal.data[0] >> 1 & 63 if self.hevc else nal.data[0] & 31

    cdef inline bint is_picture(self, int kind) noexcept:
        return kind < 32 if self.hevc else kind == SLICE or kind == PARTITION_A or kind == IDR

    cdef bint starts(self, int kind, const NalUnit* nal) noexcept:
        """Tell whether a NAL unit behind a picture begins the next access unit."""
        if self.hevc:
            if nal.size < 3 or nal.data[0] & 1 or nal.data[1] >> 3:
                return False
            return nal.data[2] & 0x80 != 0 if kind < 32 else HEVC_STARTS >> kind & 1
        if kind == SLICE or kind == PARTITION_A or kind == IDR:
            return nal.size > 1 and nal.data[1] & 0x80
        return H264_STARTS >> kind & 1

    cdef bint begins(self, const uint8_t* data, size_t size) noexcept:
        cdef NalUnit nal
        cdef size_t at = 0
        while at < size and data[at] == 0:
            at += 1
        if at < 2 or at + 1 >= size or data[at] != 1:
            return False
        nal.data = data + at + 1
        nal.size = size - at - 1
        return self.starts(self.kind_of(&nal), &nal)

    cdef bint next(self, int state, Unit* unit) except -1:
        cdef const uint8_t* data = self.raw.data
        cdef size_t size = self.raw.size
        cdef size_t end, stop
        cdef NalUnit nal
        if self.taken:
            self.drop_taken()
        while self.at < size:
            if not self.inside:
                end = find_start_code(data, size, self.at)
                if end >= size:
                    self.at = max(self.at, size - 2) if state == OPEN and size > 2 else size if state else self.at
                    break
                self.at = end
                self.inside = True
                self.scanned = 3
            end = find_start_code(data, size, self.at + self.scanned)
            if end >= size:
                if state == OPEN:
                    self.scanned = max(<size_t> 3, size - self.at - 2)
                    break
                end = size
            stop = end
            nal.data = data + self.at + 3
            while stop > self.at + 3 and data[stop - 1] == 0:
                stop -= 1
            nal.size = stop - self.at - 3
            if nal.size and not self.add(self.at, &nal):
                self.scanned = end - self.at
                return self.give(unit)
            self.at = end
            self.inside = end < size
            self.scanned = 3
        if state and self.has_picture and (state == FINAL or not self.lone_field):
            return self.give(unit)
        return False

    cdef bint add(self, size_t code, const NalUnit* nal) except -1:
        """Add a NAL unit to the access unit; False: it begins the next one. code: where its start code is."""
        cdef int kind = self.kind_of(nal)
        if self.fresh:
            # The end of an access unit whose start is missing must not take the time stamp of the one behind it.
            if not self.starts(kind, nal):
                return True
            self.fresh = False
        if self.has_picture:
            if self.lone_field:
                return self.add_to_field(kind, code, nal)
            if self.starts(kind, nal):
                return False
        self.collect(kind, code, nal)
        return True

    cdef int read_slice(self, int kind, const NalUnit* nal, SliceHead* head) noexcept:
        """Read a slice header of H.264 as far as the order of presentation (clause 7.3.3)."""
        cdef Bits bits
        open_header(&bits, nal)
        take_golomb(&bits)
        take_golomb(&bits)
        take_golomb(&bits)
        take_bits(&bits, 2 if self.separate_planes else 0)
        head.frame_number = take_bits(&bits, self.frame_number_bits)
        head.field = self.interlaced and take_bits(&bits, 1)
        head.bottom = head.field and take_bits(&bits, 1)
        if kind == IDR:
            take_golomb(&bits)
        head.order = <int> take_bits(&bits, self.order_bits) if self.order_bits else -1
        return 0

    cdef int note_order(self, int kind, const SliceHead* head) noexcept:
        """Go on counting pictures in both orders (H.264 clause 8.2.1.1; by the last picture, not the last reference)."""
        cdef int span = 1 << self.order_bits
        cdef int change
        self.comparable = True
        if head.order < 0:
            self.ordered = False
        elif kind == IDR or not self.ordered:
            self.comparable = self.ordered and self.anchored
            self.anchored = kind == IDR
            self.ordered = True
            self.order = head.order
            self.decoded = 0
            self.order_step = 2
        else:
            change = (head.order - self.order) & (span - 1)
            if change >= span >> 1:
                change -= span
            self.order += change
            self.decoded += 1
            if change & 1 and not head.field:
                self.order_step = 1
        return 0

    cdef bint add_to_field(self, int kind, size_t code, const NalUnit* nal) except -1:
        """Do `add` where the unit is a field whose other one may follow (H.264 clause 3.30, complementary field pairs)."""
        cdef SliceHead head
        cdef bint starts = self.starts(kind, nal)
        if self.is_picture(kind) and (starts or self.split):
            self.read_slice(kind, nal, &head)
            if kind == IDR or head.frame_number != self.field_number or not head.field or head.bottom == self.field_bottom:
                return False
            self.lone_field = False
            self.split = 0
        elif starts and not self.split:
            self.split = self.unit.size
            self.take_mark(code, &self.split_mark)
        self.collect(kind, code, nal)
        return True

    cdef int collect(self, int kind, size_t code, const NalUnit* nal) except -1:
        """Append a NAL unit, with its length, to the access unit."""
        cdef SliceHead head
        cdef uint8_t* target
        if not self.opened:
            self.opened = True
            self.take_mark(code, &self.mark)
        if kind == (HEVC_DELIMITER if self.hevc else DELIMITER) or kind == (HEVC_FILLER if self.hevc else FILLER):
            return 0
        if self.unit.size > MAX_UNIT_BYTES:
            self.unit.clear()
            self.split = 0
        self.types |= <uint64_t> 1 << kind
        if kind == SPS and not self.hevc:
            self.look_at_sps(nal)
        if not self.has_picture and self.is_picture(kind):
            self.has_picture = True
            if self.frame_number_bits:
                self.read_slice(kind, nal, &head)
                self.field_number = head.frame_number
                self.lone_field = head.field
                self.field_bottom = head.bottom
                self.note_order(kind, &head)
        target = self.unit.reserve(nal.size + 4)
        target[0], target[1] = <uint8_t> (nal.size >> 24), <uint8_t> (nal.size >> 16)
        target[2], target[3] = <uint8_t> (nal.size >> 8), <uint8_t> nal.size
        memcpy(target + 4, nal.data, nal.size)
        self.unit.commit(nal.size + 4)
        return 0

    cdef bint give(self, Unit* unit) except -1:
        unit.data = unit.whole = self.unit.data
        unit.size = unit.whole_size = self.split if self.split else self.unit.size
        unit.mark = self.mark
        unit.samples = unit.rate_hz = 0
        unit.ordered = self.ordered and self.comparable
        unit.lead = self.order // self.order_step - self.decoded if self.ordered else 0
        if self.split:
            self.types = type_mask(unit.data, unit.size, 4, self.hevc)
        if self.hevc:
            unit.keyframe = self.types & HEVC_RANDOM_ACCESS != 0
            unit.setup = self.types & HEVC_SETS != 0
        else:
            unit.keyframe = h264_random_access(unit.data, unit.size, self.types)
            unit.setup = self.types & H264_SETS != 0
        self.taken = True
        return True

    cdef int drop_taken(self) except -1:
        """Forget the unit that was given out; what was collected behind it begins the next one."""
        cdef size_t left = self.unit.size - self.split if self.split else 0
        self.opened = self.split > 0
        if left:
            memmove(self.unit.data, self.unit.data + self.split, left)
        if self.split:
            self.mark = self.split_mark
        self.unit.size = left
        self.types = type_mask(self.unit.data, left, 4, self.hevc) if left else 0
        self.split = 0
        self.has_picture = self.lone_field = self.taken = False
        return 0


# -- MPEG-2 ----------------------------------------------------------------------------------------------------------------


@cython.final
cdef class Mpeg2Reader(UnitReader):
    """MPEG-1 and MPEG-2 video; units keep their start codes and their sequence and group headers."""

    cdef void reset(self) noexcept:
        UnitReader.reset(self)
        self.forget()

    cdef void forget(self) noexcept:
        self.begun = self.has_slices = self.lone_field = self.intra = self.has_sequence = self.has_group = False
        self.pictures = 0
        self.scanned = 0

    cdef bint begins(self, const uint8_t* data, size_t size) noexcept:
        if size < 4 or data[0] or data[1] or data[2] != 1:
            return False
        return data[3] == PICTURE or data[3] == SEQUENCE or data[3] == GROUP

    cdef bint next(self, int state, Unit* unit) except -1:
        cdef const uint8_t* data = self.raw.data
        cdef size_t size = self.raw.size
        cdef size_t code
        cdef int kind
        while self.at < size:
            code = find_start_code(data, size, self.at + self.scanned)
            if code + 8 > size:
                # Too little to tell what it is; where no more comes, it is no start of a picture.
                if state == OPEN:
                    self.scanned = min(code, max(size, <size_t> 2) - 2) - self.at if size - self.at > 2 else 0
                    return False
                if self.pictures and (state == FINAL or not self.lone_field):
                    return self.give(size, unit)
                self.scanned = min(code, size) - self.at
                return False
            kind = data[code + 3]
            if kind == PICTURE or kind == SEQUENCE or kind == GROUP:
                if self.has_slices and not (kind == PICTURE and self.lone_field):
                    return self.give(code, unit)
                if not self.begun:
                    self.at = code
                    self.begun = True
                    self.take_mark(code, &self.mark)
            if self.begun:
                self.look(kind, data + code + 4)
            self.scanned = code + 4 - self.at
        return False

    cdef int look(self, int kind, const uint8_t* data) noexcept:
        """Note what stands behind a start code (13818-2 clause 6.2); four bytes of it are there."""
        if kind == PICTURE:
            if not self.pictures:
                self.intra = data[1] >> 3 & 7 == 1
                self.temporal_reference = data[0] << 2 | data[1] >> 6
                self.decoded = 0 if self.has_group else self.decoded + 1
            self.pictures += 1
            self.has_slices = False
            self.lone_field = False
        elif kind == EXTENSION:
            if self.pictures == 1 and not self.has_slices and data[0] >> 4 == 8:
                self.lone_field = data[2] & 3 != 3
        elif kind == SEQUENCE:
            self.has_sequence = True
        elif kind == GROUP:
            self.has_group = True
        elif 0 < kind <= LAST_SLICE:
            self.has_slices = True
        return 0

    cdef bint give(self, size_t end, Unit* unit) noexcept:
        unit.data = unit.whole = self.raw.data + self.at
        unit.size = unit.whole_size = end - self.at
        unit.mark = self.mark
        unit.samples = unit.rate_hz = 0
        unit.ordered = True
        unit.lead = (self.temporal_reference - self.decoded + 512 & 1023) - 512
        unit.keyframe = self.intra and (self.has_sequence or self.has_group)
        unit.setup = self.has_sequence
        self.at = end
        self.forget()
        return True
