"""Frame headers of audio elementary streams: where a frame ends, and how long it lasts.

Spec: ISO/IEC 11172-3 and 13818-3 clause 2.4.1.3 (MPEG audio), ISO/IEC 14496-3 clause 1.A.3 (ADTS), ETSI TS 102 366 clauses 4.3
and E.1.2 (AC-3, E-AC-3), ETSI TS 102 114 clauses 5.3 and 7.4 (DTS).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

cdef enum:
    MPEG_1 = 3                  # version bits
    ID3_TRAILER_BYTES = 128
    ID3_HEADER_BYTES = 10
    APE_TAG_BYTES = 32
    DTS_MIN_BYTES = 96          # FSIZE is at least 95
    DEPENDENT = 1

# kbit/s by [MPEG-1 or later][layer - 1][index], ISO/IEC 11172-3 and 13818-3 clause 2.4.2.3.
cdef uint32_t[2][3][15] MPEG_KBPS = [
    [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ],
    [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ],
]
cdef uint32_t[3] MPEG_RATES = [44100, 48000, 32000]
cdef uint32_t[4] MPEG_RATE_SHIFT = [2, 0, 1, 0]
cdef uint32_t[13] ADTS_RATES = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
]
cdef uint32_t[3] AC3_RATES = [48000, 44100, 32000]
cdef uint32_t[19] AC3_KBPS = [
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
]
cdef uint32_t[4] EAC3_BLOCKS = [1, 2, 3, 6]
# By SFREQ, ETSI TS 102 114 table 5-5; 0 invalid.
cdef uint32_t[16] DTS_RATES = [0, 8000, 16000, 32000, 0, 0, 11025, 22050, 44100, 0, 0, 12000, 24000, 48000, 0, 0]


cdef inline uint32_t be32(const uint8_t* data) noexcept:
    return <uint32_t> data[0] << 24 | <uint32_t> data[1] << 16 | <uint32_t> data[2] << 8 | data[3]


cdef int read_mpeg(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    cdef uint32_t value, version, layer, index, rate_index, kbps, slot
    if size < 4:
        return NO_FRAME
    value = be32(data)
    version, layer = value >> 19 & 3, 4 - (value >> 17 & 3)
    index, rate_index = value >> 12 & 15, value >> 10 & 3
    if value >> 21 != 0x7FF or version == 1 or layer == 4 or index == 15 or rate_index == 3:
        return NO_FRAME
    if index == 0 or layer == 1:
        return REFUSED
    kbps = MPEG_KBPS[version != MPEG_1][layer - 1][index]
    slot = value >> 9 & 1
    head.rate_hz = MPEG_RATES[rate_index] >> MPEG_RATE_SHIFT[version]
    head.samples = 576 if layer == 3 and version != MPEG_1 else 1152
    head.size = head.samples // 8 * kbps * 1000 // head.rate_hz + slot
    head.header = 0
    head.blocks = 1
    head.joined = False
    # Version, layer, sample rate, and mono or not: all else may differ from frame to frame.
    head.key = (value & 0x001E0C00) | (value >> 6 & 3 == 3)
    return FRAME


cdef bint is_info_frame(const uint8_t* data, size_t size) noexcept:
    cdef bint mono = data[3] >> 6 == 3
    cdef size_t place
    if size < 48 or data[1] >> 1 & 3 != 1:
        return False
    if data[1] >> 3 & 3 == MPEG_1:
        place = 4 + (17 if mono else 32)
    else:
        place = 4 + (9 if mono else 17)
    if memcmp(data + place, b"Xing", 4) == 0 or memcmp(data + place, b"Info", 4) == 0:
        return True
    return memcmp(data + 36, b"VBRI", 4) == 0


cdef int read_adts(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    cdef uint32_t index
    if size < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return NO_FRAME
    index = data[2] >> 2 & 15
    if index >= 13:
        return NO_FRAME
    head.header = 7 if data[1] & 1 else 9
    head.size = <size_t> (data[3] & 3) << 11 | <size_t> data[4] << 3 | data[5] >> 5
    head.blocks = (data[6] & 3) + 1
    if head.blocks > 1:
        if data[1] & 1:
            return REFUSED      # nothing says where the second block begins
        head.header = 7 + 2 * (head.blocks - 1) + 2
    if head.size <= head.header:
        return NO_FRAME
    head.rate_hz = ADTS_RATES[index]
    head.samples = 1024 * head.blocks
    head.joined = False
    # Profile, sample rate and channel configuration; not the private bit.
    head.key = <uint32_t> (data[2] & 0xFD) << 2 | data[3] >> 6
    return FRAME


cdef int read_ac3(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    cdef uint32_t rate_code, code, kbps, shift, kind, identity
    if size < 8 or data[0] != 0x0B or data[1] != 0x77 or data[5] >> 3 > 16:
        return NO_FRAME
    identity = data[5] >> 3
    rate_code = data[4] >> 6
    head.header = 0
    head.blocks = 1
    if identity <= 10:
        code = data[4] & 63
        if rate_code == 3 or code >> 1 >= 19:
            return NO_FRAME
        kbps = AC3_KBPS[code >> 1]
        shift = identity - 8 if identity > 8 else 0
        if rate_code == 0:
            head.size = kbps * 4
        elif rate_code == 1:
            head.size = 2 * (320 * kbps // 147 + (code & 1))
        else:
            head.size = kbps * 6
        head.rate_hz = AC3_RATES[rate_code] >> shift
        head.samples = 1536
        head.joined = False
        head.key = head.rate_hz << 8 | data[6] >> 5
        return FRAME
    kind = data[2] >> 6
    code = data[4] >> 4 & 3
    if kind == 3 or (rate_code == 3 and code == 3):
        return NO_FRAME
    head.size = 2 * ((<size_t> (data[2] & 7) << 8 | data[3]) + 1)
    head.rate_hz = AC3_RATES[code] // 2 if rate_code == 3 else AC3_RATES[rate_code]
    head.samples = 256 * (6 if rate_code == 3 else EAC3_BLOCKS[code])
    # One packet holds the first program's independent frame and all substreams that belong to the same time.
    head.joined = kind == DEPENDENT or data[2] >> 3 & 7 != 0
    head.key = head.rate_hz << 8 | 0x80 | data[4] & 15
    return FRAME if head.size >= 8 else NO_FRAME


cdef int read_dts(const uint8_t* data, size_t size, FrameHead* head) noexcept:
    cdef uint32_t sync
    if size < 12:
        return NO_FRAME
    sync = be32(data)
    head.header = 0
    head.blocks = 1
    if sync == 0x64582025:      # extension substream: belongs to the core frame before it
        return read_dts_extension(data, head)
    if sync == 0xFE7F0180 or sync == 0x1FFFE800 or sync == 0xFF1F00E8:
        return REFUSED
    if sync != 0x7FFE8001:
        return NO_FRAME
    head.samples = 32 * (((<uint32_t> data[4] & 1) << 6 | data[5] >> 2) + 1)
    head.size = ((<size_t> data[5] & 3) << 12 | <size_t> data[6] << 4 | data[7] >> 4) + 1
    head.rate_hz = DTS_RATES[data[8] >> 2 & 15]
    if head.size < DTS_MIN_BYTES or head.rate_hz == 0 or head.samples < 192:
        return NO_FRAME
    head.joined = False
    head.key = head.rate_hz << 8 | (data[7] & 15) << 2 | data[8] >> 6
    return FRAME


cdef int read_dts_extension(const uint8_t* data, FrameHead* head) noexcept:
    """Read the size of an extension substream.   Spec: ETSI TS 102 114 clause 7.4.1."""
    cdef uint32_t bits = be32(data + 5)
    if bits >> 29 & 1:          # bHeaderSizeType, after two bits of nExtSSIndex
        head.size = ((bits & 0x1FFFF) << 3 | data[9] >> 5) + 1
    else:
        head.size = (bits >> 5 & 0xFFFF) + 1
    head.samples = 0
    head.rate_hz = 1
    head.key = 0
    head.joined = True
    return FRAME if head.size > 12 else NO_FRAME


cdef size_t tag_bytes(const uint8_t* data, size_t size) noexcept:
    if size >= ID3_HEADER_BYTES and memcmp(data, b"ID3", 3) == 0:
        if data[3] == 0xFF or (data[6] | data[7] | data[8] | data[9]) & 0x80:
            return 0
        return (
            ID3_HEADER_BYTES * (2 if data[5] & 0x10 else 1)
            + (<size_t> data[6] << 21 | <size_t> data[7] << 14 | <size_t> data[8] << 7 | data[9])
        )
    if size >= APE_TAG_BYTES and memcmp(data, b"APETAGEX", 8) == 0:
        if not data[23] & 0x20:
            return APE_TAG_BYTES            # the footer: the items stand before it
        return APE_TAG_BYTES + (data[12] | <size_t> data[13] << 8 | <size_t> data[14] << 16 | <size_t> data[15] << 24)
    if size >= 3 and memcmp(data, b"TAG", 3) == 0:
        return ID3_TRAILER_BYTES
    return 0
