from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from mist.core.buffer cimport ByteBuffer

cdef enum:
    MAX_MODES = 64      # of a Vorbis stream

    # How a frame in a block differs from the project's form
    AS_IS = 0
    NAL_LENGTHS = 1     # NAL units with lengths of `unit_bytes`
    ANNEXB = 2          # NAL units with start codes
    OBUS = 3            # AV1: the last unit may lack its size, delimiters may be there
    SWAPPED = 4         # samples of `unit_bytes`, the other way round
    ASS = 5             # a line of Advanced SubStation Alpha
    WEBVTT = 6          # a WebVTT cue with its identifier and settings on lines of their own

    # What tells how long a frame lasts
    UNTOLD = 0
    FIXED = 1           # `rule_value` samples
    SAMPLE_BYTES = 2    # `rule_value` bytes a sample
    OPUS = 3
    MPEG_AUDIO = 4
    EAC3 = 5
    FLAC = 6
    DTS = 7
    VORBIS = 8


# One track as its frames are read.
ctypedef struct TrackPlan:
    uint64_t number             # in the file
    int index                   # in the demuxer's tracks
    bint video
    bint audio
    int form
    int unit_bytes
    int rule
    int64_t rule_value
    int64_t rate_hz
    int64_t default_ns          # how long a frame lasts, if the file says so
    int64_t delay_ns            # taken off every time
    int64_t grid_samples        # in each frame, where block times are rounded and frames follow each other from zero; 0 not so
    int64_t clear_us            # of a text: when it goes away
    int64_t clear_position
    bint clears                 # clear_us is told
    const uint8_t* stripped     # what every frame begins with and the file leaves out
    size_t stripped_size
    bint inflate                # frames are compressed by zlib
    bint probe                  # the first packet tells what the track is
    int refresh                 # when a keyframe may change the track: NEVER, IN_PARAMETER_SETS, AT_KEYFRAMES
    uint64_t set_types          # NAL unit types of parameter sets, as bits
    bint hevc
    bint fresh                  # the track changed: the next packet says so
    bint broken                 # the time line began anew: the next packet says so
    int64_t last_us
    bint has_last
    bint sought                 # a keyframe of it was, whose decode time is known
    uint16_t[64] blocks         # of Vorbis: block size of each mode
    int modes
    int previous_block


# Append a frame in the project's form; nothing where it is broken.
cdef int put_frame(const TrackPlan* plan, const uint8_t* data, size_t size, ByteBuffer out) except -1

# Whether a frame is in the project's form as it stands.
cdef bint is_formed(const TrackPlan* plan, const uint8_t* data, size_t size) noexcept

# How long a frame lasts, in nanoseconds; 0 where nothing tells.
cdef int64_t frame_ns(TrackPlan* plan, const uint8_t* data, size_t size) noexcept

# The time of a frame as samples count it, where that is what its block's rounded time means.
cdef int64_t exact_ns(const TrackPlan* plan, int64_t time_ns, int64_t scale_ns) noexcept

# What zlib made this of; b"" where it is broken, or more than limit bytes.
cdef bytes inflate(const uint8_t* data, size_t size, size_t limit)
