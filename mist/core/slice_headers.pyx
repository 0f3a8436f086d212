"""The start of H.264 and HEVC slice headers: which picture a slice is of, and its place in presentation.

Spec: ITU-T H.264 clauses 7.3.3, 7.4.1.2.4, 8.2.1; ITU-T H.265 clauses 7.3.6.1, 8.3.1.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    HEAD_BYTES = 64             # of a slice: far more than what is read has
    SEI_BYTES = 4096            # a recovery point stands before long user data
    RECOVERY_POINT = 6
    MAX_PICTURE_SETS = 256
    MAX_HEVC_PICTURE_SETS = 64
    MAX_ORDER_BITS = 16

ctypedef struct Bits:
    uint8_t[HEAD_BYTES] data
    size_t at
    size_t size


cdef size_t unescape_start(
    uint8_t* target, size_t limit, const uint8_t* unit, size_t size, size_t header
) noexcept:
    """Copy the start of a NAL unit behind its header without emulation prevention.   Spec: H.264 clause 7.3.1."""
    cdef size_t place = header
    cdef size_t count = 0
    cdef int zeros = 0
    while place < size and count < limit:
        if zeros >= 2 and unit[place] == 3:
            zeros = 0
            place += 1
            continue
        zeros = zeros + 1 if unit[place] == 0 else 0
        target[count] = unit[place]
        count += 1
        place += 1
    return count


cdef void begin(Bits* bits, const uint8_t* unit, size_t size, size_t header) noexcept:
    bits.at = 0
    bits.size = 8 * unescape_start(bits.data, HEAD_BYTES, unit, size, header)


cdef uint32_t take(Bits* bits, int count) noexcept:
    """Return so many bits, zeros behind the end (which `ended` tells)."""
    cdef uint32_t value = 0
    cdef int _number
    for _number in range(count):
        value <<= 1
        if bits.at < bits.size:
            value |= bits.data[bits.at >> 3] >> (7 - (bits.at & 7)) & 1
        bits.at += 1
    return value


cdef uint32_t take_ue(Bits* bits) noexcept:
    cdef int zeros = 0
    while zeros < 32 and bits.at < bits.size and not take(bits, 1):
        zeros += 1
    if zeros >= 32:
        bits.at = bits.size + 1
        return 0
    return ((<uint32_t> 1 << zeros) - 1) + take(bits, zeros)


cdef int take_se(Bits* bits) noexcept:
    cdef uint32_t code = take_ue(bits)
    cdef int value = <int> ((code >> 1) + (code & 1))
    return value if code & 1 else -value


cdef inline bint ended(const Bits* bits) noexcept:
    return bits.at > bits.size


cdef int read_h264_slice(
    const uint8_t* unit, size_t size, const H264Sequence* sequences, const H264Picture* pictures, H264Slice* slice
) noexcept:
    cdef Bits bits
    cdef uint32_t number
    cdef const H264Sequence* sequence
    begin(&bits, unit, size, 1)
    slice.reference = unit[0] >> 5 & 3
    slice.idr = unit[0] & 31 == 5
    slice.first_macroblock = <int> take_ue(&bits)
    slice.type = <int> take_ue(&bits)
    number = take_ue(&bits)
    if number >= MAX_PICTURE_SETS or not pictures[number].known or slice.type > 9:
        return 0
    sequence = &sequences[pictures[number].sequence]
    if not sequence.known:
        return 0
    slice.picture_set = <int> number
    if sequence.colour_planes:
        take(&bits, 2)
    slice.frame_number = <int> take(&bits, sequence.log2_frame_number)
    slice.field = not sequence.frames_only and take(&bits, 1)
    slice.bottom = slice.field and take(&bits, 1)
    slice.idr_number = <int> take_ue(&bits) if slice.idr else 0
    slice.order_lsb = slice.delta_bottom = slice.delta[0] = slice.delta[1] = 0
    if sequence.order_type == 0:
        slice.order_lsb = <int> take(&bits, sequence.log2_order)
        if pictures[number].order_in_frame and not slice.field:
            slice.delta_bottom = take_se(&bits)
    elif sequence.order_type == 1 and not sequence.delta_always_zero:
        slice.delta[0] = take_se(&bits)
        if pictures[number].order_in_frame and not slice.field:
            slice.delta[1] = take_se(&bits)
    return not ended(&bits)


cdef bint h264_differs(const H264Slice* a, const H264Slice* b, const H264Sequence* sequence) noexcept:
    """Compare as H.264 clause 7.4.1.2.4 says."""
    if (
        a.frame_number != b.frame_number or a.picture_set != b.picture_set or a.field != b.field
        or a.bottom != b.bottom or a.idr != b.idr
    ):
        return True
    if (a.reference == 0) != (b.reference == 0) or (a.idr and a.idr_number != b.idr_number):
        return True
    if sequence.order_type == 0:
        return a.order_lsb != b.order_lsb or a.delta_bottom != b.delta_bottom
    return a.delta[0] != b.delta[0] or a.delta[1] != b.delta[1]


cdef int64_t h264_order(const H264Slice* slice, const H264Sequence* sequence, H264Order* order) noexcept:
    """Return the picture order count, and remember what that of the next picture depends on.

    Memory management control operation 5 is not looked at.
    """
    cdef int64_t count
    if sequence.order_type == 0:
        return order_by_lsb(slice, sequence, order)
    if slice.idr:
        order.frame_number_offset = 0
    elif order.frame_number > slice.frame_number:
        order.frame_number_offset += <int64_t> 1 << sequence.log2_frame_number
    order.frame_number = slice.frame_number
    count = order.frame_number_offset + slice.frame_number
    if sequence.order_type == 2:
        return 0 if slice.idr else 2 * count - (slice.reference == 0)
    return order_by_cycle(slice, sequence, count)


cdef int64_t order_by_lsb(const H264Slice* slice, const H264Sequence* sequence, H264Order* order) noexcept:
    """Spec: H.264 clause 8.2.1.1."""
    cdef int span = 1 << sequence.log2_order
    cdef int high
    cdef int64_t count
    if slice.idr:
        order.high = order.lsb = 0
    high = order.high
    if slice.order_lsb < order.lsb and order.lsb - slice.order_lsb >= span // 2:
        high += span
    elif slice.order_lsb > order.lsb and slice.order_lsb - order.lsb > span // 2:
        high -= span
    if slice.reference:
        order.high, order.lsb = high, slice.order_lsb
    count = <int64_t> high + slice.order_lsb
    return count + min(slice.delta_bottom, 0)


cdef int64_t order_by_cycle(const H264Slice* slice, const H264Sequence* sequence, int64_t count) noexcept:
    """Spec: H.264 clause 8.2.1.2."""
    cdef int64_t expected = 0
    cdef int64_t whole = 0
    cdef int64_t number = count if sequence.cycle else 0
    cdef int place
    if slice.reference == 0 and number > 0:
        number -= 1
    if number > 0:
        for place in range(sequence.cycle):
            whole += sequence.offsets[place]
        expected = (number - 1) // sequence.cycle * whole
        for place in range(<int> ((number - 1) % sequence.cycle) + 1):
            expected += sequence.offsets[place]
    if slice.reference == 0:
        expected += sequence.offset_for_non_ref
    if slice.field and slice.bottom:
        return expected + sequence.offset_for_bottom + slice.delta[0]
    expected += slice.delta[0]
    return expected if slice.field else expected + min(0, sequence.offset_for_bottom + slice.delta[1])


cdef bint has_recovery_point(const uint8_t* unit, size_t size) noexcept:
    """Spec: H.264 clauses 7.3.2.3.1 and D.1.8."""
    cdef uint8_t[SEI_BYTES] data
    cdef size_t end = unescape_start(data, SEI_BYTES, unit, size, 1)
    cdef size_t at = 0
    cdef size_t kind, length
    while at + 2 <= end and data[at] != 0x80:
        at = take_sei_number(data, end, at, &kind)
        at = take_sei_number(data, end, at, &length)
        if kind == RECOVERY_POINT:
            return at < end
        at += length
    return False


cdef size_t take_sei_number(const uint8_t* data, size_t end, size_t at, size_t* value) noexcept:
    """Read a payload type or size: bytes of 255 and a last one; return the place behind it."""
    value[0] = 0
    while at < end and data[at] == 0xFF:
        value[0] += 255
        at += 1
    if at < end:
        value[0] += data[at]
    return at + 1


cdef int read_hevc_slice(
    const uint8_t* unit, size_t size, const HevcSequence* sequences, const HevcPicture* pictures, HevcSlice* slice
) noexcept:
    cdef Bits bits
    cdef uint32_t number
    cdef int kind = unit[0] >> 1 & 63
    cdef const HevcSequence* sequence
    begin(&bits, unit, size, 2)
    slice.first = take(&bits, 1)
    slice.order_lsb = 0
    if 16 <= kind <= 23:
        take(&bits, 1)
    number = take_ue(&bits)
    if number >= MAX_HEVC_PICTURE_SETS or not pictures[number].known:
        return 0
    sequence = &sequences[pictures[number].sequence]
    if not sequence.known:
        return 0
    slice.picture_set = <int> number
    if not slice.first:
        return not ended(&bits)
    take(&bits, pictures[number].extra_bits)
    take_ue(&bits)
    if pictures[number].output_flag:
        take(&bits, 1)
    if sequence.colour_planes:
        take(&bits, 2)
    if kind != 19 and kind != 20:
        slice.order_lsb = <int> take(&bits, sequence.log2_order)
    return not ended(&bits)
