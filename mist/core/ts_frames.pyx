"""What stands before packets that transport streams alone hold in this way: Opus, AAC in LATM, JSON.

Specs: ETSI TS 103 491 and its Opus profile; RFC 6716 section 3.1; ISO/IEC 14496-3 clause 1.7.2 (LOAS).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from mist.core.audio_headers cimport FRAME, NO_FRAME, FrameHead

cdef uint16_t[32] OPUS_SAMPLES = [
    480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 480, 960,
    120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960,
]

cdef enum:
    MAX_OPUS_SAMPLES = 5760     # 120 ms, RFC 6716 section 3.2.5


cdef inline void begin(FrameHead* head, size_t header, size_t size) noexcept:
    head.header = header
    head.size = size
    head.samples = 0
    head.rate_hz = 0
    head.key = 1
    head.blocks = 1
    head.joined = False


cdef uint32_t opus_samples(const uint8_t* data, size_t size) noexcept:
    """Return how many samples at 48 kHz an Opus packet has; 0 for a broken one."""
    cdef uint32_t count = 1
    if not size:
        return 0
    if data[0] & 3 == 3:
        count = data[1] & 63 if size > 1 else 0
    elif data[0] & 3:
        count = 2
    count *= OPUS_SAMPLES[data[0] >> 3]
    return count if count <= MAX_OPUS_SAMPLES else 0


cdef int read_opus(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    """Read the control header of an Opus packet. A packet of which nothing is there has no samples yet."""
    cdef size_t at = 2
    cdef size_t payload = 0
    cdef uint8_t flags
    if size < 3 or data[0] != 0x7F or data[1] & 0xE0 != 0xE0:
        return NO_FRAME
    flags = data[1]
    while True:
        if at >= size:
            return NO_FRAME
        payload += data[at]
        at += 1
        if data[at - 1] != 255:
            break
    at += (2 if flags & 0x10 else 0) + (2 if flags & 0x08 else 0)
    if flags & 0x04:
        if at >= size:
            return NO_FRAME
        at += 1 + data[at]
    begin(head, at, at + payload)
    head.rate_hz = 48000
    if head.size <= size:
        head.samples = opus_samples(data + at, payload)
        return FRAME if head.samples else NO_FRAME
    return FRAME if payload else NO_FRAME


cdef int read_loas(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    """Read the header of an AudioSyncStream element, whose samples are told by what is in it."""
    if size < 3 or data[0] != 0x56 or data[1] & 0xE0 != 0xE0:
        return NO_FRAME
    begin(head, 3, 3 + (<size_t> (data[1] & 31) << 8 | data[2]))
    return FRAME if head.size > 3 else NO_FRAME


cdef int read_sized(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    """Read a size of two bytes."""
    if size < 2:
        return NO_FRAME
    begin(head, 2, 2 + (<size_t> data[0] << 8 | data[1]))
    return FRAME if head.size > 2 else NO_FRAME
