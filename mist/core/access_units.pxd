from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.audio_headers cimport FrameHead, HeadReader
from mist.core.buffer cimport ByteBuffer
from mist.core.latm cimport LatmReader

cdef enum:
    MAX_MARKS = 16
    SPARE_BYTES = 8 << 20       # a buffer that grew beyond this is given back when it is empty

    # What `next` is told of the bytes it has.
    OPEN = 0            # more of the same unit may follow
    CLOSED = 1          # what follows, if anything, begins a new unit
    FINAL = 2           # nothing follows

# Where a PES packet's bytes begin in what a reader holds. pts, dts: 33 bits as they came.
ctypedef struct Mark:
    size_t place
    bint stamped
    bint used
    int64_t pts
    int64_t dts
    int64_t position

# One access unit, valid until the reader is called again. mark: of the PES packet in which it begins; stamped only for the first there.
# whole: with its headers. setup: it carries parameter sets, or its header tells another set-up than the one before.
ctypedef struct Unit:
    const uint8_t* data
    size_t size
    const uint8_t* whole
    size_t whole_size
    Mark mark
    bint keyframe
    bint setup
    uint32_t samples
    uint32_t rate_hz
    bint ordered            # `lead` is known
    int lead                # places that a picture is presented later than decoded, less what is the same for all

cdef class UnitReader:
    cdef readonly ByteBuffer raw
    cdef Mark[MAX_MARKS] marks
    cdef int mark_count
    cdef size_t at                  # of raw: done with
    cdef int add_mark(self, const Mark* mark) except -1
    cdef int append(self, const uint8_t* data, size_t size) except -1
    cdef int take_mark(self, size_t place, Mark* mark) noexcept
    cdef void reset(self) noexcept
    cdef size_t held(self) noexcept
    cdef int shrink(self) except -1
    cdef bint begins(self, const uint8_t* data, size_t size) noexcept
    cdef bint next(self, int state, Unit* unit) except -1

cdef class WholeReader(UnitReader):
    cdef bint cells                 # units may stand in metadata access unit cells

cdef class Av1Reader(UnitReader):
    cdef ByteBuffer plain           # a temporal unit without start codes
    cdef ByteBuffer unit
    cdef bint key
    cdef bint has_frame
    cdef bint has_sequence_header
    cdef int convert(self, const uint8_t* data, size_t size) except -1
    cdef size_t obu(self, const uint8_t* data, size_t size) except? 0

cdef class AudioReader(UnitReader):
    cdef HeadReader read
    cdef bint synchronised
    cdef bint joining               # packets may be of several frames: substreams, extensions
    cdef bint fragile               # no second header proves the first
    cdef uint32_t key
    cdef int head_at(self, size_t place, FrameHead* head, int state) noexcept
    cdef bint find(self, int state, Unit* unit) except -1

cdef class LatmStreamReader(AudioReader):
    cdef LatmReader latm
