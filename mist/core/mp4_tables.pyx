"""The sample tables of one MP4 track, read in place: what each sample is, where it lies, and which are random access points.

Spec: ISO/IEC 14496-12 (2022) clauses 8.6.1 (times), 8.6.2 (sync samples), 8.7.3 (sizes), 8.7.4 (chunks), 8.7.5 (offsets).
No object is made for a sample. A cursor steps through the tables; one in every MARK_STRIDE packets is kept once somebody seeks,
so that every later seek is a binary search and a short walk.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from mist.errors import LimitExceededError, RemoteProtocolError

cdef enum:
    MARK_STRIDE = 1024

cdef int64_t MAX_TICKS = <int64_t> 1 << 61
cdef int64_t MAX_POSITION = <int64_t> 1 << 60

_ROW_BYTES = {"stts": 8, "ctts": 8, "stsc": 12, "stco": 4, "co64": 8, "stss": 4}


@cython.final
cdef class SampleTable:
    """Reads the tables of one track out of a `moov` box.

    moov: the box, kept. tables: (position in moov, bytes) of the body of each table box by its name. base: byte of the file
    where moov begins, for error messages. frame_bytes: of a codec whose frames are stored one by one (uncompressed audio); they
    are handed out up to FRAMES_PER_PACKET at a time, as far as they lie together. 0 for others.
    Raises RemoteProtocolError, with offset, for a table that does not fit its box; LimitExceededError over MAX_SAMPLES.
    """

    def __cinit__(self, bytes moov not None, dict tables not None, int64_t base=0, uint32_t frame_bytes=0):
        self.marks = NULL
        self.moov = moov
        self.base = base
        self.rows(&self.stts, tables, "stts", base)
        self.rows(&self.ctts, tables, "ctts", base)
        self.rows(&self.stsc, tables, "stsc", base)
        self.wide_chunks = "co64" in tables
        self.rows(&self.chunks, tables, "co64" if self.wide_chunks else "stco", base)
        self.has_sync = "stss" in tables
        self.rows(&self.sync, tables, "stss", base)
        self.read_sizes(tables, base)
        self.check_chunks(tables, base)
        if frame_bytes and self.size_bits == 0 and self.stts.count == 1 and be32(self.stts.data + 4) == 1:
            self.frame_bytes = frame_bytes
        elif self.count > MAX_SAMPLES:
            raise LimitExceededError(f"a track of {self.count} samples; at most {MAX_SAMPLES} are read", offset=base)
        self.negative_ticks = self.most_negative()

    def __dealloc__(self):
        free(self.marks)

    cdef int rows(self, Rows* found, dict tables, str name, int64_t base) except -1:
        """Find a table whose count stands behind version and flags."""
        cdef Py_ssize_t begin
        cdef Py_ssize_t size
        found.data = NULL
        found.count = 0
        if name not in tables:
            return 0
        begin, size = tables[name]
        if begin < 0 or size < 8 or begin + size > PyBytes_GET_SIZE(self.moov):
            raise RemoteProtocolError(f"a {name} box of {size} bytes", offset=base + begin, spec="ISO/IEC 14496-12 clause 8.5")
        found.data = <const uint8_t*> PyBytes_AS_STRING(self.moov) + begin + 8
        found.count = be32(found.data - 4)
        if found.count > <uint64_t> (size - 8) // <uint64_t> _ROW_BYTES[name]:
            raise RemoteProtocolError(
                f"{found.count} entries in a {name} box of {size} bytes", offset=base + begin, spec="ISO/IEC 14496-12 clause 8.5"
            )
        return 0

    cdef int read_sizes(self, dict tables, int64_t base) except -1:
        cdef Py_ssize_t begin = 0
        cdef Py_ssize_t size = 0
        cdef const uint8_t* body
        name = "stz2" if "stz2" in tables else "stsz"
        if name not in tables:
            return 0
        begin, size = tables[name]
        if begin < 0 or size < 12 or begin + size > PyBytes_GET_SIZE(self.moov):
            raise RemoteProtocolError(f"a {name} box of {size} bytes", offset=base + begin, spec="ISO/IEC 14496-12 clause 8.7.3")
        body = <const uint8_t*> PyBytes_AS_STRING(self.moov) + begin
        self.count = be32(body + 8)
        self.sizes.data = body + 12
        if name == "stz2":
            self.size_bits = body[7]
        else:
            self.equal_size = be32(body + 4)
            self.size_bits = 0 if self.equal_size else 32
        if self.size_bits not in (0, 4, 8, 16, 32) or (name == "stz2" and self.size_bits not in (4, 8, 16)):
            raise RemoteProtocolError(
                f"sample sizes of {self.size_bits} bits", offset=base + begin, spec="ISO/IEC 14496-12 clause 8.7.3.3"
            )
        if (<uint64_t> self.count * self.size_bits + 7) // 8 > <uint64_t> (size - 12):
            raise RemoteProtocolError(
                f"{self.count} entries in a {name} box of {size} bytes", offset=base + begin,
                spec="ISO/IEC 14496-12 clause 8.7.3",
            )
        return 0

    cdef int check_chunks(self, dict tables, int64_t base) except -1:
        """Check that the runs of chunks follow each other, and leave out samples that no chunk holds."""
        cdef uint32_t entry
        cdef uint32_t first
        cdef uint32_t end
        cdef uint64_t held = 0
        for entry in range(self.stsc.count):
            first = be32(self.stsc.data + 12 * entry)
            end = be32(self.stsc.data + 12 * entry + 12) if entry + 1 < self.stsc.count else self.chunks.count + 1
            if first < 1 or (entry and first <= be32(self.stsc.data + 12 * entry - 12)):
                raise RemoteProtocolError(
                    f"entry {entry} of an stsc box begins at chunk {first}", offset=base + tables["stsc"][0],
                    spec="ISO/IEC 14496-12 clause 8.7.4.3",
                )
            end = min(end, self.chunks.count + 1)
            if end > first:
                held += <uint64_t> (end - first) * be32(self.stsc.data + 12 * entry + 4)
        if held < self.count:
            self.count = <uint32_t> held
        return 0

    cdef int64_t most_negative(self) noexcept:
        """Return how many ticks composition times go before decode times at most."""
        cdef int64_t least = 0
        cdef uint32_t entry
        cdef int32_t offset
        for entry in range(self.ctts.count):
            offset = <int32_t> be32(self.ctts.data + 8 * entry + 4)
            if offset < least and offset > -0x7FFFFFFF:
                least = offset
        return -least

    cdef void rewind(self, Cursor* cursor) noexcept nogil:
        memset(cursor, 0, sizeof(Cursor))

    cdef int next(self, Cursor* cursor, Sample* sample) noexcept nogil:
        """Step over a packet. Return 1, 0 at the end, -1 where a table says what cannot be (see `broken`)."""
        cdef uint32_t size = self.equal_size
        cdef uint32_t group = 1
        if cursor.sample >= self.count:
            return 0
        while cursor.chunk_left == 0:
            if not self.enter_chunk(cursor):
                return 0
        if cursor.position < 0 or cursor.position > MAX_POSITION or cursor.dts_ticks > MAX_TICKS:
            return -1
        sample.number = cursor.sample
        sample.position = cursor.position
        sample.dts_ticks = cursor.dts_ticks
        sample.description = be32(self.stsc.data + 12 * cursor.stsc_entry + 8) - 1
        if self.frame_bytes:
            group = min(<uint32_t> FRAMES_PER_PACKET, min(cursor.chunk_left, self.count - cursor.sample))
            size = group * self.frame_bytes
        elif self.size_bits == 32:
            size = be32(self.sizes.data + 4 * <size_t> cursor.sample)
        elif self.size_bits:
            size = self.small_size(cursor.sample)
        sample.size = size
        sample.count = group
        sample.offset_ticks = self.step_composition(cursor) if self.ctts.count else 0
        sample.key = self.step_sync(cursor) if self.has_sync else True
        while cursor.stts_left == 0 and cursor.stts_entry < self.stts.count:
            cursor.stts_left = be32(self.stts.data + 8 * <size_t> cursor.stts_entry)
            cursor.delta = be32(self.stts.data + 8 * <size_t> cursor.stts_entry + 4)
            if cursor.delta > 0x7FFFFFFF:
                cursor.delta = 1        # a time that goes back
            cursor.stts_entry += 1
        cursor.stts_left -= min(cursor.stts_left, group)
        cursor.dts_ticks += <int64_t> cursor.delta * group
        cursor.position += size
        cursor.sample += group
        cursor.chunk_left -= group
        return 1

    cdef bint enter_chunk(self, Cursor* cursor) noexcept nogil:
        if cursor.chunk >= self.chunks.count or not self.stsc.count:
            return False
        while (
            cursor.stsc_entry + 1 < self.stsc.count
            and be32(self.stsc.data + 12 * <size_t> (cursor.stsc_entry + 1)) <= cursor.chunk + 1
        ):
            cursor.stsc_entry += 1
        cursor.chunk_left = be32(self.stsc.data + 12 * <size_t> cursor.stsc_entry + 4)
        if self.wide_chunks:
            cursor.position = be64(self.chunks.data + 8 * <size_t> cursor.chunk)
        else:
            cursor.position = be32(self.chunks.data + 4 * <size_t> cursor.chunk)
        cursor.chunk += 1
        return True

    cdef uint32_t small_size(self, uint32_t number) noexcept nogil:
        """Return a size of an stz2 box.   Spec: ISO/IEC 14496-12 clause 8.7.3.3."""
        cdef uint8_t pair
        if self.size_bits == 16:
            return <uint32_t> self.sizes.data[2 * <size_t> number] << 8 | self.sizes.data[2 * <size_t> number + 1]
        if self.size_bits == 8:
            return self.sizes.data[number]
        pair = self.sizes.data[number >> 1]
        return pair & 15 if number & 1 else pair >> 4

    cdef int64_t step_composition(self, Cursor* cursor) noexcept nogil:
        """Return the composition offset of the next sample. All are signed: version 0 is written with negative ones, too."""
        while cursor.ctts_left == 0 and cursor.ctts_entry < self.ctts.count:
            cursor.ctts_left = be32(self.ctts.data + 8 * <size_t> cursor.ctts_entry)
            cursor.ctts_entry += 1
        if cursor.ctts_left == 0:
            return 0
        cursor.ctts_left -= 1
        return <int32_t> be32(self.ctts.data + 8 * <size_t> cursor.ctts_entry - 4)

    cdef bint step_sync(self, Cursor* cursor) noexcept nogil:
        cdef uint32_t number = cursor.sample + 1
        if not self.sync.count:
            return cursor.sample == 0       # nothing can be played without a beginning
        while cursor.sync_entry < self.sync.count and be32(self.sync.data + 4 * <size_t> cursor.sync_entry) < number:
            cursor.sync_entry += 1
        return cursor.sync_entry < self.sync.count and be32(self.sync.data + 4 * <size_t> cursor.sync_entry) == number

    cdef object broken(self):
        """Return the error to raise where `next` returned -1."""
        return RemoteProtocolError(
            "an stts or co64 box with times or places past 2^60", offset=self.base, spec="ISO/IEC 14496-12 clause 8.7.5"
        )

    # -- Seeking

    cdef int make_marks(self) except -1:
        cdef Cursor cursor
        cdef Sample sample
        cdef size_t capacity = 0
        cdef size_t steps = 0
        cdef void* grown
        cdef int found = 1
        if self.marks is not NULL:
            return 0
        self.rewind(&cursor)
        while found > 0:
            if steps % MARK_STRIDE == 0:
                if self.mark_count == capacity:
                    capacity = capacity * 2 if capacity else 64
                    grown = realloc(self.marks, capacity * sizeof(Cursor))
                    if grown is NULL:
                        raise MemoryError
                    self.marks = <Cursor*> grown
                self.marks[self.mark_count] = cursor
                self.mark_count += 1
            found = self.next(&cursor, &sample)
            steps += 1
        if found < 0:
            raise self.broken()
        return 0

    cdef Cursor* mark_before(self, uint32_t number, int64_t ticks) except NULL:
        """Return the last mark that is not after a sample nor later than a decode time, or the first one."""
        cdef size_t low = 0
        cdef size_t high
        cdef size_t middle
        self.make_marks()
        high = self.mark_count
        while high - low > 1:
            middle = (low + high) // 2
            if self.marks[middle].sample <= number and self.marks[middle].dts_ticks <= ticks:
                low = middle
            else:
                high = middle
        return &self.marks[low]

    cdef int go_to_sample(self, Cursor* cursor, uint32_t number) except -1:
        """Go before the packet that holds a sample, or to the end."""
        cdef Cursor before
        cdef Sample sample
        cursor[0] = self.mark_before(number, INT64_MAX)[0]
        while cursor.sample <= number:
            before = cursor[0]
            if self.next(cursor, &sample) <= 0:
                return 0
        cursor[0] = before
        return 0

    cdef int go_to_time(self, Cursor* cursor, int64_t ticks) except -1:
        """Go before the last packet that is not later than a decode time, or to the first one."""
        cdef Cursor before
        cdef Sample sample
        before = self.mark_before(UINT32_MAX, ticks)[0]
        cursor[0] = before
        while self.next(cursor, &sample) > 0 and cursor.dts_ticks <= ticks and cursor.sample < self.count:
            before = cursor[0]
        cursor[0] = before
        return 0

    cdef uint32_t key_before(self, uint32_t number) noexcept nogil:
        """Return the last sync sample that is not after a sample, from 0; the first one where there is none."""
        cdef size_t low = 0
        cdef size_t high = self.sync.count
        cdef size_t middle
        if not self.has_sync:
            return number
        while high - low > 1:
            middle = (low + high) // 2
            if be32(self.sync.data + 4 * middle) <= number + 1:
                low = middle
            else:
                high = middle
        if not self.sync.count:
            return 0
        return max(be32(self.sync.data + 4 * low), <uint32_t> 1) - 1

    # -- What tracks are told from

    @property
    def duration_ticks(self):
        """Sum of all durations."""
        cdef int64_t total = 0
        cdef uint32_t entry
        cdef uint32_t delta
        for entry in range(self.stts.count):
            delta = be32(self.stts.data + 8 * entry + 4)
            total += <int64_t> be32(self.stts.data + 8 * entry) * (delta if delta <= 0x7FFFFFFF else 1)
            if total > MAX_TICKS:
                raise self.broken()
        return total

    def usual_ticks(self):
        """Return (samples, ticks): one sample's duration if nine of ten have it, else the sum of all; (0, 0) without samples."""
        cdef uint64_t total = 0
        cdef uint64_t samples = 0
        cdef uint64_t same = 0
        cdef int64_t votes = 0
        cdef uint32_t usual = 0
        cdef uint32_t entry
        cdef uint32_t count
        cdef uint32_t delta
        for entry in range(self.stts.count):
            count, delta = be32(self.stts.data + 8 * entry), be32(self.stts.data + 8 * entry + 4)
            samples += count
            total += <uint64_t> count * delta
            if delta == usual:
                votes += count
            elif votes < count:
                votes, usual = count - votes, delta
            else:
                votes -= count
        for entry in range(self.stts.count):
            if be32(self.stts.data + 8 * entry + 4) == usual:
                same += be32(self.stts.data + 8 * entry)
        if not samples:
            return 0, 0
        if 10 * same > 9 * samples:
            return 1, usual
        return samples, total
