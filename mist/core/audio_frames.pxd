from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.audio_headers cimport FrameHead, HeadReader
from mist.core.byte_stream cimport ByteStreamDemuxer

cdef class AudioFrameDemuxer(ByteStreamDemuxer):
    cdef str format
    cdef HeadReader read
    cdef bint joins             # packets may be of several frames
    cdef bint mpeg
    cdef bint locked            # the last frame was followed by another one of its kind
    cdef bint hunting           # the next byte is not where a frame ended
    cdef bint trusted           # reading began where a frame is known to be
    cdef bint clean             # no bytes but tags were passed over
    cdef uint32_t key
    cdef uint32_t rate_hz
    cdef int64_t base_us        # time where the sample rate last changed
    cdef int64_t samples        # since then
    cdef int64_t info_position  # of the frame that tells about the file; -1 without
    cdef int64_t garbage
    # Say which frames these are, by a key of FORMATS.
    cdef int set_form(self, str format) except -1
    cdef int accept(self, const uint8_t* data, size_t size, bint over, FrameHead* head, size_t* end) except -2
    cdef bint follows(self, const uint8_t* data, size_t size, bint over, const FrameHead* head) noexcept
    cdef size_t find(self, const uint8_t* data, size_t begin, size_t size) noexcept
    cdef int write_frame(self, const uint8_t* data, size_t size, const FrameHead* head, int64_t position) except -1
    cdef int write_blocks(self, const uint8_t* data, size_t size, const FrameHead* head, uint32_t flags) except -1
    cdef int write_payload(self, const uint8_t* data, size_t size, uint32_t samples, uint32_t flags) except -1
    cdef int64_t now_us(self) noexcept
