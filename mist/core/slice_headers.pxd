from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    MAX_OFFSETS = 255           # num_ref_frames_in_pic_order_cnt_cycle, H.264 clause 7.4.2.1.1

# What slice headers need of an H.264 sequence parameter set.
ctypedef struct H264Sequence:
    bint known
    bint frames_only
    bint colour_planes
    bint delta_always_zero
    int log2_frame_number
    int order_type
    int log2_order
    int offset_for_non_ref
    int offset_for_bottom
    int cycle
    int[MAX_OFFSETS] offsets
    int reorder                 # -1: not said
    int64_t rate                # pictures in rate_period seconds; 0: not said
    int64_t rate_period

ctypedef struct H264Picture:
    bint known
    int sequence
    bint order_in_frame

# The start of a slice header, H.264 clause 7.3.3.
ctypedef struct H264Slice:
    int first_macroblock
    int type
    int picture_set
    int frame_number
    bint field
    bint bottom
    bint idr
    int reference               # nal_ref_idc
    int idr_number
    int order_lsb
    int delta_bottom
    int[2] delta

# What an order count depends on besides the slice, H.264 clause 8.2.1.
ctypedef struct H264Order:
    int high
    int lsb
    int frame_number
    int64_t frame_number_offset

ctypedef struct HevcSequence:
    bint known
    bint colour_planes
    int log2_order
    int reorder
    int64_t rate
    int64_t rate_period

ctypedef struct HevcPicture:
    bint known
    int sequence
    bint dependent_slices
    bint output_flag
    int extra_bits

ctypedef struct HevcSlice:
    bint first
    int picture_set
    int order_lsb

# Return 1 with *slice filled, 0 for a slice that is broken or whose parameter sets are not there.
cdef int read_h264_slice(
    const uint8_t* unit, size_t size, const H264Sequence* sequences, const H264Picture* pictures, H264Slice* slice
) noexcept
cdef int read_hevc_slice(
    const uint8_t* unit, size_t size, const HevcSequence* sequences, const HevcPicture* pictures, HevcSlice* slice
) noexcept
# Tell whether two slices are of different pictures.
cdef bint h264_differs(const H264Slice* a, const H264Slice* b, const H264Sequence* sequence) noexcept
cdef int64_t h264_order(const H264Slice* slice, const H264Sequence* sequence, H264Order* order) noexcept
# Tell whether an SEI NAL unit has a recovery point message.
cdef bint has_recovery_point(const uint8_t* unit, size_t size) noexcept
