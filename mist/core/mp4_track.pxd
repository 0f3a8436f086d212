from libc.stdint cimport int64_t, uint32_t

from mist.core.mp4_fragments cimport FragmentSample
from mist.core.mp4_payloads cimport Form
from mist.core.mp4_tables cimport Cursor, Sample, SampleTable
from mist.core.packet cimport PacketView

cdef enum:
    MAX_DESCRIPTIONS = 64           # sample entries of one track
    MAX_EDITS = 1024

# A part of the media that is presented, and where on the movie's clock.
ctypedef struct Span:
    uint32_t first                  # sample
    uint32_t end
    int64_t shift_ticks
    int64_t end_ticks               # of the media that is presented

# The packet that comes next.
ctypedef struct Head:
    int64_t position                # byte in the file
    int64_t resume                  # where to read on for it after a seek
    int64_t dts_us
    int64_t offset_us
    size_t size
    uint32_t number                 # sample number from 0; not counted in fragments
    uint32_t description
    bint key
    int64_t rest_ticks              # of the last packet: until where it is presented; 0 for others

cdef class TrackReader:
    cdef readonly object source     # what the movie says of the track
    cdef readonly SampleTable table
    cdef bint video
    cdef bint opus                  # its packets tell how long they are
    cdef bint sparse                # subtitles
    cdef bint pending               # its first packet has something to say of it
    cdef bint altered               # packets of it differ in size from their samples
    cdef bint silent                # nobody waits for its next packet
    cdef bint has_head
    cdef bint over                  # nothing comes any more
    cdef Head head
    cdef uint32_t announced         # sample entry that the receiver knows
    cdef int64_t timescale
    cdef int64_t late_ticks         # by which decode times are earlier than the file says, for negative composition offsets
    cdef int64_t last_us
    cdef Form[MAX_DESCRIPTIONS] forms
    cdef uint32_t form_count
    cdef Span* spans
    cdef int span_count
    cdef int span
    cdef Cursor cursor
    cdef int64_t fragment_shift_ticks
    cdef int64_t edit_ticks         # of the media in one of the movie
    cdef int64_t usual_ticks        # that the packet of a fragment before lasted
    cdef int64_t frame_ticks        # that a frame lasts, where those at the end may be cut; 0 where it says that itself
    cdef int rewind(self) except -1
    cdef int load(self) except -1
    cdef int load_fragment(self, const FragmentSample* sample, int64_t negative_ticks) except -1
    cdef bint may_end(self) noexcept
    cdef int64_t trim_us(self, const PacketView* view) except -1
    cdef int go_to_us(self, int64_t dts_us, bint key) except -1
    cdef int make_span(self, int64_t media_time, int64_t end_time, int64_t shift) except -1
    cdef int64_t us_of(self, int64_t ticks) except? -1
    cdef uint32_t first_for(self, int64_t media_time) except? 0xFFFFFFFF
    cdef bint is_carried(self, uint32_t description, size_t size) noexcept
    cdef int set_head(self, int64_t dts_ticks, int64_t offset_ticks, int64_t shift) except -1
