from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.muxer cimport Muxer

cdef enum:
    TRACK_LIMIT = 64            # as many as a stream has slots

cdef struct PacketFields:
    uint64_t time_ms
    uint64_t track
    int64_t offset_ms
    int64_t time_rest_us        # what is missing to the exact decode time
    int64_t shown_rest_us       # ... and to the exact presentation time
    int64_t trim_us             # of the frame's end that is not to be heard
    bint keyframe
    bint has_shown_rest
    const uint8_t* data         # NULL: none
    size_t size

cdef class DtscReader(Demuxer):
    cdef public object unix_zero_ms     # unix time in milliseconds at media time 0 by the last header, or None
    cdef public object on_header        # called after each header, with its members
    cdef public object on_command       # called with the members of each command
    cdef readonly bint live             # what the last header says the stream is
    cdef readonly bint vod
    cdef ByteBuffer rest                # of a packet that has begun
    cdef int64_t next_byte              # position in the input of the byte that is fed next
    cdef int64_t packet_at              # ... of the packet in hand
    cdef int64_t resume_at              # where packets go on after headers elsewhere; negative: not looking for headers
    cdef int headers_followed
    cdef dict last_header
    cdef size_t max_packet_bytes
    cdef size_t max_header_bytes
    cdef bint seekable
    cdef bint jumped                    # the bytes in hand are not the ones wanted any more
    cdef bint by_place                  # packets name tracks by their place in the header
    cdef bint replace                   # the next header forgets the tracks before it
    cdef int count
    cdef uint64_t ids[TRACK_LIMIT]      # track ids on the wire
    cdef uint8_t known[TRACK_LIMIT]     # the last header has the track
    cdef uint8_t video[TRACK_LIMIT]
    cdef uint8_t changed[TRACK_LIMIT]
    cdef int places[TRACK_LIMIT]        # track number of each place in the header
    cdef int place_count
    cdef int take(self, const uint8_t* data, size_t size) except -1
    cdef size_t packet_size(self, const uint8_t* head) except 0
    cdef int packet(self, const uint8_t* data, size_t size) except -1
    cdef int media(self, const uint8_t* data, size_t size, bint old) except -1
    cdef int track_number(self, uint64_t wire) except -1
    cdef int stop_following(self) except -1

cdef class DtscMuxer(Muxer):
    cdef readonly list tracks
    cdef object unix_zero
    cdef bint live
    cdef bint exact
    cdef uint8_t video[TRACK_LIMIT]
