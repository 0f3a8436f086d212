from libc.stdint cimport uint8_t, uint32_t

from mist.core.audio_headers cimport FrameHead

# Readers of the face `mist.core.audio_headers.HeadReader`, for what stands before each packet in a transport stream.
cdef int read_opus(const uint8_t* data, size_t size, FrameHead* head) noexcept
cdef int read_loas(const uint8_t* data, size_t size, FrameHead* head) noexcept
cdef int read_sized(const uint8_t* data, size_t size, FrameHead* head) noexcept

# Return how many samples at 48 kHz an Opus packet has; 0 for a broken one.
cdef uint32_t opus_samples(const uint8_t* data, size_t size) noexcept
