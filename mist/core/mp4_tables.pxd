from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_SAMPLES = 1 << 25           # of one track: 155 hours of 60 pictures a second
    FRAMES_PER_PACKET = 1024        # of uncompressed audio that is stored frame by frame

# One sample, or a run of audio frames that makes one packet.
ctypedef struct Sample:
    int64_t position                # byte in the file
    int64_t dts_ticks               # media time
    int64_t offset_ticks            # composition time minus decode time
    uint32_t size
    uint32_t number                 # of the first sample, from 0
    uint32_t count                  # samples in it
    uint32_t description            # sample entry, from 0
    bint key

# A place between two samples of one table.
ctypedef struct Cursor:
    int64_t dts_ticks
    int64_t position
    uint32_t sample                 # the next one, from 0
    uint32_t stts_entry
    uint32_t stts_left
    uint32_t delta
    uint32_t ctts_entry
    uint32_t ctts_left
    uint32_t chunk                  # the next one, from 0
    uint32_t chunk_left             # samples left of the chunk before
    uint32_t stsc_entry
    uint32_t sync_entry

# What lies before a row of a table: samples, and in stts their ticks.
ctypedef struct RowMark:
    uint64_t samples
    int64_t ticks

# A table of fixed rows inside the moov box.
ctypedef struct Rows:
    const uint8_t* data
    uint32_t count

cdef class SampleTable:
    cdef bytes moov                 # keeps what the rows point at
    cdef Rows stts
    cdef Rows ctts
    cdef Rows stsc
    cdef Rows sizes
    cdef Rows chunks
    cdef Rows sync
    cdef int size_bits              # of a row of sizes, 0 where all are equal
    cdef bint wide_chunks
    cdef bint has_sync
    cdef uint32_t equal_size
    cdef uint32_t frame_bytes       # of uncompressed audio stored frame by frame, else 0
    cdef readonly uint32_t count    # samples
    cdef readonly int64_t negative_ticks    # how far composition goes before decoding
    cdef int64_t base               # of moov in the file
    cdef RowMark* stts_marks        # one every ROW_STRIDE rows, NULL until somebody seeks; the same of the others
    cdef RowMark* ctts_marks
    cdef RowMark* stsc_marks
    cdef int64_t* bytes_before      # every SIZE_STRIDE samples
    cdef int rows(self, Rows* found, dict tables, str name, int64_t base) except -1
    cdef int read_sizes(self, dict tables, int64_t base) except -1
    cdef int check_chunks(self, dict tables, int64_t base) except -1
    cdef int64_t most_negative(self) noexcept
    cdef bint enter_chunk(self, Cursor* cursor) noexcept nogil
    cdef uint32_t small_size(self, uint32_t number) noexcept nogil
    cdef int64_t step_composition(self, Cursor* cursor) noexcept nogil
    cdef bint step_sync(self, Cursor* cursor) noexcept nogil
    cdef uint64_t chunks_of(self, uint32_t entry) noexcept nogil
    cdef uint64_t chunk_of(self, uint32_t entry) noexcept nogil
    cdef uint64_t row_samples(self, const Rows* rows, uint32_t entry) noexcept nogil
    cdef int64_t row_ticks(self, const Rows* rows, uint32_t entry, int64_t before) noexcept nogil
    cdef uint32_t delta_of(self, uint32_t entry) noexcept nogil
    cdef int mark(self, const Rows* rows, RowMark** marks) except -1
    cdef uint32_t find_row(self, const Rows* rows, const RowMark* marks, uint64_t samples, int64_t ticks, RowMark* before) noexcept nogil
    cdef int64_t bytes_between(self, uint32_t begin, uint32_t end) except -1
    cdef int64_t sum_sizes(self, uint32_t begin, uint32_t end) noexcept nogil
    cdef int mark_sizes(self) except -1
    cdef int time_sample(self, Cursor* cursor) except -1
    cdef uint32_t syncs_before(self, uint32_t number) noexcept nogil
    cdef void rewind(self, Cursor* cursor) noexcept nogil
    cdef int next(self, Cursor* cursor, Sample* sample) noexcept nogil
    cdef int go_to_sample(self, Cursor* cursor, uint32_t number) except -1
    cdef int go_to_time(self, Cursor* cursor, int64_t ticks) except -1
    cdef uint32_t key_before(self, uint32_t number) noexcept nogil
    cdef object broken(self)

cdef inline uint32_t be32(const uint8_t* at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]

cdef inline int64_t be64(const uint8_t* at) noexcept nogil:
    return <int64_t> be32(at) << 32 | <int64_t> be32(at + 4)
