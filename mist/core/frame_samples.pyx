"""How many samples an audio frame holds, read from the frame itself."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mist.core.packet cimport PacketView

cdef uint32_t* _OPUS_SAMPLES = [480, 960, 1920, 2880, 480, 960, 480, 960, 120, 240, 480, 960]
cdef uint32_t* _EAC3_SAMPLES = [256, 512, 768, 1536]


cdef uint64_t opus_samples(const PacketView* packet) noexcept:
    """Return the samples at 48 kHz, 0 where the packet is broken.   Spec: RFC 6716 section 3.1."""
    cdef int configuration = packet.data[0] >> 3 if packet.size else 0
    cdef uint64_t frame
    cdef uint64_t count
    if not packet.size:
        return 0
    if configuration < 12:
        frame = _OPUS_SAMPLES[configuration & 3]
    elif configuration < 16:
        frame = _OPUS_SAMPLES[4 + (configuration & 1)]
    else:
        frame = _OPUS_SAMPLES[8 + (configuration & 3)]
    if packet.data[0] & 3 == 3:
        if packet.size < 2:
            return 0
        count = packet.data[1] & 63
    else:
        count = 2 if packet.data[0] & 3 else 1
    return frame * count if frame * count <= 5760 else 0


cdef uint64_t mpeg_audio_samples(const PacketView* packet) noexcept:
    """Return the samples of the frame, 0 where there is no header.   Spec: ISO/IEC 11172-3 clause 2.4.2.3."""
    cdef int version
    cdef int layer
    if packet.size < 4 or packet.data[0] != 0xFF or packet.data[1] & 0xE0 != 0xE0:
        return 0
    version = packet.data[1] >> 3 & 3
    layer = 4 - (packet.data[1] >> 1 & 3)
    if version == 1 or layer == 4:
        return 0
    if layer == 1:
        return 384
    return 576 if layer == 3 and version != 3 else 1152


cdef uint64_t eac3_samples(const PacketView* packet) noexcept:
    """Return the samples of the first program's frames, 0 where there is none.   Spec: ETSI TS 102 366 clause E.1.3.1."""
    cdef size_t at = 0
    cdef uint64_t samples = 0
    cdef int rate_code
    while at + 6 <= packet.size and packet.data[at] == 0x0B and packet.data[at + 1] == 0x77:
        rate_code = packet.data[at + 4] >> 6
        if packet.data[at + 2] >> 6 != 1 and not packet.data[at + 2] >> 3 & 7:
            samples += _EAC3_SAMPLES[3 if rate_code == 3 else packet.data[at + 4] >> 4 & 3]
        at += ((<size_t> (packet.data[at + 2] & 7) << 8 | packet.data[at + 3]) + 1) * 2
    return samples


cdef uint64_t flac_samples(const PacketView* packet) noexcept:
    """Return the samples of the frame, 0 where there is no header.   Spec: RFC 9639 section 9.1."""
    cdef int code
    cdef size_t at = 5
    cdef uint8_t first
    if packet.size < 8 or packet.data[0] != 0xFF or packet.data[1] & 0xFE != 0xF8:
        return 0
    code = packet.data[2] >> 4
    if code == 1:
        return 192
    if 2 <= code <= 5:
        return 576 << (code - 2)
    if code >= 8:
        return 256 << (code - 8)
    first = packet.data[4]      # the frame's number, coded like UTF-8, lies in between
    while first & 0xC0 == 0xC0:
        at += 1
        first <<= 1
    if code == 6 and at < packet.size:
        return <uint64_t> packet.data[at] + 1
    if code == 7 and at + 1 < packet.size:
        return (<uint64_t> packet.data[at] << 8 | packet.data[at + 1]) + 1
    return 0
