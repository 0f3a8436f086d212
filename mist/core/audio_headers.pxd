from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    LOOK_BYTES = 32         # enough of a frame for every reader here; fewer only at the end of the input

cdef enum:                  # what a reader found
    NO_FRAME = 0
    FRAME = 1
    REFUSED = 2             # a frame of a kind that is not supported

# One frame. key: what all frames of a stream have in common (format, rate, channels); blocks: AAC frames in it.
ctypedef struct FrameHead:
    size_t size             # with the header
    size_t header           # bytes before the payload that are no part of the packet
    uint32_t samples        # of each channel, in the whole frame
    uint32_t rate_hz
    uint32_t key
    uint32_t blocks
    bint joined             # belongs to the packet of the frame before it

# Read the frame header at data. size: bytes there are, at least LOOK_BYTES but at the end of the input.
ctypedef int (*HeadReader)(const uint8_t* data, size_t size, FrameHead* head) noexcept

cdef int read_mpeg(const uint8_t* data, size_t size, FrameHead* head) noexcept
cdef int read_adts(const uint8_t* data, size_t size, FrameHead* head) noexcept
cdef int read_ac3(const uint8_t* data, size_t size, FrameHead* head) noexcept
cdef int read_dts(const uint8_t* data, size_t size, FrameHead* head) noexcept

# Tell whether an MPEG audio frame holds no sound but what a Xing, LAME or VBRI header says of the file.
cdef bint is_info_frame(const uint8_t* data, size_t size) noexcept

# Return the length of the ID3 or APE tag that begins at data, 0 where none does.
cdef size_t tag_bytes(const uint8_t* data, size_t size) noexcept
