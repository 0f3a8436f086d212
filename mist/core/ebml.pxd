from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MORE = 0            # what reading returns where the data ends too early
    BROKEN = -1         # … and where no element can begin

    # RFC 8794 section 11.2 and RFC 9559 section 5.1
    EBML_HEADER = 0x1A45DFA3
    VOID = 0xEC
    SEGMENT = 0x18538067
    INFO = 0x1549A966
    TRACKS = 0x1654AE6B
    CUES = 0x1C53BB6B
    CLUSTER = 0x1F43B675
    ATTACHMENTS = 0x1941A469
    CHAPTERS = 0x1043A770
    TAGS = 0x1254C367
    TIMESTAMP = 0xE7
    SIMPLE_BLOCK = 0xA3
    BLOCK_GROUP = 0xA0
    BLOCK = 0xA1
    BLOCK_DURATION = 0x9B
    DISCARD_PADDING = 0x75A2
    REFERENCE_BLOCK = 0xFB


cdef inline bint is_unknown(uint64_t size) noexcept nogil:
    # Whether an element's size is the one that means "not known": all bits set, whatever its width.
    return size == ~(<uint64_t> 0)


# Read an element ID of 1 to 4 bytes, with its length marker. Returns its length, MORE or BROKEN.
cdef int read_id(const uint8_t* data, size_t size, uint32_t* value) noexcept nogil

# Read a variable-length integer of 1 to 8 bytes; all bits set becomes the unknown size. Returns its length, MORE or BROKEN.
cdef int read_size(const uint8_t* data, size_t size, uint64_t* value) noexcept nogil

# Read ID and size of an element. Returns the length of both, MORE or BROKEN.
cdef int read_header(const uint8_t* data, size_t size, uint32_t* element, uint64_t* body) noexcept nogil

# Read an unsigned integer element of at most 8 bytes.
cdef uint64_t read_unsigned(const uint8_t* data, size_t size) noexcept nogil

# Write a size in as few bytes as hold it; value under 2^56 - 1. Returns the place behind it.
cdef uint8_t* put_size(uint8_t* at, uint64_t value) noexcept nogil

# Write an ID. Returns the place behind it.
cdef uint8_t* put_id(uint8_t* at, uint32_t value) noexcept nogil
