from libc.stdint cimport uint8_t, uint32_t

cdef enum:              # what a frame function returns
    FRAME_BROKEN = -1   # no frame begins here
    FRAME_MORE = 0      # the header is not all there
    FRAME_FOUND = 1

# One frame of an audio stream that has no container. The frame may end later than the bytes that were looked at.
ctypedef struct AudioFrame:
    size_t head_bytes       # in front of the payload and not part of it
    size_t frame_bytes      # with them
    uint32_t samples        # of each channel
    uint32_t rate_hz
    uint32_t channels       # 0 unknown
    uint32_t setup          # another number where the decoder's set-up may be another
    bint joins              # part of the frame before it: a dependent substream or an extension

ctypedef int (*FrameFunction)(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil

cdef int adts_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int mpeg_audio_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int ac3_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int dts_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int opus_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int loas_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef int sized_frame(const uint8_t* data, size_t size, AudioFrame* frame) noexcept nogil
cdef uint32_t opus_samples(const uint8_t* data, size_t size) noexcept nogil
