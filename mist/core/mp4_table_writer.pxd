from libc.stdint cimport int64_t, uint32_t

from mist.core.buffer cimport ByteBuffer
from mist.core.packet cimport PacketView

cdef class TrackTables:
    cdef public list infos              # TrackInfo of each sample entry, in order
    cdef public object payload          # a packet that the sample entry is made from, or b""
    cdef readonly bint video
    cdef readonly bint text
    cdef bint varying                   # frames of a stream may be longer than usual
    cdef int64_t own_ticks              # that the last one of them lasts, 0 where only its size was told
    cdef readonly uint32_t frame_bytes  # of uncompressed audio, whose every frame is a sample
    cdef readonly int64_t timescale
    cdef readonly uint32_t samples
    cdef readonly int64_t first_ticks   # decode time of the first sample
    cdef readonly int64_t lowest_ticks  # lowest presentation time
    cdef readonly int64_t end_ticks     # highest presentation time with its duration
    cdef readonly bint negative_offsets
    cdef readonly bint late             # some sample is not presented when it is decoded
    cdef uint32_t default_ticks
    cdef uint32_t frame_ticks
    cdef int64_t last_ticks
    cdef uint32_t last_delta
    cdef int64_t trim_ticks             # of the last sample that is not to be heard
    cdef int64_t text_ticks             # of the last text; last_ticks is when it goes
    cdef bint closed
    cdef uint32_t keys
    cdef uint32_t equal_size
    cdef bint sizes_differ
    cdef ByteBuffer stts
    cdef ByteBuffer ctts
    cdef ByteBuffer stsc
    cdef ByteBuffer stss
    cdef ByteBuffer stsz
    cdef ByteBuffer chunks              # 64-bit offsets in the order of this machine
    cdef uint32_t chunk_samples
    cdef int64_t chunk_ticks            # where the open chunk begins
    cdef int64_t chunk_length_ticks
    cdef uint32_t described             # sample entry and samples of the last stsc row
    cdef uint32_t described_samples
    cdef int prepare(self, object timing) except -1
    cdef size_t stored_size(self, const PacketView* packet) noexcept
    cdef int add(self, const PacketView* packet) except -1
    cdef int add_at(self, const PacketView* packet, int64_t ticks, size_t size) except -1
    cdef int add_text(self, int64_t ticks, uint32_t size, size_t letters) except -1
    cdef int end_text(self, int64_t next_ticks) except -1
    cdef int push_offset(self, int64_t offset) except -1
    cdef int push_size(self, uint32_t size) except -1
    cdef int add_sample(self, int64_t ticks, int64_t offset, uint32_t size, bint key) except -1
    cdef int end_chunk(self, int64_t position) except -1
    cdef int64_t decode_ticks(self, int64_t dts_us) noexcept
    cdef int push_duration(self, uint32_t count, int64_t delta) except -1
    cdef int close(self) except -1

cdef class ChunkPlaces:
    cdef ByteBuffer chunks
    cdef bint wide
