"""The sample tables of one MP4 track, read in place: what each sample is, where it lies, and which are random access points.

Spec: ISO/IEC 14496-12 (2022) clauses 8.6.1 (times), 8.6.2 (sync samples), 8.7.3 (sizes), 8.7.4 (chunks), 8.7.5 (offsets).
No object is made for a sample. A cursor steps through the tables. A seek goes by their rows, each of which may be for many samples; what
lies before one in every ROW_STRIDE rows is kept once somebody seeks, so that every later seek is a binary search and a short walk.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, UINT32_MAX, UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from mist.errors import LimitExceededError, RemoteProtocolError

cdef enum:
    ROW_STRIDE = 256
    SIZE_STRIDE = 1024

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
        self.stts_marks = self.ctts_marks = self.stsc_marks = NULL
        self.bytes_before = NULL
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
        free(self.stts_marks)
        free(self.ctts_marks)
        free(self.stsc_marks)
        free(self.bytes_before)

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

    cdef uint64_t chunks_of(self, uint32_t entry) noexcept nogil:
        """Return how many chunks a row of stsc is for. The first row is for all from the first chunk on."""
        cdef uint64_t begin = self.chunk_of(entry)
        cdef uint64_t end = self.chunks.count
        if entry + 1 < self.stsc.count:
            end = min(end, self.chunk_of(entry + 1))
        return end - begin if end > begin else 0

    cdef uint64_t chunk_of(self, uint32_t entry) noexcept nogil:
        return be32(self.stsc.data + 12 * <size_t> entry) - 1 if entry else 0

    cdef uint64_t row_samples(self, const Rows* rows, uint32_t entry) noexcept nogil:
        """Return how many samples a row of stts, ctts or stsc is for."""
        if rows.data == self.stsc.data:
            return self.chunks_of(entry) * be32(rows.data + 12 * <size_t> entry + 4)
        return be32(rows.data + 8 * <size_t> entry)

    cdef int64_t row_ticks(self, const Rows* rows, uint32_t entry, int64_t before) noexcept nogil:
        """Return the decode time behind a row of stts that begins at another, up to just past MAX_TICKS; 0 for other tables."""
        cdef int64_t count, delta
        if rows.data != self.stts.data:
            return 0
        count, delta = be32(rows.data + 8 * <size_t> entry), self.delta_of(entry)
        if count and delta > (MAX_TICKS + 1 - before) // count:
            return MAX_TICKS + 1
        return before + delta * count

    cdef uint32_t delta_of(self, uint32_t entry) noexcept nogil:
        cdef uint32_t delta = be32(self.stts.data + 8 * <size_t> entry + 4)
        return delta if delta <= 0x7FFFFFFF else 1      # a time that goes back

    cdef int mark(self, const Rows* rows, RowMark** marks) except -1:
        """Remember what lies before every ROW_STRIDE-th row of stts, ctts or stsc, once."""
        cdef uint32_t entry
        cdef RowMark before
        if marks[0] is not NULL:
            return 0
        marks[0] = <RowMark*> malloc((<size_t> rows.count // ROW_STRIDE + 1) * sizeof(RowMark))
        if marks[0] is NULL:
            raise MemoryError
        before.samples, before.ticks = 0, 0
        marks[0][0] = before
        for entry in range(rows.count):
            if entry % ROW_STRIDE == 0:
                marks[0][entry // ROW_STRIDE] = before
            before.samples += self.row_samples(rows, entry)
            before.ticks = self.row_ticks(rows, entry, before.ticks)
        return 0

    cdef uint32_t find_row(self, const Rows* rows, const RowMark* marks, uint64_t samples, int64_t ticks, RowMark* before) noexcept nogil:
        """Return the last row before which there are no more samples and ticks than these, and what there is. There are rows."""
        cdef uint32_t low = 0
        cdef uint32_t high = (rows.count - 1) // ROW_STRIDE + 1
        cdef uint32_t middle
        cdef RowMark behind
        while high - low > 1:
            middle = (low + high) // 2
            if marks[middle].samples <= samples and marks[middle].ticks <= ticks:
                low = middle
            else:
                high = middle
        before[0] = marks[low]
        low *= ROW_STRIDE
        while low + 1 < rows.count:
            behind.samples = before.samples + self.row_samples(rows, low)
            behind.ticks = self.row_ticks(rows, low, before.ticks)
            if behind.samples > samples or behind.ticks > ticks:
                break
            before[0] = behind
            low += 1
        return low

    cdef int64_t bytes_between(self, uint32_t begin, uint32_t end) except -1:
        """Return the bytes of samples from one to before another."""
        cdef int64_t total = 0
        cdef uint32_t number = begin
        if not self.size_bits:
            return <int64_t> (end - begin) * (self.frame_bytes or self.equal_size)
        if end - begin > 4 * SIZE_STRIDE:
            self.mark_sizes()
            number = end // SIZE_STRIDE * SIZE_STRIDE
            total = self.bytes_before[end // SIZE_STRIDE] - self.bytes_before[begin // SIZE_STRIDE]
            total -= self.sum_sizes(begin // SIZE_STRIDE * SIZE_STRIDE, begin)
        return total + self.sum_sizes(number, end)

    cdef int64_t sum_sizes(self, uint32_t begin, uint32_t end) noexcept nogil:
        cdef int64_t total = 0
        cdef uint32_t number
        for number in range(begin, end):
            total += be32(self.sizes.data + 4 * <size_t> number) if self.size_bits == 32 else self.small_size(number)
        return total

    cdef int mark_sizes(self) except -1:
        """Remember how many bytes lie before every SIZE_STRIDE-th sample, once."""
        cdef uint32_t place
        cdef int64_t total = 0
        if self.bytes_before is not NULL:
            return 0
        self.bytes_before = <int64_t*> malloc((<size_t> self.count // SIZE_STRIDE + 1) * sizeof(int64_t))
        if self.bytes_before is NULL:
            raise MemoryError
        for place in range(self.count // SIZE_STRIDE + 1):
            self.bytes_before[place] = total
            total += self.sum_sizes(place * SIZE_STRIDE, min((place + 1) * SIZE_STRIDE, self.count))
        return 0

    cdef int go_to_sample(self, Cursor* cursor, uint32_t number) except -1:
        """Go before the packet that holds a sample, or to the end."""
        cdef RowMark before
        cdef uint32_t within, each
        self.rewind(cursor)
        if number >= self.count or not self.stsc.count:
            cursor.sample = self.count
            return 0
        self.mark(&self.stsc, &self.stsc_marks)
        cursor.stsc_entry = self.find_row(&self.stsc, self.stsc_marks, number, 0, &before)
        each = be32(self.stsc.data + 12 * <size_t> cursor.stsc_entry + 4)
        if not each:
            cursor.sample = self.count
            return 0
        within = <uint32_t> ((number - before.samples) % each)
        number -= within % FRAMES_PER_PACKET if self.frame_bytes else 0
        within -= within % FRAMES_PER_PACKET if self.frame_bytes else 0
        cursor.sample = number
        cursor.chunk = <uint32_t> (self.chunk_of(cursor.stsc_entry) + (number - before.samples) // each)
        if within:
            self.enter_chunk(cursor)
            cursor.chunk_left -= within
            cursor.position += self.bytes_between(number - within, number)
        self.time_sample(cursor)
        cursor.sync_entry = self.syncs_before(number + 1)
        return 0

    cdef int time_sample(self, Cursor* cursor) except -1:
        """Bring times and offsets to where the cursor's sample is."""
        cdef RowMark before
        cdef uint32_t entry
        cdef uint32_t number = cursor.sample
        cdef uint64_t end
        if not number:
            return 0
        if self.stts.count:
            self.mark(&self.stts, &self.stts_marks)
            entry = self.find_row(&self.stts, self.stts_marks, number - 1, INT64_MAX, &before)
            end = before.samples + self.row_samples(&self.stts, entry)
            cursor.stts_entry, cursor.delta = entry + 1, self.delta_of(entry)
            cursor.stts_left = <uint32_t> (end - number) if end > number else 0
            cursor.dts_ticks = before.ticks + <int64_t> cursor.delta * <int64_t> (number - before.samples)
        if self.ctts.count:
            self.mark(&self.ctts, &self.ctts_marks)
            entry = self.find_row(&self.ctts, self.ctts_marks, number - 1, 0, &before)
            end = before.samples + self.row_samples(&self.ctts, entry)
            cursor.ctts_entry = entry + 1
            cursor.ctts_left = <uint32_t> (end - number) if end > number else 0
        return 0

    cdef int go_to_time(self, Cursor* cursor, int64_t ticks) except -1:
        """Go before the last packet that is not later than a decode time, or to the first one."""
        cdef RowMark before
        cdef uint32_t entry
        cdef int64_t delta
        cdef uint64_t number = 0
        if ticks >= 0 and self.stts.count and self.count:
            self.mark(&self.stts, &self.stts_marks)
            entry = self.find_row(&self.stts, self.stts_marks, UINT64_MAX, ticks, &before)
            delta = self.delta_of(entry)
            number = <uint64_t> ((ticks - before.ticks) // delta) if delta else UINT32_MAX
            if entry + 1 < self.stts.count:
                number = min(number, self.row_samples(&self.stts, entry))
            number = min(before.samples + number, <uint64_t> (self.count - 1))
        elif ticks >= 0 and self.count:
            number = self.count - 1     # all at once
        return self.go_to_sample(cursor, <uint32_t> number)

    cdef uint32_t syncs_before(self, uint32_t number) noexcept nogil:
        """Return how many sync samples there are before one, counted from 1."""
        cdef uint32_t low = 0
        cdef uint32_t high = self.sync.count
        cdef uint32_t middle
        while low < high:
            middle = low + (high - low) // 2
            if be32(self.sync.data + 4 * <size_t> middle) < number:
                low = middle + 1
            else:
                high = middle
        return low

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
