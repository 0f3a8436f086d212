from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.packet cimport PacketView
from mist.core.shm cimport Segment
from mist.core.track_buffer cimport KeyRecord, PacketRecord, Table, TrackHeader

cdef class TrackWriter:
    cdef readonly int index
    cdef readonly bint video
    cdef Table table
    cdef Segment segment
    cdef Segment page
    cdef Segment account          # memory account of the whole instance, or None
    cdef TrackHeader* header
    cdef PacketRecord* records
    cdef KeyRecord* keys_ring
    cdef uint32_t page_used
    cdef TrackWriter anchor       # the video track that audio keys wait for, or None
    cdef list companions          # of a picture the sounds, of a sound the pictures
    cdef int64_t jitter_start_media
    cdef int64_t jitter_start_clock
    cdef int64_t jitter_peak
    cdef int map_rings(self) except -1
    cdef int grow(self, uint32_t records, uint32_t keys, uint32_t init) except -1
    cdef int write_view(self, const PacketView* packet, int64_t clock_us) except -1
    cdef bint lacks_keys(self, int64_t dts_us) noexcept
    cdef int place(self, const PacketView* packet, bint keyframe) except -1
    cdef uint64_t flip_bytes(self) noexcept
    cdef int open_page(self, size_t size) except -1
    cdef int close_page(self) except -1
    cdef int reserve(self, size_t upto) except -1
    cdef int claim_memory(self, size_t count) except -1
    cdef int add_key(self, const PacketView* packet, uint64_t sequence, uint64_t arrival) except -1
    cdef int begin_fragment(self, int64_t dts_us) noexcept
    cdef bint was_silent(self) noexcept
    cdef int end_silence(self, int64_t now_us) except -1
    cdef int begin_silent_fragment(self, int64_t dts_us) except -1
    cdef int put_silent_key(self, int64_t dts_us, uint32_t fragment, uint32_t breaks) except -1
    cdef uint32_t newest_breaks(self) noexcept
    cdef uint32_t count_breaks(self, bint new_sound) noexcept
    cdef bint has_new_sound(self, int64_t dts_us) except -1
    cdef uint32_t init_changes_before(self, int64_t dts_us) noexcept
    cdef int64_t begins_after(self, uint64_t sequence) noexcept
    cdef int break_pictures(self) except -1
    cdef int break_behind(self, int64_t dts_us) noexcept
    cdef KeyRecord* oldest_key(self) noexcept
    cdef int trim_window(self) except -1
    cdef int drop_oldest_key(self) except -1
    cdef int drop_pages(self) except -1
    cdef int put_marks(self, uint32_t flags, uint32_t breaks) noexcept
    cdef uint32_t due_breaks(self) noexcept
    cdef int repair(self) except -1
    cdef int repair_rings(self) noexcept
    cdef int repair_counts(self) noexcept
    cdef int reopen_page(self) except -1
    cdef void measure(self, const PacketView* packet, int64_t clock_us) noexcept
