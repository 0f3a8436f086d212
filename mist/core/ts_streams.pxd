from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.access_units cimport Mark, Unit, UnitReader
from mist.core.buffer cimport ByteBuffer
from mist.core.decode_times cimport DecodeTimes
from mist.core.timeline cimport Timeline
from mist.core.ts_sections cimport SectionReader

cdef enum:
    # What a PID carries.
    PROGRAMS = 0            # the PAT
    PROGRAM = 1             # PMTs
    MEDIA = 2               # PES packets
    SECTIONS = 3
    UNTOLD = 4              # PES packets of which the tables do not say what is in them

    # What a PES header says of itself.
    HEADER_MORE = 0
    HEADER_GOOD = 1
    HEADER_USELESS = -1     # not a PES packet, scrambled, or of a kind without media

    FULL_PES_BYTES = 65000  # one of about this length may be continued in the next, whatever it says
    SAMPLED = 24            # bytes of a payload by which one is known again

# One PES header. size: of the header; body_bytes: that follow it, -1 untold.
ctypedef struct PesHeader:
    size_t size
    int64_t body_bytes
    bint aligned            # the payload begins with an access unit, and so does the next one's
    bint stamped
    int64_t pts
    int64_t dts

cdef int read_pes_header(const uint8_t* data, size_t size, PesHeader* header) noexcept nogil

cdef class ProgramClock:
    cdef readonly Timeline timeline
    cdef int64_t ticks              # the newest decode time, unwrapped
    cdef bint has_ticks
    cdef bint begun                 # a packet was placed
    cdef int64_t unwrap(self, int64_t ticks) noexcept
    cdef int resume(self, int64_t dts_us) except -1

cdef class TsStream:
    cdef readonly int pid
    cdef readonly int role
    cdef readonly int number                # place among all streams that ever were, for the timeline
    cdef readonly object description
    cdef readonly object info               # TrackInfo, None until it is known
    cdef readonly int track                 # -1 until it is known
    cdef readonly tuple order               # where its track belongs among the others
    cdef bint video
    cdef bint sparse                        # metadata: it may be silent for hours, or have no time stamps
    cdef UnitReader reader
    cdef SectionReader sections
    cdef ProgramClock clock
    cdef int counter                        # continuity counter of the last packet, -1 unknown
    cdef uint8_t[SAMPLED] sample            # what its payload began with
    cdef size_t sampled
    cdef bint stuffed                       # it was filled up, as the last one of a PES packet is
    cdef int64_t breaks                     # of the tables, when it came
    # The PES packet under way.
    cdef bint listening
    cdef bint in_header
    cdef ByteBuffer head                    # a header that did not fit one packet
    cdef int64_t left                       # of its body; -1 untold
    cdef bint prompt                        # its last unit is complete when it is
    cdef bint aligned                       # every PES packet so far began with an access unit
    cdef int64_t position
    # Times, in the input's own time base.
    cdef bint has_time
    cdef int64_t dts_us
    cdef int64_t offset_us
    cdef int64_t step_us                    # from one picture to the next
    cdef int64_t stamp_us                   # the last time stamp
    cdef int units                          # access units since then, with the one that had it
    cdef int lead                           # of the last unit
    # Where the input says only when pictures are shown.
    cdef bint asked                         # whether it does was looked at
    cdef bint told                          # it says when they are decoded
    cdef DecodeTimes times                  # None where it does, or nothing is reordered
    cdef list waiting                       # (packet, flags, position) whose decode times are not known yet
    cdef size_t waiting_bytes
    cdef bint has_anchor
    cdef int64_t anchor_us
    cdef int64_t samples                    # since the anchor
    cdef int64_t frame_samples              # of which every frame has a multiple; 0: all have as many
    cdef uint32_t rate_hz
    cdef bint anchored                      # the last unit was given another anchor

    cdef void reset(self) noexcept
    cdef bint continues(self, int counter, bint broken) noexcept
    cdef bint repeats(self, int counter, const uint8_t* data, size_t size) noexcept
    cdef int set_rate(self, int rate_mhz) except -1
    cdef bint time_unit(self, const Unit* unit, int64_t* dts_us, int64_t* offset_us) noexcept
    cdef int64_t sample_time(self, const Unit* unit, bint stamped, int64_t stamp_us) noexcept
    cdef void count_from(self, const Unit* unit, int64_t anchor_us, uint32_t rate_hz) noexcept
