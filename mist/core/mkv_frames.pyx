"""The frames in Matroska blocks: brought into the project's form, and measured where several share a block.

Spec: RFC 9559 section 10 (lacing) and the Matroska codec mappings.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.frame_samples cimport eac3_samples, flac_samples, mpeg_audio_samples, opus_samples
from mist.core.nal cimport NalUnit, next_annexb, next_length_prefixed
from mist.core.packet cimport PacketView

import zlib

# The same for those that describe tracks.
FORMS = {
    "AS_IS": AS_IS, "NAL_LENGTHS": NAL_LENGTHS, "ANNEXB": ANNEXB, "OBUS": OBUS, "SWAPPED": SWAPPED, "ASS": ASS, "WEBVTT": WEBVTT,
}
RULES = {
    "UNTOLD": UNTOLD, "FIXED": FIXED, "SAMPLE_BYTES": SAMPLE_BYTES, "OPUS": OPUS, "MPEG_AUDIO": MPEG_AUDIO, "EAC3": EAC3,
    "FLAC": FLAC, "DTS": DTS, "VORBIS": VORBIS,
}

cdef enum:
    TEMPORAL_DELIMITER = 2      # AV1 OBU type, AV1 section 6.2.2
    ASS_FIELDS = 8              # before a line's text
    MAX_LEB128_BYTES = 8


cdef bint is_formed(const TrackPlan* plan, const uint8_t* data, size_t size) noexcept:
    cdef size_t at = 0
    cdef size_t length = 0
    cdef int head = 0
    if plan.form == AS_IS:
        return True
    if plan.form != OBUS:
        return False
    while at < size:
        if data[at] >> 3 & 15 == TEMPORAL_DELIMITER or not data[at] & 2 or not next_obu(data + at, size - at, &head, &length):
            return False
        at += head + length
    return True


cdef int put_frame(const TrackPlan* plan, const uint8_t* data, size_t size, ByteBuffer out) except -1:
    if plan.form == NAL_LENGTHS:
        return put_units(plan, data, size, out)
    if plan.form == ANNEXB:
        return put_start_coded(data, size, out)
    if plan.form == OBUS:
        return put_obus(data, size, out)
    if plan.form == SWAPPED:
        return put_swapped(data, size, plan.unit_bytes, out)
    if plan.form == ASS:
        return put_ass_text(data, size, out)
    if plan.form == WEBVTT:
        return put_cue_text(data, size, out)
    return out.append(data, size)


cdef int put_unit(ByteBuffer out, const NalUnit* unit) except -1:
    cdef uint8_t* to = out.reserve(unit.size + 4)
    to[0] = <uint8_t> (unit.size >> 24)
    to[1] = <uint8_t> (unit.size >> 16)
    to[2] = <uint8_t> (unit.size >> 8)
    to[3] = <uint8_t> unit.size
    memcpy(to + 4, unit.data, unit.size)
    out.commit(unit.size + 4)
    return 0


cdef int put_units(const TrackPlan* plan, const uint8_t* data, size_t size, ByteBuffer out) except -1:
    """Append NAL units with lengths of 4 bytes; one that goes past the end is left out with all behind it."""
    cdef size_t offset = 0
    cdef NalUnit unit
    while next_length_prefixed(data, size, &offset, plan.unit_bytes, &unit) > 0:
        put_unit(out, &unit)
    return 0


cdef int put_start_coded(const uint8_t* data, size_t size, ByteBuffer out) except -1:
    cdef size_t offset = 0
    cdef NalUnit unit
    while next_annexb(data, size, &offset, &unit):
        put_unit(out, &unit)
    return 0


cdef bint next_obu(const uint8_t* data, size_t size, int* head, size_t* length) noexcept:
    """Tell how long an OBU's head and body are; False where it is not whole.   Spec: AV1 sections 5.3.1 to 5.3.3."""
    cdef int at = 2 if data[0] & 4 else 1
    cdef int place
    cdef uint64_t value = 0
    if data[0] & 0x80 or size < <size_t> at:
        return False
    if not data[0] & 2:
        head[0] = at
        length[0] = size - at
        return True
    for place in range(MAX_LEB128_BYTES):
        if <size_t> at >= size:
            return False
        value |= <uint64_t> (data[at] & 0x7F) << (7 * place)
        at += 1
        if not data[at - 1] & 0x80:
            break
    else:
        return False
    if value > size - at:
        return False
    head[0] = at
    length[0] = <size_t> value
    return True


cdef int put_obus(const uint8_t* data, size_t size, ByteBuffer out) except -1:
    """Append OBUs, each with its size, without delimiters, up to the first that is broken."""
    cdef size_t at = 0
    cdef size_t length = 0
    cdef size_t rest
    cdef int head = 0
    cdef uint8_t* to
    while at < size and next_obu(data + at, size - at, &head, &length):
        if data[at] >> 3 & 15 != TEMPORAL_DELIMITER:
            to = out.reserve(length + 12)
            to[0] = data[at] | 2
            to += 1
            if data[at] & 4:
                to[0] = data[at + 1]
                to += 1
            rest = length
            while rest >= 0x80:
                to[0] = <uint8_t> (rest | 0x80)
                to += 1
                rest >>= 7
            to[0] = <uint8_t> rest
            memcpy(to + 1, data + at + head, length)
            out.commit(<size_t> (to + 1 - (out.data + out.size)) + length)
        at += head + length
    return 0


