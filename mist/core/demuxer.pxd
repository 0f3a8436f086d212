from libc.stdint cimport int64_t, uint8_t

from mist.core.muxer cimport Muxer
from mist.core.packet cimport Packet, PacketView

cdef class Demuxer:
    cdef public list tracks             # TrackInfo of each track, by number; grows, entries are replaced
    cdef public list left_out           # in words: tracks that are in the input and cannot be read; whole once the tracks are known
    cdef readonly list damage           # (byte, bytes, what) of what cannot be read; see Demuxer
    cdef readonly int64_t damage_count  # of it, as far as the input was read
    cdef public object on_tracks        # called when `tracks` changed, before the first packet that follows the change
    cdef readonly bint ready            # every track that was announced is known; see Demuxer
    cdef readonly bint ended            # nothing more is wanted
    cdef readonly int64_t position      # of the packet that is being written: byte in the input where reading must resume for it
    cdef readonly int64_t shift_us      # what was added to the input's time of the packet that is being written
    cdef public tuple bases             # what shift_us may be where `seek` goes, the likeliest first; empty: unknown
    cdef public dict anchors            # see Demuxer
    cdef public bint from_places        # see Demuxer
    cdef Muxer sink
    cdef list held
    cdef size_t held_bytes
    cdef int emit(self, int track, const PacketView* packet) except -1
    cdef int set_track(self, int track, object info, bint changed) except -1
    cdef int become_ready(self) except -1
    cdef int note_damage(self, int64_t position, int64_t size, str what) except -1

cdef class PacketList(Muxer):
    cdef list packets
