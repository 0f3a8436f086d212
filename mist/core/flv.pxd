from libc.stdint cimport int64_t, uint8_t, uint32_t

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport PacketView

cdef enum:
    AUDIO_TAG = 8
    VIDEO_TAG = 9
    SCRIPT_TAG = 18
    MAX_PLANS = 64              # tracks that one muxer writes
    MAX_BODY_HEAD_BYTES = 16    # of a coded frame: type byte, multitrack byte, FourCC, track id, composition time


# How one track is written: made once for each track, read for each packet.
ctypedef struct TagPlan:
    uint8_t tag_type    # AUDIO_TAG, VIDEO_TAG or SCRIPT_TAG
    uint8_t form        # one of the _FORM values in flv.pyx
    uint8_t first       # legacy: codec bits of the first byte
    bint has_offset     # the enhanced form carries a composition time
    int track_id        # of multitrack bodies; -1 for the only or first track of its type
    uint32_t fourcc


cdef class TagMuxer(Muxer):
    cdef TagPlan* plans
    cdef uint8_t* pending       # 1: the track's set-up goes out before its next packet
    cdef int count
    cdef bint enhanced
    cdef int64_t duration_us    # of a whole file, for onMetaData; 0: not known
    cdef list tracks
    cdef list inits             # body of each track's sequence header, b"" if it has none
    cdef int _plan_all(self, list tracks) except -1
    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1
    cdef int put_bytes(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, bytes body) except -1
    cdef int put_metadata(self, ByteBuffer out, bytes body) except -1
    cdef int put_setup(self, ByteBuffer out, uint32_t time_ms) except -1


cdef inline int64_t to_ms(int64_t time_us) noexcept nogil:
    # Rounded to the nearest millisecond, halves up, for negative times too.
    time_us += 500
    return time_us // 1000 if time_us >= 0 else -((999 - time_us) // 1000)