cdef int put_swapped(const uint8_t* data, size_t size, int width, ByteBuffer out) except -1:
    """Append samples with their bytes the other way round; a part of a sample at the end is left out."""
    cdef size_t count = size // width
    cdef uint8_t* to = out.reserve(count * width + 1)
    cdef size_t place
    if width == 2:
        for place in range(count):
            to[2 * place] = data[2 * place + 1]
            to[2 * place + 1] = data[2 * place]
    else:
        for place in range(count * width):
            to[place] = data[place - place % width + (width - 1 - place % width)]
    out.commit(count * width)
    return 0


cdef int put_ass_text(const uint8_t* data, size_t size, ByteBuffer out) except -1:
    r"""Append a line's text: behind eight commas, without {overrides}; \N and \n break the line, \h is a space."""
    cdef size_t at = 0
    cdef int commas = 0
    cdef bint inside = False
    cdef uint8_t* to = out.reserve(size + 1)
    cdef size_t count = 0
    while at < size and commas < ASS_FIELDS:
        commas += data[at] == c","
        at += 1
    while at < size:
        if data[at] == c"{":
            inside = True
        elif data[at] == c"}" and inside:
            inside = False
        elif not inside and data[at] == c"\\" and at + 1 < size and data[at + 1] in (c"N", c"n", c"h"):
            to[count] = c" " if data[at + 1] == c"h" else c"\n"
            count += 1
            at += 1
        elif not inside and data[at] != c"\r":
            to[count] = data[at]
            count += 1
        at += 1
    while count and to[count - 1] == c"\n":
        count -= 1
    out.commit(count)
    return 0


cdef int put_cue_text(const uint8_t* data, size_t size, ByteBuffer out) except -1:
    """Append what follows the second line."""
    cdef size_t at = 0
    cdef int lines = 0
    while at < size and lines < 2:
        lines += data[at] == c"\n"
        at += 1
    return out.append(data + at, size - at)


cdef int64_t frame_ns(TrackPlan* plan, const uint8_t* data, size_t size) noexcept:
    cdef PacketView view
    cdef int64_t samples = 0
    if plan.default_ns:
        return plan.default_ns
    if plan.rule == UNTOLD or not plan.rate_hz:
        return 0
    view.data = data
    view.size = size
    if plan.rule == FIXED:
        samples = plan.rule_value
    elif plan.rule == SAMPLE_BYTES:
        samples = <int64_t> size // plan.rule_value if plan.rule_value else 0
    elif plan.rule == OPUS:
        samples = <int64_t> opus_samples(&view)
    elif plan.rule == MPEG_AUDIO:
        samples = <int64_t> mpeg_audio_samples(&view)
    elif plan.rule == EAC3:
        samples = <int64_t> eac3_samples(&view)
    elif plan.rule == FLAC:
        samples = <int64_t> flac_samples(&view)
    elif plan.rule == DTS:
        samples = dts_samples(data, size)
    elif plan.rule == VORBIS:
        samples = vorbis_samples(plan, data, size)
    return samples * 1000000000 // plan.rate_hz


cdef int64_t exact_ns(const TrackPlan* plan, int64_t time_ns, int64_t scale_ns) noexcept:
    cdef int64_t samples, exact, off
    if not plan.grid_samples or time_ns < 0:
        return time_ns
    samples = <int64_t> (time_ns * <double> plan.rate_hz / (plan.grid_samples * 1e9) + 0.5) * plan.grid_samples
    exact = samples // plan.rate_hz * 1000000000 + samples % plan.rate_hz * 1000000000 // plan.rate_hz
    off = exact - time_ns
    return exact if -scale_ns <= 2 * off <= scale_ns else time_ns


cdef int64_t dts_samples(const uint8_t* data, size_t size) noexcept:
    """Return the samples of a core frame.   Spec: ETSI TS 102 114 clause 5.3.1."""
    if size < 6 or data[0] != 0x7F or data[1] != 0xFE:
        return 0
    return (((data[4] & 1) << 6 | data[5] >> 2) + 1) * 32


cdef int64_t vorbis_samples(TrackPlan* plan, const uint8_t* data, size_t size) noexcept:
    """Return the samples that come out with a packet: a quarter of its block and of the one before.

    Spec: Vorbis I sections 4.3.1 and 4.3.8.
    """
    cdef int mode, mask = 1
    cdef int previous = plan.previous_block
    while mask < plan.modes:
        mask <<= 1
    mode = data[0] >> 1 & (mask - 1) if size else plan.modes
    if not size or data[0] & 1 or mode >= plan.modes:
        return 0
    plan.previous_block = plan.blocks[mode]
    return (plan.previous_block + previous) // 4 if previous else 0


cdef bytes inflate(const uint8_t* data, size_t size, size_t limit):
    """Return what zlib made this of; b"" where it is broken, or larger than limit."""
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> size), limit)
    except zlib.error:
        return b""
    return b"" if engine.unconsumed_tail else found
