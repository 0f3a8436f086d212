"""Frames of audio streams that have no container: where the next one ends, how long it sounds, and whether its set-up is new.

One function for each format, all with the same face, so that a reader of a byte stream takes any of them. What the headers mean beyond
that is read from the first frame by `mist.formats`.
Specs: ISO/IEC 14496-3 clauses 1.7.2 and 1.A.3 (LOAS, ADTS), 11172-3 and 13818-3 clause 2.4 (MPEG audio), ETSI TS 102 366 clauses 4.3
and E.1 (AC-3), ETSI TS 102 114 clauses 5.3 and 7.4 (DTS), ETSI TS 103 491 and its Opus profile, RFC 6716 section 3.1.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef uint32_t[16] AAC_RATES = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350, 0, 0, 0,
]
cdef uint16_t[80] MPEG_KBPS = [     # rows: MPEG-1 layers I, II, III; MPEG-2 layer I; MPEG-2 layers II and III
    0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0,
    0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0,
    0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0,
    0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0,
    0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0,
]
cdef uint32_t[3] MPEG_RATES = [44100, 48000, 32000]
cdef uint16_t[19] AC3_KBPS = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640]
cdef uint32_t[3] AC3_RATES = [48000, 44100, 32000]
cdef uint8_t[8] AC3_CHANNELS = [2, 1, 2, 3, 3, 4, 4, 5]
cdef uint8_t[4] AC3_BLOCKS = [1, 2, 3, 6]
cdef uint32_t[16] DTS_RATES = [
    0, 8000, 16000, 32000, 0, 0, 11025, 22050, 44100, 0, 0, 12000, 24000, 48000, 96000, 192000,
]
cdef uint8_t[16] DTS_CHANNELS = [1, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 6, 7, 8, 8]
cdef uint16_t[32] OPUS_SAMPLES = [
    480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 480, 960,
    120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960,
]

cdef enum:
    MAX_OPUS_SAMPLES = 5760     # 120 ms, RFC 6716 section 3.2.5
    MAX_DTS_BYTES = 16384       # FSIZE has 14 bits
    MIN_DTS_BYTES = 96


cdef inline void begin(AudioFrame* frame) noexcept nogil:
    frame.head_bytes = 0
    frame.samples = 0
    frame.rate_hz = 0
    frame.channels = 0
    frame.setup = 0
    frame.joins = False


cdef int adts_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read an ADTS header; its raw data blocks stay together."""
    begin(frame)
    if size < 7:
        return FRAME_MORE
    frame.rate_hz = AAC_RATES[data[2] >> 2 & 15]
    frame.head_bytes = 7 if data[1] & 1 else 9
    frame.frame_bytes = (<size_t> (data[3] & 3) << 11) | (<size_t> data[4] << 3) | (data[5] >> 5)
    if data[0] != 0xFF or data[1] & 0xF6 != 0xF0 or not frame.rate_hz or frame.frame_bytes <= frame.head_bytes:
        return FRAME_BROKEN
    frame.samples = 1024 * ((data[6] & 3) + 1)
    frame.setup = 0x10000 | (data[2] & 0xFD) << 8 | (data[3] & 0xC0)
    return FRAME_FOUND


