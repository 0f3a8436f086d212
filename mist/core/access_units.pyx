"""Access units out of elementary streams that come in pieces: the face of all readers, audio frames, AV1, and what needs no splitting.

A reader takes the payloads of a stream's PES packets and gives its access units, each with the mark of the PES packet in which it begins.
Readers of H.264, HEVC and MPEG-2 video are in `picture_readers`.
Specs: ISO/IEC 13818-1 section 2.4.3.7 (to which access unit a time belongs); AOM "Carriage of AV1 in MPEG-2 TS" section 3.2.
"""

cimport cython
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memmove

from mist.core.audio_headers cimport (
    FRAME,
    LOOK_BYTES,
    NO_FRAME,
    FrameHead,
    read_ac3,
    read_adts,
    read_dts,
    read_mpeg,
)
from mist.core.buffer cimport ByteBuffer
from mist.core.latm cimport LatmReader
from mist.core.nal cimport NalUnit, next_annexb
from mist.core.ts_frames cimport read_loas, read_opus, read_sized

from mist.errors import LocalProtocolError

cdef enum:
    OBU_SEQUENCE_HEADER = 1
    OBU_TEMPORAL_DELIMITER = 2
    OBU_FRAME_HEADER = 3
    OBU_FRAME = 6
    OBU_TILE_LIST = 8
    OBU_PADDING = 15
    CELL_BYTES = 5              # header of a metadata access unit cell

cdef uint8_t[4] KLV_KEY = [0x06, 0x0E, 0x2B, 0x34]


cdef class UnitReader:
    """Bytes of one elementary stream in, access units out. `at` and marks count in `raw`, which loses its start as it is read."""

    def __cinit__(self, *args, **kwargs):
        self.raw = ByteBuffer()
        self.at = 0
        self.mark_count = 0

    cdef int add_mark(self, const Mark* mark) except -1:
        """Remember that a PES packet begins at the end of what is there. Its place is set here."""
        cdef Mark* kept
        if self.mark_count == MAX_MARKS:
            self.mark_count -= 1
            memmove(&self.marks[0], &self.marks[1], self.mark_count * sizeof(Mark))
        kept = &self.marks[self.mark_count]
        kept[0] = mark[0]
        kept.place = self.raw.size
        kept.used = False
        self.mark_count += 1
        return 0

    cdef int append(self, const uint8_t* data, size_t size) except -1:
        """Take bytes; units given before are gone."""
        cdef int number
        cdef size_t left
        if self.at:
            left = self.raw.size - self.at
            if left:
                memmove(self.raw.data, self.raw.data + self.at, left)
            self.raw.size = left
            for number in range(self.mark_count):
                self.marks[number].place -= min(self.at, self.marks[number].place)
            self.at = 0
        return self.raw.append(data, size)

    cdef int take_mark(self, size_t place, Mark* mark) noexcept:
        """Set mark to that of the PES packet in which a place is; it is stamped only the first time."""
        cdef int number = self.mark_count - 1
        while number >= 0 and self.marks[number].place > place:
            number -= 1
        if number < 0:
            mark.stamped = False
            mark.position = -1
            return 0
        mark[0] = self.marks[number]
        mark.stamped = mark.stamped and not mark.used
        self.marks[number].used = True
        if number:
            self.mark_count -= number
            memmove(&self.marks[0], &self.marks[number], self.mark_count * sizeof(Mark))
        return 0

    cdef void reset(self) noexcept:
        """Forget everything: bytes are missing, or come from elsewhere."""
        self.raw.clear()
        self.at = 0
        self.mark_count = 0

    cdef size_t held(self) noexcept:
        """Return how many bytes of memory are in use."""
        return self.raw.capacity

    cdef int shrink(self) except -1:
        """Give back memory that one huge access unit took."""
        if self.at == self.raw.size and self.raw.capacity > SPARE_BYTES:
            self.raw = ByteBuffer()
            self.at = 0
            self.mark_count = 0
        return 0

    cdef bint begins(self, const uint8_t* data, size_t size) noexcept:
        """Tell whether a PES packet's payload begins with an access unit, as far as can be seen."""
        return True

    cdef bint next(self, int state, Unit* unit) except -1:
        """Set unit to the next access unit that is complete; False: there is none."""
        raise NotImplementedError


