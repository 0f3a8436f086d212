from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.flv_bodies cimport CodedFrame
from mist.core.packet cimport Packet, PacketView
from mist.core.timeline cimport Timeline

cdef enum:
    MAX_KNOWN = 8

# A codec number whose frames go into a track as they stand.
ctypedef struct KnownCodec:
    uint32_t codec
    bint video
    int framing
    int track

cdef class FlvDemuxer(Demuxer):
    cdef Timeline timeline
    cdef ByteBuffer rest            # an incomplete structure
    cdef int64_t at                 # input byte that comes next
    cdef size_t skip                # bytes still to be ignored: header extension
    cdef uint32_t back_bytes        # of the newest tag, which the next one should say; 0 before the first and after a jump
    cdef bint lost                  # behind a tag of a wrong size: looking for the next one
    cdef int64_t passed_bytes       # since then
    cdef int64_t lost_at            # where the tag should have been
    cdef bint begun                 # behind the file header
    cdef bint has_time
    cdef int64_t time_ms            # of the newest tag, unwrapped
    cdef uint8_t announced          # flags of the file header
    cdef uint8_t found
    cdef bint has_first
    cdef int64_t first_ms           # of the first audio or video tag
    cdef size_t media_bytes         # taken before ready
    cdef KnownCodec[MAX_KNOWN] known
    cdef int known_count
    cdef CodedFrame frame           # the body at hand, if `framed`
    cdef bint framed
    cdef bint frame_video
    cdef bint matched               # its codec is known
    cdef set changed                # tracks whose set-up changed since their last packet

    cdef size_t needed(self, const uint8_t* data, size_t have) except 0
    cdef bint is_next(self, const uint8_t* data) noexcept
    cdef int lose(self, int64_t position) except -1
    cdef size_t find_tag(self, const uint8_t* data, size_t size, int64_t position) except? 0
    cdef int note_lost(self, int64_t found) except -1
    cdef int structure(self, const uint8_t* data, size_t size, int64_t position) except -1
    cdef int file_header(self, const uint8_t* data) except -1
    cdef int tag(self, const uint8_t* data, size_t size, int64_t position) except -1
    cdef int64_t near(self, uint32_t time_ms) noexcept
    cdef int unwrap(self, uint32_t time_ms) noexcept
    cdef bint quick(self) except -1
    cdef int forget(self) except -1
    cdef int learn(self, Packet packet) except -1
    cdef int place(self, int track, PacketView* view) except -1
    cdef int check_ready(self) except -1
    cdef int finish(self) except -1
