from libc.stdint cimport int64_t, uint8_t, uint32_t

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

    AVC_CODEC_ID = 7
    DOMESTIC_HEVC_CODEC_ID = 12     # never standardised; phone encoders of the years before E-RTMP send it

# A body that is one coded frame of one track, borrowed. codec: FourCC, or below 256 CodecID or SoundFormat.
ctypedef struct CodedFrame:
    uint32_t codec
    bint keyframe
    int64_t offset_us
    const uint8_t* data
    size_t size

# How the payload of a codec number is framed.
cdef enum:
    WHOLE_FRAME = 0
    H264_UNITS = 1
    HEVC_UNITS = 2
    AV1_UNITS = 3

# Tell whether a body is one coded frame of the track that needs no number, and fill frame; False for all that is rarer or broken.
cdef bint coded_frame(const uint8_t* data, size_t size, bint video, CodedFrame* frame) noexcept nogil
cdef int framing_of(uint32_t codec) noexcept nogil


cdef inline uint32_t u24(const uint8_t* data) noexcept nogil:
    return (<uint32_t> data[0] << 16) | (<uint32_t> data[1] << 8) | data[2]


cdef inline uint32_t u32(const uint8_t* data) noexcept nogil:
    return (<uint32_t> data[0] << 24) | u24(data + 1)
