from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer

cdef enum:
    PAGE_HEADER_BYTES = 27      # before the lacing table
    MAX_SEGMENTS = 255
    MAX_PAGE_BYTES = 65307
    CONTINUED = 1               # header_type: the page begins inside a packet
    FIRST_PAGE = 2
    LAST_PAGE = 4
    MAX_MODES = 64              # of Vorbis

# How long a packet lasts.
cdef enum:
    OPUS_RULE = 0
    VORBIS_RULE = 1
    FRAME_RULE = 2              # one frame, one tick: Theora
    FLAC_RULE = 3
    FIXED_RULE = 4              # each the same: Speex

cdef int64_t NO_GRANULE
cdef int64_t MAX_TICKS          # granule positions beyond are taken for broken
cdef int64_t LONG_AGO_US

# How a logical stream counts time. Ticks are rate_numerator / rate_denominator a second and begin at presentation time 0.
ctypedef struct Clock:
    int rule
    int64_t rate_numerator
    int64_t rate_denominator
    int64_t packet_ticks        # FIXED_RULE
    int64_t pre_skip            # Opus: granule positions are this much ahead of the ticks
    int granule_shift           # Theora: low bits that count frames since the key frame
    int first_frame             # Theora: granule position of frame 0, 0 or 1
    uint32_t blocks[2]          # Vorbis: short and long, samples
    int mode_bits               # Vorbis: of the mode number in a packet
    uint8_t long_modes[MAX_MODES]
    uint32_t previous_block     # Vorbis: of the last packet

cdef int load_clock(Clock* clock, object timing) except -1
# Ticks that a packet lasts, -1 if it is no packet of media.
cdef int64_t packet_ticks(Clock* clock, const uint8_t* data, size_t size) noexcept nogil
cdef int64_t to_us(const Clock* clock, int64_t ticks) noexcept nogil
cdef int64_t to_ticks(const Clock* clock, int64_t us) noexcept nogil
# Ticks at which a page with this granule position ends; NO_GRANULE if it does not say.
cdef int64_t granule_end(const Clock* clock, int64_t granule) noexcept nogil
cdef uint32_t page_checksum(const uint8_t* page, size_t size) noexcept nogil
# Write a page's checksum.
cdef void seal_page(uint8_t* page, size_t size) noexcept
cdef int write_page(ByteBuffer out, uint8_t flags, int64_t granule, uint32_t serial, uint32_t number, const uint8_t* lacing,
                    int segments, const uint8_t* body, size_t size) except -1
