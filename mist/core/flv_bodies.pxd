from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    # E-RTMP v2 VideoPacketType and AudioPacketType
    SEQUENCE_START = 0
    CODED_FRAMES = 1
    SEQUENCE_END = 2
    CODED_FRAMES_X = 3              # video: composition time is zero and left out
    VIDEO_METADATA = 4
    MULTICHANNEL_CONFIG = 4
    AUDIO_MULTITRACK = 5
    VIDEO_MULTITRACK = 6
    MOD_EX = 7

    # AvMultitrackType
    ONE_TRACK = 0
    MANY_TRACKS_MANY_CODECS = 2


cdef inline uint32_t u24(const uint8_t* data) noexcept:
    return (<uint32_t> data[0] << 16) | (<uint32_t> data[1] << 8) | data[2]


cdef inline uint32_t u32(const uint8_t* data) noexcept:
    return (<uint32_t> data[0] << 24) | u24(data + 1)