cdef inline void plain_unit(Unit* unit, const uint8_t* data, size_t size) noexcept:
    unit.data = unit.whole = data
    unit.size = unit.whole_size = size
    unit.keyframe = True
    unit.setup = False
    unit.samples = unit.rate_hz = 0
    unit.ordered = False


@cython.final
cdef class WholeReader(UnitReader):
    """Streams in which each PES packet is one unit. klv: one that stands in a metadata cell loses the cell's header.

    Spec: ISO/IEC 13818-1 section 2.12.4.2; SMPTE ST 336 (keys).
    """

    def __init__(self, bint klv=False):
        self.cells = klv

    cdef bint next(self, int state, Unit* unit) except -1:
        cdef const uint8_t* data = self.raw.data + self.at
        cdef size_t size = self.raw.size - self.at
        if state == OPEN or not size:
            return False
        if self.cells and size > CELL_BYTES + 4 and memcmp(data + CELL_BYTES, KLV_KEY, 4) == 0:
            data += CELL_BYTES
            size -= CELL_BYTES
        plain_unit(unit, data, size)
        self.take_mark(self.at, &unit.mark)
        self.at = self.raw.size
        return True


# -- AV1 ----------------------------------------------------------------------------------------------------------------


@cython.final
cdef class Av1Reader(UnitReader):
    """AV1: each PES packet is one temporal unit, its OBUs with start codes, or in the low-overhead form."""

    def __cinit__(self, *args, **kwargs):
        self.plain = ByteBuffer()
        self.unit = ByteBuffer()

    cdef bint next(self, int state, Unit* unit) except -1:
        cdef size_t begin = self.at
        if state == OPEN or begin >= self.raw.size:
            return False
        self.at = self.raw.size
        self.take_mark(begin, &unit.mark)
        self.unit.clear()
        self.key = self.has_frame = self.has_sequence_header = False
        self.convert(self.raw.data + begin, self.raw.size - begin)
        if not self.unit.size or not self.has_frame:
            return False
        plain_unit(unit, self.unit.data, self.unit.size)
        unit.keyframe = self.key
        unit.setup = self.has_sequence_header
        return True

    cdef int convert(self, const uint8_t* data, size_t size) except -1:
        """Append the OBUs of a temporal unit to `unit`; what follows a broken one is left out."""
        cdef NalUnit nal
        cdef size_t offset = 0
        cdef size_t used = 1
        if size >= 3 and data[0] == 0 and data[1] == 0 and (data[2] == 1 or (size > 3 and data[2] == 0 and data[3] == 1)):
            while next_annexb(data, size, &offset, &nal):
                self.plain.clear()
                unescape(self.plain, nal.data, nal.size)
                self.obu(self.plain.data, self.plain.size)
            return 0
        while offset < size and used:
            used = self.obu(data + offset, size - offset)
            offset += used
        return 0

    cdef size_t obu(self, const uint8_t* data, size_t size) except? 0:
        """Append one OBU, with its size, and note what it is; return its length, 0 if it is broken.   Spec: AV1 section 5.3."""
        cdef int kind = data[0] >> 3 & 15
        cdef size_t head = 2 if data[0] & 4 else 1
        cdef size_t at = head
        cdef size_t body = 0
        cdef int shift = 0
        cdef uint8_t first
        if data[0] & 0x80 or head > size:
            return 0
        if data[0] & 2:
            while True:
                if at >= size or shift > 28:
                    return 0
                body |= <size_t> (data[at] & 127) << shift
                shift += 7
                at += 1
                if not data[at - 1] & 128:
                    break
            if body > size - at:
                return 0
        else:
            body = size - at
        if kind == OBU_TEMPORAL_DELIMITER or kind == OBU_TILE_LIST or kind == OBU_PADDING:
            return at + body
        if kind == OBU_SEQUENCE_HEADER:
            self.has_sequence_header = True
        elif (kind == OBU_FRAME or kind == OBU_FRAME_HEADER) and body and not self.has_frame:
            # show_existing_frame 0, frame_type KEY_FRAME, show_frame 1
            self.has_frame = True
            self.key = data[at] >> 4 == 1
        first = data[0] | 2
        self.unit.append(&first, 1)
        self.unit.append(data + 1, head - 1)
        put_leb128(self.unit, body)
        self.unit.append(data + at, body)
        return at + body


