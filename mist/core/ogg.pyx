"""Ogg pages, and how the granule positions of each codec count time.

Specs: RFC 3533 section 6 (pages), RFC 7845 section 4 (Opus), Vorbis I appendix A, Theora specification appendix A,
Ogg FLAC mapping 1.0, Speex manual section "Ogg file format".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from mist.core.buffer cimport ByteBuffer
from mist.core.crc cimport crc32_mpeg2_of
from mist.core.flac_frames cimport FlacHeader, parse_flac_header

from mist.errors import LocalProtocolError

cdef extern from *:
    """
    typedef __int128 mist_wide;
    """
    ctypedef long long wide "mist_wide"

cdef enum:
    MAX_OPUS_SAMPLES = 5760     # 120 ms, RFC 6716 section 3.2.5

cdef int64_t NO_GRANULE = -(<int64_t> 1 << 62)
cdef int64_t MAX_TICKS = <int64_t> 1 << 56
cdef int64_t LONG_AGO_US = -(<int64_t> 1 << 62)
cdef int64_t MILLION = 1000000
cdef int64_t MAX_US = <int64_t> 1 << 61

# Samples at 48 kHz of one frame by the configuration in the first byte, RFC 6716 table 2.
cdef int[32] OPUS_FRAME_SAMPLES = [
    480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 480, 960,
    120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960,
]
cdef uint8_t[4] NO_CHECKSUM = [0, 0, 0, 0]

RULES = {"opus": OPUS_RULE, "vorbis": VORBIS_RULE, "theora": FRAME_RULE, "FLAC": FLAC_RULE, "Speex": FIXED_RULE}


cdef int load_clock(Clock* clock, object timing) except -1:
    """Fill a clock from a description of it (`mist.formats.ogg.Timing`)."""
    cdef int place
    memset(clock, 0, sizeof(Clock))
    clock.rule = RULES[timing.codec]
    clock.rate_numerator = timing.rate_numerator
    clock.rate_denominator = timing.rate_denominator
    clock.packet_ticks = timing.packet_ticks
    clock.pre_skip = timing.pre_skip
    clock.granule_shift = timing.granule_shift
    clock.first_frame = timing.first_frame
    clock.blocks[0], clock.blocks[1] = timing.blocks
    modes = timing.long_modes
    if len(modes) > MAX_MODES or clock.rate_numerator <= 0 or clock.rate_denominator <= 0:
        raise LocalProtocolError(f"a clock of {clock.rate_numerator}/{clock.rate_denominator} Hz and {len(modes)} modes")
    for place in range(<int> len(modes)):
        clock.long_modes[place] = modes[place]
    clock.mode_bits = max(<int> len(modes) - 1, 0).bit_length()
    clock.previous_block = clock.blocks[0]
    return 0


# -- time --------------------------------------------------------------------------------------------------------------

cdef int64_t packet_ticks(Clock* clock, const uint8_t* data, size_t size) noexcept nogil:
    cdef FlacHeader header
    if size == 0:
        return 1 if clock.rule == FRAME_RULE else -1
    if clock.rule == OPUS_RULE:
        return opus_samples(data, size)
    if clock.rule == VORBIS_RULE:
        return vorbis_samples(clock, data)
    if clock.rule == FRAME_RULE:
        return -1 if data[0] & 0x80 else 1
    if clock.rule == FLAC_RULE:
        return header.block_samples if parse_flac_header(data, size, &header) > 0 else -1
    return clock.packet_ticks


cdef int64_t opus_samples(const uint8_t* data, size_t size) noexcept nogil:
    """Return the samples at 48 kHz of an Opus packet, -1 if it is none.   Spec: RFC 6716 sections 3.1, 3.2."""
    cdef int code = data[0] & 3
    cdef int frames = 1 if code == 0 else 2
    cdef int samples
    if code == 3:
        if size < 2:
            return -1
        frames = data[1] & 0x3F
    samples = OPUS_FRAME_SAMPLES[data[0] >> 3] * frames
    return samples if 0 < samples <= MAX_OPUS_SAMPLES else -1


cdef int64_t vorbis_samples(Clock* clock, const uint8_t* data) noexcept nogil:
    """Return the samples that a Vorbis packet completes, -1 if it is no audio.

    The first packet completes none. It is given what the overlap with a short block before it would be, so that no two packets
    have one time; its time is then a little before 0.   Spec: Vorbis I sections 1.3.2, 4.3.1.
    """
    cdef int mode = (data[0] >> 1) & ((1 << clock.mode_bits) - 1)
    cdef uint32_t block = clock.blocks[0]
    cdef uint32_t previous = clock.previous_block
    if data[0] & 1:
        return -1
    if clock.long_modes[mode]:
        block = clock.blocks[1]
        previous = clock.blocks[(data[0] >> (1 + clock.mode_bits)) & 1]
    clock.previous_block = block
    return (previous + block) // 4


cdef int64_t divided(wide over, wide under) noexcept nogil:
    """Return the nearest whole number; halves go up. under is positive."""
    cdef wide quotient, product
    over += over
    over += under
    under += under
    quotient = over // under
    product = quotient
    product *= under
    if product > over:
        quotient -= 1       # C rounds towards zero
    return <int64_t> quotient


cdef int64_t to_us(const Clock* clock, int64_t ticks) noexcept nogil:
    """Return microseconds for ticks, at most MAX_TICKS away from 0; held within 2^61."""
    cdef wide us = ticks
    cdef wide bound = MAX_US
    bound *= clock.rate_numerator
    us *= clock.rate_denominator
    us *= MILLION
    if us > bound or us < -bound:
        return MAX_US if us > 0 else -MAX_US
    return divided(us, clock.rate_numerator)


cdef int64_t to_ticks(const Clock* clock, int64_t us) noexcept nogil:
    """Return ticks for microseconds, held within MAX_TICKS."""
    cdef wide under = clock.rate_denominator
    cdef wide ticks = us
    cdef wide bound = MAX_TICKS
    under *= MILLION
    ticks *= clock.rate_numerator
    bound *= under
    if ticks > bound or ticks < -bound:
        return MAX_TICKS if us > 0 else -MAX_TICKS
    return divided(ticks, under)


cdef int64_t granule_end(const Clock* clock, int64_t granule) noexcept nogil:
    cdef int64_t end = granule - clock.pre_skip
    if granule < 0:
        return NO_GRANULE
    if clock.rule == FRAME_RULE:
        end = (granule >> clock.granule_shift) + (granule & ((<int64_t> 1 << clock.granule_shift) - 1)) + 1 - clock.first_frame
    return end if end < MAX_TICKS else NO_GRANULE


# -- pages -------------------------------------------------------------------------------------------------------------

cdef uint32_t page_checksum(const uint8_t* page, size_t size) noexcept nogil:
    """Return the checksum of a page as if its own field were 0.   Spec: RFC 3533 section 6."""
    cdef uint32_t crc = crc32_mpeg2_of(page, 22, 0)
    crc = crc32_mpeg2_of(NO_CHECKSUM, 4, crc)
    return crc32_mpeg2_of(page + 26, size - 26, crc)


cdef void put_little(uint8_t* to, uint32_t value) noexcept:
    to[0], to[1], to[2], to[3] = value & 255, (value >> 8) & 255, (value >> 16) & 255, value >> 24


cdef void seal_page(uint8_t* page, size_t size) noexcept:
    put_little(page + 22, page_checksum(page, size))


cdef int write_page(ByteBuffer out, uint8_t flags, int64_t granule, uint32_t serial, uint32_t number, const uint8_t* lacing,
                    int segments, const uint8_t* body, size_t size) except -1:
    """Append a page.   Spec: RFC 3533 section 6."""
    cdef size_t total = PAGE_HEADER_BYTES + segments + size
    cdef uint8_t* to = out.reserve(total)
    memcpy(to, b"OggS", 4)
    to[4] = 0
    to[5] = flags
    put_little(to + 6, <uint32_t> (granule & 0xFFFFFFFF))
    put_little(to + 10, <uint32_t> ((granule >> 32) & 0xFFFFFFFF))
    put_little(to + 14, serial)
    put_little(to + 18, number)
    to[26] = <uint8_t> segments
    memcpy(to + PAGE_HEADER_BYTES, lacing, segments)
    if size:
        memcpy(to + PAGE_HEADER_BYTES + segments, body, size)
    seal_page(to, total)
    out.commit(total)
    return 0


def serialize_pages(packets, uint32_t serial, uint32_t number=0, int flags=0, int64_t granule=0):
    """Return packets as pages of their own, and how many pages that is.

    flags: of the first page. granule: of all pages on which a packet ends. The last packet ends the last page.
    """
    cdef ByteBuffer out = ByteBuffer()
    cdef bytes body
    cdef int segments
    cdef size_t begin = 0, end
    cdef uint32_t first = number
    cdef bytes data = b"".join(packets)
    cdef bytes lacing = b"".join([b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets])
    for place in range(0, len(lacing), MAX_SEGMENTS):
        table = lacing[place:place + MAX_SEGMENTS]
        end = begin + sum(table)
        body = data[begin:end]
        segments = <int> len(table)
        if place and lacing[place - 1] == 255:
            flags |= CONTINUED
        write_page(
            out, <uint8_t> flags, granule if min(table) < 255 else -1, serial, number,
            <const uint8_t*> PyBytes_AS_STRING(table), segments,
            <const uint8_t*> PyBytes_AS_STRING(body), <size_t> PyBytes_GET_SIZE(body),
        )
        number += 1
        flags = 0
        begin = end
    return out.take(), number - first
