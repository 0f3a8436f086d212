"""The sample tables of one track of an MP4 file, written while its packets go by: 8 bytes a sample, and one row for each run of equals.

Spec: ISO/IEC 14496-12 (2022) clauses 8.6.1, 8.6.2, 8.7.3 to 8.7.5.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mist.core.buffer cimport ByteBuffer
from mist.core.dtsc_objects cimport put_be32, put_be64
from mist.core.frame_samples cimport opus_samples
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.trim cimport trim_of

import struct

from mist.errors import LimitExceededError, UnsupportedError

cdef enum:
    MAX_SAMPLES = 0xFFFFFFF0
    MAX_SAMPLE_BYTES = 0x7FFFFF00
    LONGEST_GUESS_S = 10
    TEXT_US = 800000                # how long a subtitle is shown, and longer for each byte of it
    TEXT_US_PER_BYTE = 75000
    CHUNK_US = 500000               # packets of a track that lie together in a layout

cdef int64_t MAX_TIME_US = <int64_t> 1 << 60


cdef inline int64_t to_ticks(int64_t time_us, int64_t timescale) noexcept:
    """Return ticks, rounded once, halves up. |time_us| <= 2^60, timescale < 10^6, so nothing overflows."""
    cdef int64_t seconds = time_us // 1000000
    cdef int64_t rest = time_us - seconds * 1000000
    if rest < 0:    # C divides towards zero
        rest += 1000000
        seconds -= 1
    return seconds * timescale + (rest * timescale + 500000) // 1000000


cdef inline int put32(ByteBuffer out, uint32_t value) except -1:
    cdef uint8_t* at = out.reserve(4)
    at[0], at[1], at[2], at[3] = <uint8_t> (value >> 24), <uint8_t> (value >> 16), <uint8_t> (value >> 8), <uint8_t> value
    out.commit(4)
    return 0


cdef inline uint32_t last_row(ByteBuffer out, int back) noexcept:
    """Return a number near the end of a table, which is not empty."""
    cdef const uint8_t* at = out.data + out.size - back
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline int push_run(ByteBuffer out, uint32_t count, uint32_t value) except -1:
    """Append a value to rows of (count, value)."""
    cdef uint32_t before
    if out.size and last_row(out, 4) == value:
        before = last_row(out, 8)
        if before <= MAX_SAMPLES - count:
            out.size -= 8
            count += before
    put32(out, count)
    return put32(out, value)


@cython.final
cdef class TrackTables:
    """Collects what the tables of a track need.

    info: the track. timing: has timescale (below a million), default_ticks, frame_ticks and frame_bytes, as
    `mist.formats.mp4_file.timing` makes it.

    Decode times are rounded from the packets' microseconds, so that no error grows. Audio goes on exactly where its last packet ended if
    the difference is no more than the rounding of the source's clock: a millisecond for times of whole milliseconds, else a tick of 90 kHz.
    """

    def __cinit__(self, info, timing):
        self.infos = [info]
        self.payload = b""
        self.video = info.type == "video"
        self.text = info.codec == "subtitle"
        self.varying = info.codec == "opus"
        self.stts, self.ctts, self.stsc = ByteBuffer(), ByteBuffer(), ByteBuffer()
        self.stss, self.stsz, self.chunks = ByteBuffer(), ByteBuffer(), ByteBuffer()
        self.prepare(timing)

    cdef int prepare(self, object timing) except -1:
        self.timescale = timing.timescale
        self.default_ticks = timing.default_ticks
        self.frame_ticks = timing.frame_ticks
        self.frame_bytes = timing.frame_bytes
        self.chunk_length_ticks = self.timescale * CHUNK_US // 1000000
        return 0

    cdef size_t stored_size(self, const PacketView* packet) noexcept:
        """Return the bytes that a packet takes in the file; text has its length before it and an empty text, shown later, behind it."""
        if self.text:
            return 2 + min(packet.size, <size_t> 0xFFFF) + 2 if packet.size else 0
        if self.frame_bytes:
            return packet.size - packet.size % self.frame_bytes
        return packet.size

    cdef int64_t decode_ticks(self, int64_t dts_us) noexcept:
        cdef int64_t exact = to_ticks(max(-MAX_TIME_US, min(MAX_TIME_US, dts_us)), self.timescale)
        cdef int64_t follow
        cdef int64_t tolerance = self.timescale // (1000 if dts_us % 1000 == 0 else 90000) + 1
        if not self.samples:
            return exact
        if not self.video and (self.default_ticks or self.frame_bytes):
            follow = self.last_ticks + (1 if self.frame_bytes else self.default_ticks)
            if follow - tolerance <= exact <= follow + tolerance:
                return follow
        return max(exact, self.last_ticks + 1)

    cdef int add(self, const PacketView* packet) except -1:
        """Take a packet of `stored_size` over zero; only its size counts, not its data.

        Raises UnsupportedError for one over 2 GiB or a pause over 2^32 ticks, LimitExceededError over 2^32 samples.
        """
        return self.add_at(packet, self.decode_ticks(packet.dts_us), self.stored_size(packet))

    cdef int add_at(self, const PacketView* packet, int64_t ticks, size_t size) except -1:
        """Do the same, with the packet's `decode_ticks` and `stored_size`."""
        cdef int64_t offset = 0
        if size > MAX_SAMPLE_BYTES:
            raise UnsupportedError(f"a packet of {size} bytes is too large for MP4")
        if self.text:
            ticks = to_ticks(max(-MAX_TIME_US, min(MAX_TIME_US, packet.dts_us)), self.timescale)
            return self.add_text(ticks, <uint32_t> size, packet.size)
        if self.video and packet.offset_us:
            offset = to_ticks(
                max(-MAX_TIME_US, min(MAX_TIME_US, packet.dts_us + packet.offset_us)), self.timescale
            ) - ticks
            offset = max(-0x7FFFFFFF, min(0x7FFFFFFF, offset))
        self.trim_ticks = to_ticks(trim_of(packet.flags), self.timescale)
        if self.varying and packet.data is not NULL:
            self.own_ticks = <int64_t> opus_samples(packet) * self.timescale // 48000
        return self.add_sample(ticks, offset, <uint32_t> size, packet.flags & KEYFRAME != 0)

    cdef int add_text(self, int64_t ticks, uint32_t size, size_t letters) except -1:
        """Add a text and the empty one that ends it, which moves to before the next one if that comes earlier."""
        if self.samples:
            ticks = max(ticks, self.text_ticks + 2)
            self.end_text(ticks)
        self.add_sample(ticks, 0, size - 2, True)
        self.text_ticks = ticks
        self.last_ticks = ticks + to_ticks(TEXT_US + TEXT_US_PER_BYTE * <int64_t> letters, self.timescale)
        self.end_ticks = max(self.end_ticks, self.last_ticks)
        self.push_size(2)
        self.samples += 1
        self.chunk_samples += 1
        return 0

    cdef int end_text(self, int64_t next_ticks) except -1:
        self.last_ticks = min(self.last_ticks, next_ticks - 1)
        return self.push_duration(1, self.last_ticks - self.text_ticks)

    cdef int add_sample(self, int64_t ticks, int64_t offset, uint32_t size, bint key) except -1:
        cdef uint32_t count = size // self.frame_bytes if self.frame_bytes else 1
        if self.samples > MAX_SAMPLES - count:
            raise LimitExceededError(f"over {MAX_SAMPLES} samples in a track")
        if not self.samples:
            self.first_ticks = ticks
            self.lowest_ticks = ticks + offset
        else:
            self.push_duration(1, ticks - self.last_ticks)
        if not self.chunk_samples:
            self.chunk_ticks = ticks
        if count > 1:
            self.push_duration(count - 1, 1)
        self.last_ticks = ticks + count - 1
        self.lowest_ticks = min(self.lowest_ticks, ticks + offset)
        self.end_ticks = max(self.end_ticks, self.last_ticks + offset) if self.samples else self.last_ticks + offset
        if offset or self.late:
            self.push_offset(offset)
        if offset < 0:
            self.negative_offsets = True
        self.push_size(size if not self.frame_bytes else self.frame_bytes)
        self.samples += count
        self.chunk_samples += count
        if key and self.video:
            self.keys += 1
            put32(self.stss, self.samples)
        return 0

    cdef int push_offset(self, int64_t offset) except -1:
        if not self.late:
            self.late = True
            if self.samples:
                push_run(self.ctts, self.samples, 0)
        return push_run(self.ctts, 1, <uint32_t> offset)

    cdef int push_size(self, uint32_t size) except -1:
        """Keep a size; as long as all are equal, only once."""
        if not self.samples:
            self.equal_size = size
        elif size != self.equal_size and not self.sizes_differ:
            self.sizes_differ = True
            for _ in range(self.samples):
                put32(self.stsz, self.equal_size)
        if self.sizes_differ:
            put32(self.stsz, size)
        return 0

    cdef int push_duration(self, uint32_t count, int64_t delta) except -1:
        if delta > <int64_t> 0xFFFFFFFF:
            raise UnsupportedError(f"a pause of {delta} ticks is too long for MP4")
        self.last_delta = <uint32_t> delta
        return push_run(self.stts, count, <uint32_t> delta)

    cdef int end_chunk(self, int64_t position) except -1:
        """Say that the samples since the last chunk lie together at a place."""
        cdef uint32_t description = <uint32_t> len(self.infos)
        cdef int64_t* place
        if not self.chunk_samples:
            return 0
        place = <int64_t*> self.chunks.reserve(8)
        place[0] = position
        self.chunks.commit(8)
        if self.described != description or self.described_samples != self.chunk_samples:
            put32(self.stsc, <uint32_t> (self.chunks.size // 8))
            put32(self.stsc, self.chunk_samples)
            put32(self.stsc, description)
            self.described, self.described_samples = description, self.chunk_samples
        self.chunk_samples = 0
        return 0

    cdef int close(self) except -1:
        """Give the last sample its duration: that of its codec, the usual one, or that of the sample before, up to where it is heard."""
        cdef int64_t last = self.last_delta
        if self.closed or not self.samples:
            return 0
        self.closed = True
        if self.frame_bytes:
            last = 1
        elif self.own_ticks:
            last = self.own_ticks
        elif self.default_ticks and not (self.varying and 0 < last <= self.timescale // 8):
            last = self.default_ticks
        elif not last and self.frame_ticks:
            last = self.frame_ticks
        if not last or last > self.timescale * LONGEST_GUESS_S:
            last = self.timescale // 25
        if self.text:
            self.end_text(self.last_ticks + 1)
            last = 1
        if not self.frame_bytes:
            last = max(<int64_t> 1, last - self.trim_ticks)
        self.end_ticks += last
        return self.push_duration(1, last)

    @property
    def info(self):
        """The track as its newest sample entry says."""
        return self.infos[len(self.infos) - 1]

    # -- What the movie's boxes are made from

    @property
    def duration_ticks(self):
        """Sum of all durations."""
        return self.last_ticks - self.first_ticks + self.last_delta if self.samples else 0

    @property
    def all_sync(self):
        """Whether no table of sync samples is needed."""
        return not self.video or self.keys == self.samples

    def table(self, str name):
        """Return the content of stts, ctts, stsc, stss behind version and flags: the count of rows, and the rows."""
        cdef ByteBuffer rows = {"stts": self.stts, "ctts": self.ctts, "stsc": self.stsc, "stss": self.stss}[name]
        row_bytes = {"stts": 8, "ctts": 8, "stsc": 12, "stss": 4}[name]
        return [struct.pack(">I", rows.size // row_bytes), (<const char*> rows.data)[:rows.size]]

    def sizes(self):
        """Return the content of stsz behind version and flags, in pieces."""
        if not self.sizes_differ:
            return [struct.pack(">II", self.equal_size, self.samples)]
        return [struct.pack(">II", 0, self.samples), (<const char*> self.stsz.data)[:self.stsz.size]]


@cython.final
cdef class ChunkPlaces:
    """The content of co64 (wide) or stco of a track, behind version and flags: known but for what is added to every place."""

    def __cinit__(self, TrackTables tables not None, bint wide):
        self.chunks = tables.chunks
        self.wide = wide

    def __len__(self):
        return 4 + self.chunks.size // 8 * (8 if self.wide else 4)

    def at(self, int64_t base):
        """Return it. base: what is added to every place."""
        cdef size_t number
        cdef size_t count = self.chunks.size // 8
        cdef const int64_t* places = <const int64_t*> self.chunks.data
        cdef bytes content = PyBytes_FromStringAndSize(NULL, len(self))
        cdef uint8_t* at = put_be32(<uint8_t*> PyBytes_AS_STRING(content), <uint32_t> count)
        for number in range(count):
            if self.wide:
                at = put_be64(at, <uint64_t> (places[number] + base))
            else:
                at = put_be32(at, <uint32_t> (places[number] + base))
        return content
