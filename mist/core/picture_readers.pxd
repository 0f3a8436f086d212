from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mist.core.access_units cimport Mark, Unit, UnitReader
from mist.core.buffer cimport ByteBuffer
from mist.core.nal cimport NalUnit

# What the start of a slice header of H.264 says (clause 7.3.3).
ctypedef struct SliceHead:
    uint32_t frame_number
    bint field
    bint bottom
    int order               # pic_order_cnt_lsb, -1 not there

cdef class NalReader(UnitReader):
    cdef bint hevc
    cdef ByteBuffer unit            # the access unit that is being collected, with lengths
    cdef bint fresh                 # nothing was read yet, or something is missing
    cdef bint opened                # it has begun: `mark` is its
    cdef bint taken                 # it was given out
    cdef Mark mark
    cdef bint inside                # a NAL unit begins at `at`
    cdef size_t scanned             # bytes from `at` on that hold no further start code
    cdef bint has_picture
    cdef uint64_t types
    # Field pictures of H.264.
    cdef object slice_coding        # told each new SPS of H.264, returns the next four
    cdef bytes sps
    cdef bint interlaced            # there may be field pictures
    cdef int frame_number_bits
    cdef bint separate_planes
    cdef int order_bits             # of pic_order_cnt_lsb; 0 where the order is told in another way
    # The order of presentation, of H.264 with picture order count type 0.
    cdef int order                  # of the picture at hand
    cdef int order_step             # from one frame to the next
    cdef int decoded                # pictures since the last IDR picture
    cdef bint ordered
    cdef bint anchored              # `decoded` counts from an IDR picture
    cdef bint comparable            # this picture's order can be compared with that of the one before
    cdef bint lone_field            # the unit's only picture is a field that waits for its other one
    cdef bint field_bottom
    cdef uint32_t field_number
    cdef size_t split               # of unit: where the next one begins if what follows is not the other field; 0 none
    cdef Mark split_mark
    cdef int look_at_sps(self, const NalUnit* nal) except -1
    cdef int kind_of(self, const NalUnit* nal) noexcept
    cdef bint starts(self, int kind, const NalUnit* nal) noexcept
    cdef bint is_picture(self, int kind) noexcept
    cdef bint add(self, size_t code, const NalUnit* nal) except -1
    cdef int read_slice(self, int kind, const NalUnit* nal, SliceHead* head) noexcept
    cdef int note_order(self, int kind, const SliceHead* head) noexcept
    cdef bint add_to_field(self, int kind, size_t code, const NalUnit* nal) except -1
    cdef int collect(self, int kind, size_t code, const NalUnit* nal) except -1
    cdef int drop_taken(self) except -1
    cdef bint give(self, Unit* unit) except -1

cdef class Mpeg2Reader(UnitReader):
    cdef size_t scanned             # bytes from `at` on whose start codes were looked at
    cdef bint begun                 # an access unit begins at `at`
    cdef bint has_slices
    cdef int pictures
    cdef int temporal_reference
    cdef int decoded                # pictures since the last group header
    cdef bint lone_field
    cdef bint intra
    cdef bint has_sequence
    cdef bint has_group
    cdef Mark mark
    cdef int look(self, int kind, const uint8_t* data) noexcept
    cdef bint give(self, size_t end, Unit* unit) noexcept
    cdef void forget(self) noexcept

cdef bint h264_random_access(const uint8_t* data, size_t size, uint64_t types) noexcept