cdef int put_leb128(ByteBuffer out, size_t value) except -1:
    cdef uint8_t byte
    while True:
        byte = value & 127
        value >>= 7
        if value:
            byte |= 128
        out.append(&byte, 1)
        if not value:
            return 0


cdef int unescape(ByteBuffer out, const uint8_t* data, size_t size) except -1:
    """Append data without the 03 of each 00 00 03."""
    cdef uint8_t* target = out.reserve(size)
    cdef size_t place, count = 0
    cdef int zeros = 0
    for place in range(size):
        if zeros >= 2 and data[place] == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if data[place] == 0 else 0
        target[count] = data[place]
        count += 1
    out.commit(count)
    return 0


# -- audio --------------------------------------------------------------------------------------------------------------


cdef enum:
    INCOMPLETE = -1         # besides what a HeadReader finds: more bytes tell


cdef class AudioReader(UnitReader):
    """Streams of frames that tell their length. form: "adts", "mpeg", "ac3", "dts", "opus", "loas" or "sized"."""

    def __init__(self, form):
        self.joining = form in ("ac3", "dts")
        self.fragile = form in ("opus", "sized")
        if form == "adts":
            self.read = read_adts
        elif form == "mpeg":
            self.read = read_mpeg
        elif form == "ac3":
            self.read = read_ac3
        elif form == "dts":
            self.read = read_dts
        elif form == "opus":
            self.read = read_opus
        elif form == "loas":
            self.read = read_loas
        elif form == "sized":
            self.read = read_sized
        else:
            raise LocalProtocolError(f"no audio frames of the form {form}")

    cdef void reset(self) noexcept:
        UnitReader.reset(self)
        self.synchronised = False

    cdef int head_at(self, size_t place, FrameHead* head, int state) noexcept:
        """Read the frame header at a place of raw: FRAME, NO_FRAME, or INCOMPLETE for one that ends later."""
        cdef size_t left = self.raw.size - place
        cdef int found = self.read(self.raw.data + place, left, head)
        if found == FRAME and head.blocks == 1:
            return FRAME if head.size <= left else INCOMPLETE
        return INCOMPLETE if found == NO_FRAME and left < LOOK_BYTES and state != FINAL else NO_FRAME

    cdef bint next(self, int state, Unit* unit) except -1:
        return self.find(state, unit)

    cdef bint find(self, int state, Unit* unit) except -1:
        """Set unit to the next frame that is complete; pass over what is none."""
        cdef FrameHead head, part
        cdef size_t end
        cdef int found
        while self.at < self.raw.size:
            found = self.head_at(self.at, &head, state)
            if found == INCOMPLETE:
                return False
            if found == FRAME and head.joined:
                self.at += head.size
                continue
            end = self.at + head.size
            if found == FRAME and not self.synchronised and not self.fragile and end < self.raw.size:
                found = FRAME if self.head_at(end, &part, state) != NO_FRAME else NO_FRAME
            if found == NO_FRAME:
                self.synchronised = False
                self.at += 1
                continue
            while self.joining and end < self.raw.size:
                found = self.head_at(end, &part, state)
                if found == FRAME and part.joined:
                    end += part.size
                elif found == INCOMPLETE and state == OPEN:
                    return False
                else:
                    break
            self.synchronised = True
            plain_unit(unit, self.raw.data + self.at + head.header, end - self.at - head.header)
            unit.whole = self.raw.data + self.at
            unit.whole_size = end - self.at
            unit.samples, unit.rate_hz = head.samples, head.rate_hz
            unit.setup = head.key != self.key
            self.key = head.key
            self.take_mark(self.at, &unit.mark)
            self.at = end
            return True
        return False


@cython.final
cdef class LatmStreamReader(AudioReader):
    """AAC in LATM; the set-up of a unit is in `latm.config`."""

    def __init__(self):
        AudioReader.__init__(self, "loas")
        self.latm = LatmReader()

    cdef bint next(self, int state, Unit* unit) except -1:
        while self.find(state, unit):
            if self.latm.read(unit.data, unit.size):
                unit.data = self.latm.out.data
                unit.size = self.latm.out.size
                unit.samples, unit.rate_hz = self.latm.samples, self.latm.rate_hz
                unit.setup = self.latm.changed
                return True
        return False