cdef int mpeg_audio_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read the header of a layer I, II or III frame; free format is not known."""
    cdef int version, layer, row, rate
    cdef uint32_t kbps, slots
    begin(frame)
    if size < 4:
        return FRAME_MORE
    version = data[1] >> 3 & 3              # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    layer = 4 - (data[1] >> 1 & 3)
    rate = data[2] >> 2 & 3
    if data[0] != 0xFF or data[1] & 0xE0 != 0xE0 or version == 1 or layer == 4 or rate == 3:
        return FRAME_BROKEN
    row = layer - 1 if version == 3 else 3 if layer == 1 else 4
    kbps = MPEG_KBPS[row * 16 + (data[2] >> 4)]
    if not kbps:
        return FRAME_BROKEN
    frame.rate_hz = MPEG_RATES[rate] >> (0 if version == 3 else 1 if version == 2 else 2)
    frame.samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slots = 4 if layer == 1 else 1
    frame.frame_bytes = (frame.samples // 8 // slots * kbps * 1000 // frame.rate_hz + (data[2] >> 1 & 1)) * slots
    frame.channels = 1 if data[3] >> 6 == 3 else 2
    frame.setup = 0x10000 | (data[1] & 0x1E) << 8 | (data[2] & 0x0C) | frame.channels
    return FRAME_FOUND


cdef int ac3_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read the header of an AC-3 or E-AC-3 synchronisation frame."""
    cdef int bsid, code, mode, used = 3
    cdef uint32_t kbps
    begin(frame)
    if size < 8:
        return FRAME_MORE
    bsid = data[5] >> 3
    code = data[4] >> 6
    if data[0] != 0x0B or data[1] != 0x77 or bsid > 16:
        return FRAME_BROKEN
    if bsid > 10:
        return extended_frame(data, frame)
    if code == 3 or (data[4] & 63) >= 38:
        return FRAME_BROKEN
    kbps = AC3_KBPS[(data[4] & 63) >> 1]
    frame.frame_bytes = 2 * (kbps * 2 if code == 0 else 320 * kbps // 147 + (data[4] & 1) if code == 1 else kbps * 3)
    frame.rate_hz = AC3_RATES[code] >> (bsid - 8 if bsid > 8 else 0)
    frame.samples = 1536
    mode = data[6] >> 5
    used += (2 if mode & 1 and mode != 1 else 0) + (2 if mode & 4 else 0) + (2 if mode == 2 else 0)
    frame.channels = AC3_CHANNELS[mode] + (data[6] >> (7 - used) & 1)
    frame.setup = 0x10000 | code << 12 | bsid << 4 | frame.channels
    return FRAME_FOUND


cdef int extended_frame(const uint8_t* data, AudioFrame* frame) noexcept nogil:
    cdef int code = data[4] >> 6
    cdef int blocks = 3 if code == 3 else data[4] >> 4 & 3
    if data[2] >> 6 == 3 or (code == 3 and data[4] >> 4 & 3 == 3):
        return FRAME_BROKEN
    frame.frame_bytes = 2 * (<size_t> ((data[2] & 7) << 8 | data[3]) + 1)
    frame.rate_hz = AC3_RATES[data[4] >> 4 & 3] >> 1 if code == 3 else AC3_RATES[code]
    frame.samples = 256 * AC3_BLOCKS[blocks]
    frame.channels = AC3_CHANNELS[data[4] >> 1 & 7] + (data[4] & 1)
    frame.joins = data[2] >> 6 == 1 or data[2] >> 3 & 7 != 0
    frame.setup = 0x20000 | code << 12 | (data[5] >> 3) << 4 | frame.channels
    return FRAME_FOUND if frame.frame_bytes >= 8 else FRAME_BROKEN


cdef int dts_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read the header of a DTS core frame, or of the extension substream that follows one."""
    cdef size_t blocks
    begin(frame)
    if size < 12:
        return FRAME_MORE
    if data[0] == 0x64 and data[1] == 0x58 and data[2] == 0x20 and data[3] == 0x25:
        frame.joins = True
        if data[5] & 0x20:
            frame.frame_bytes = (
                <size_t> (data[6] & 1) << 19 | <size_t> data[7] << 11 | <size_t> data[8] << 3 | data[9] >> 5
            ) + 1
        else:
            frame.frame_bytes = (<size_t> (data[6] & 31) << 11 | <size_t> data[7] << 3 | data[8] >> 5) + 1
        return FRAME_FOUND if frame.frame_bytes >= 12 else FRAME_BROKEN
    if data[0] != 0x7F or data[1] != 0xFE or data[2] != 0x80 or data[3] != 0x01:
        return FRAME_BROKEN
    blocks = ((data[4] & 1) << 6 | data[5] >> 2) + 1
    frame.frame_bytes = (<size_t> (data[5] & 3) << 12 | <size_t> data[6] << 4 | data[7] >> 4) + 1
    frame.rate_hz = DTS_RATES[data[8] >> 2 & 15]
    if not frame.rate_hz or frame.frame_bytes < MIN_DTS_BYTES or blocks < 6:
        return FRAME_BROKEN
    frame.samples = <uint32_t> blocks * 32
    blocks = (data[7] & 15) << 2 | data[8] >> 6
    frame.channels = DTS_CHANNELS[blocks] + (1 if data[10] & 6 else 0) if blocks < 16 else 0
    frame.setup = 0x10000 | (data[8] >> 2 & 15) << 8 | frame.channels
    return FRAME_FOUND


cdef uint32_t opus_samples(const uint8_t* data, size_t size) noexcept nogil:
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


cdef int opus_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read the control header of an Opus packet in a transport stream."""
    cdef size_t at = 2
    cdef size_t payload = 0
    cdef uint8_t flags
    begin(frame)
    if size < 3:
        return FRAME_MORE
    flags = data[1]
    if data[0] != 0x7F or flags & 0xE0 != 0xE0:
        return FRAME_BROKEN
    while True:
        if at >= size:
            return FRAME_MORE
        payload += data[at]
        at += 1
        if data[at - 1] != 255:
            break
    at += (2 if flags & 0x10 else 0) + (2 if flags & 0x08 else 0)
    if flags & 0x04:
        if at >= size:
            return FRAME_MORE
        at += 1 + data[at]
    if at + 2 > size and payload:
        return FRAME_MORE
    frame.head_bytes = at
    frame.frame_bytes = at + payload
    frame.samples = opus_samples(data + at, min(payload, size - at)) if payload else 0
    frame.rate_hz = 48000
    frame.setup = 1
    return FRAME_FOUND if frame.samples else FRAME_BROKEN


cdef int loas_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read the header of an AudioSyncStream element, whose samples are told by what is in it."""
    begin(frame)
    if size < 3:
        return FRAME_MORE
    if data[0] != 0x56 or data[1] & 0xE0 != 0xE0:
        return FRAME_BROKEN
    frame.head_bytes = 3
    frame.frame_bytes = 3 + (<size_t> (data[1] & 31) << 8 | data[2])
    return FRAME_FOUND if frame.frame_bytes > 3 else FRAME_BROKEN


cdef int sized_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil:
    """Read a size of two bytes."""
    begin(frame)
    if size < 2:
        return FRAME_MORE
    frame.head_bytes = 2
    frame.frame_bytes = 2 + (<size_t> data[0] << 8 | data[1])
    return FRAME_FOUND if frame.frame_bytes > 2 else FRAME_BROKEN
