"""Annex B byte streams of H.264 and HEVC, as files and pipes hold them: read into access units with times, and written.

Spec: ITU-T H.264 clauses 7.4.1.2.3, 7.4.1.2.4, 8.2.1 and annex B; ITU-T H.265 clauses 7.4.2.4.4, 8.3.1 and annex B.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.nal cimport NalUnit, find_start_code, next_length_prefixed, type_mask
from mist.core.packet cimport KEYFRAME, PacketView
from mist.core.picture_stream cimport Picture, PictureStreamDemuxer
from mist.core.slice_headers cimport (
    MAX_OFFSETS,
    H264Order,
    H264Picture,
    H264Sequence,
    H264Slice,
    HevcPicture,
    HevcSequence,
    HevcSlice,
    h264_differs,
    h264_order,
    has_recovery_point,
    read_h264_slice,
    read_hevc_slice,
)

from mist.core.ts_tables import parameter_sets_h264, parameter_sets_hevc
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError

MAX_UNIT_BYTES = UNIT_LIMIT
MAX_GARBAGE_BYTES = GARBAGE_LIMIT

cdef enum:
    UNIT_LIMIT = 32 << 20
    GARBAGE_LIMIT = 1 << 20     # before the first start code
    EPOCH_SHIFT = 40            # order counts have 32 bits

cdef enum:                      # H.264 NAL unit types, table 7-1
    SLICE = 1
    PARTITION_A = 2
    IDR = 5
    SEI = 6
    SPS = 7
    PPS = 8
    DELIMITER = 9
    END_OF_SEQUENCE = 10
    FILLER = 12
    SPS_EXTENSION = 13
    PREFIX = 14
    RESERVED_PREFIX = 18

cdef enum:                      # HEVC NAL unit types, table 7-1
    RADL_N = 6
    RASL_R = 9
    LAST_SUB_LAYER_NON_REFERENCE = 14
    BLA_FIRST = 16
    IDR_W_RADL = 19
    IDR_N_LP = 20
    CRA = 21
    IRAP_LAST = 23
    LAST_VCL = 31
    HEVC_VPS = 32
    HEVC_SPS = 33
    HEVC_PPS = 34
    HEVC_DELIMITER = 35
    HEVC_END_OF_SEQUENCE = 36
    HEVC_FILLER = 38
    PREFIX_SEI = 39


cdef class AnnexBDemuxer(PictureStreamDemuxer):
    """Finds NAL units, and access units in them; gives them times from the rate that the parameter sets say, else 25 a second.

    Two fields of a frame are one packet. Parameter sets, delimiters and filler are left out of the payload; slices before their parameter
    sets are dropped. Subclasses implement `sequence`, `picture_set` and `describe`.
    """

    cdef bint aligned           # the bytes to be parsed begin with a start code
    cdef size_t scanned         # bytes of them that were searched for the next one
    cdef ByteBuffer ahead       # NAL units that precede the next slice
    cdef int64_t ahead_position
    cdef list new_sets          # parameter sets that have not taken effect
    cdef dict set_keys          # of the parameter sets in force, by their bytes
    cdef dict sets              # the other way round
    cdef int64_t epoch          # counts the starts of order counts

    def __cinit__(self, *args, **kwargs):
        self.ahead = ByteBuffer()
        self.ahead_position = -1
        self.new_sets = []
        self.set_keys = {}
        self.sets = {}

    def sequence(self, unit):
        """Return what slice headers need of a sequence parameter set, as a tuple. Raises RemoteProtocolError."""
        raise NotImplementedError

    def picture_set(self, unit):
        """Return what slice headers need of a picture parameter set, as a tuple. Raises RemoteProtocolError."""
        raise NotImplementedError

    def describe(self, sets, info):
        """Return the TrackInfo after these parameter sets arrived; None where it stays. info: the one before, or None."""
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Go on with the access unit at a position. dts_us: its decode time, microseconds."""
        PictureStreamDemuxer.seek(self, dts_us, position)
        self.aligned = False
        self.scanned = 0
        self.ahead.clear()
        self.ahead_position = -1
        self.restart_order()

    cdef int restart_order(self) except -1:
        raise NotImplementedError

    cdef int take_unit(self, const uint8_t* unit, size_t size, int64_t position) except -1:
        raise NotImplementedError

    cdef int finish(self) except -1:
        PictureStreamDemuxer.finish(self)
        if not self.tracks:
            raise RemoteProtocolError("the input holds no picture with its parameter sets", offset=0)
        return 0

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t search, following, stop
        if not self.aligned:
            at = find_start_code(data, size, 0)
            if at >= size:
                if not self.tracks and self.base > GARBAGE_LIMIT:
                    raise RemoteProtocolError(f"no start code in {self.base} bytes", offset=self.base)
                return size if over else max(size, <size_t> 2) - 2
            self.aligned = True
            self.scanned = 0
        while at < size:
            search = at + max(self.scanned, <size_t> 3)
            self.scanned = 0
            following = find_start_code(data, size, search)
            if following >= size and not over:
                if size - at > UNIT_LIMIT:
                    raise LimitExceededError(f"a NAL unit of over {UNIT_LIMIT} bytes", offset=self.base + <int64_t> at)
                self.scanned = size - at - 2 if size - at > 5 else 0
                return at
            stop = min(following, size)
            while stop > at + 3 and data[stop - 1] == 0:
                stop -= 1
            if stop > at + 3:
                self.take_unit(data + at + 3, stop - at - 3, self.base + <int64_t> at)
            at = following
        return size

    cdef int append(self, ByteBuffer target, const uint8_t* unit, size_t size) except -1:
        """Append a NAL unit with its length before it."""
        cdef uint8_t* place = target.reserve(size + 4)
        place[0] = <uint8_t> (size >> 24)
        place[1] = <uint8_t> (size >> 16)
        place[2] = <uint8_t> (size >> 8)
        place[3] = <uint8_t> size
        memcpy(place + 4, unit, size)
        target.commit(size + 4)
        return 0

    cdef int keep_ahead(self, const uint8_t* unit, size_t size, int64_t position, bint dropped) except -1:
        """Keep a NAL unit for the slice that comes next. dropped: only its position counts."""
        if self.ahead_position < 0:
            self.ahead_position = position
        if dropped:
            return 0
        if self.ahead.size + size > UNIT_LIMIT:
            raise LimitExceededError(f"over {UNIT_LIMIT} bytes without a picture", offset=position)
        return self.append(self.ahead, unit, size)

    cdef int keep_unit(self, const uint8_t* unit, size_t size) except -1:
        """Add a NAL unit to the current picture, those that were kept for it first."""
        if self.current is None:
            return 0
        self.check_size(size + self.ahead.size)
        if self.ahead.size:
            self.current.data.append(self.ahead.data, self.ahead.size)
            self.ahead.clear()
        self.ahead_position = -1
        return self.append(self.current.data, unit, size)

    cdef int start_access_unit(self, int64_t position) except -1:
        self.close_picture()
        self.begin_picture(self.ahead_position if self.ahead_position >= 0 else position)
        if self.new_sets:
            sets, self.new_sets = self.new_sets, []
            try:
                self.current.info = self.describe(sets, self.last_info())
            except RemoteProtocolError:
                return 0        # damaged sets: the track stays what it was
        return 0

    cdef object last_info(self):
        """Return the TrackInfo that the next packet would have."""
        cdef Picture picture
        cdef Py_ssize_t place
        for place in range(len(self.waiting) - 1, -1, -1):
            picture = self.waiting[place]
            if picture.info is not None:
                return picture.info
        return self.tracks[0] if self.tracks else None

    cdef int take_set(self, const uint8_t* unit, size_t size, int kind) except -1:
        """Take a parameter set in force; one that does not parse is left alone."""
        raw = PyBytes_FromStringAndSize(<const char*> unit, <Py_ssize_t> size)
        if raw in self.set_keys:
            return 0
        try:
            number = self.learn(raw, kind)
        except RemoteProtocolError:
            return 0
        key = (kind, number)
        self.set_keys.pop(self.sets.get(key), None)
        self.set_keys[raw] = key
        self.sets[key] = raw
        self.new_sets.append(raw)
        return 0

    cdef object learn(self, bytes unit, int kind):
        """Put what a parameter set says where slice headers find it, and return its number."""
        raise NotImplementedError


cdef class H264StreamDemuxer(AnnexBDemuxer):
    """The H.264 half of the engine."""

    cdef H264Sequence[32] sequences
    cdef H264Picture[256] pictures
    cdef H264Slice last
    cdef H264Order order
    cdef bint recovery          # the next access unit begins with a recovery point
    cdef bint has_sequence
    cdef bint one_field         # the current picture is the first field of a frame

    cdef int restart_order(self) except -1:
        self.epoch += 1
        memset(&self.order, 0, sizeof(H264Order))
        self.recovery = self.has_sequence = False
        return 0

    cdef object learn(self, bytes unit, int kind):
        cdef H264Sequence* shape
        cdef int place
        if kind == SPS_EXTENSION:
            return len(unit)
        if kind == PPS:
            number, sequence, order_in_frame = self.picture_set(unit)
            self.pictures[number] = H264Picture(True, sequence, order_in_frame)
            return number
        found = self.sequence(unit)
        number, offsets = found[0], found[9]
        shape = &self.sequences[number]
        (
            _number, shape.frames_only, shape.colour_planes, shape.log2_frame_number, shape.order_type, shape.log2_order,
            shape.delta_always_zero, shape.offset_for_non_ref, shape.offset_for_bottom, _offsets, shape.reorder,
            shape.rate, shape.rate_period,
        ) = found
        shape.cycle = min(len(offsets), MAX_OFFSETS)
        for place in range(shape.cycle):
            shape.offsets[place] = offsets[place]
        shape.known = True
        return number

    cdef int take_unit(self, const uint8_t* unit, size_t size, int64_t position) except -1:
        cdef int kind = unit[0] & 31
        if kind == SLICE or kind == IDR or kind == PARTITION_A:
            return self.take_slice(unit, size, position)
        if kind == SPS or kind == PPS or kind == SPS_EXTENSION:
            self.has_sequence |= kind == SPS
            self.take_set(unit, size, kind)
            return self.keep_ahead(unit, size, position, True)
        if kind == SEI:
            self.recovery |= has_recovery_point(unit, size)
            return self.keep_ahead(unit, size, position, False)
        if kind == DELIMITER or PREFIX <= kind <= RESERVED_PREFIX:
            return self.keep_ahead(unit, size, position, kind == DELIMITER)
        if END_OF_SEQUENCE <= kind <= FILLER:
            return 0
        return self.keep_unit(unit, size)

    cdef int take_slice(self, const uint8_t* unit, size_t size, int64_t position) except -1:
        cdef H264Slice slice
        cdef const H264Sequence* sequence
        if not read_h264_slice(unit, size, self.sequences, self.pictures, &slice):
            return 0
        sequence = &self.sequences[self.pictures[slice.picture_set].sequence]
        if self.current is not None and self.is_second_field(&slice):
            self.one_field = False
            self.current.order = min(self.current.order, self.order_of(&slice, sequence))
        elif self.current is None or slice.first_macroblock == 0 or h264_differs(&slice, &self.last, sequence):
            self.start_picture(&slice, sequence, position)
        self.last = slice
        return self.keep_unit(unit, size)

    cdef bint is_second_field(self, const H264Slice* slice) noexcept:
        return (
            self.one_field and slice.field and slice.bottom != self.last.bottom
            and slice.frame_number == self.last.frame_number and (self.last.idr or not slice.idr)
        )

    cdef int64_t order_of(self, const H264Slice* slice, const H264Sequence* sequence) noexcept:
        return self.epoch * (<int64_t> 1 << EPOCH_SHIFT) + h264_order(slice, sequence, &self.order)

    cdef int start_picture(self, const H264Slice* slice, const H264Sequence* sequence, int64_t position) except -1:
        cdef bint intra = slice.type == 2 or slice.type == 4 or slice.type == 7 or slice.type == 9
        self.start_access_unit(position)
        self.set_rate(sequence.rate, sequence.rate_period)
        if sequence.reorder >= 0:
            self.set_depth(sequence.reorder)
        if slice.idr:
            self.epoch += 1
        self.current.order = self.order_of(slice, sequence)
        self.current.key = slice.idr or self.recovery or (self.has_sequence and intra)
        self.recovery = self.has_sequence = False
        self.one_field = slice.field
        return 0


cdef class HevcStreamDemuxer(AnnexBDemuxer):
    """The HEVC half of the engine."""

    cdef HevcSequence[16] sequences
    cdef HevcPicture[64] pictures
    cdef int64_t high
    cdef int lsb
    cdef bint begun             # no IRAP picture that follows begins the order counts anew by being the first

    def video_set(self, unit):
        """Take a video parameter set and return its number. Raises RemoteProtocolError."""
        raise NotImplementedError

    cdef int restart_order(self) except -1:
        self.begun = False
        return 0

    cdef object learn(self, bytes unit, int kind):
        if kind == HEVC_VPS:
            return self.video_set(unit)
        if kind == HEVC_PPS:
            number, sequence, dependent, output, extra = self.picture_set(unit)
            self.pictures[number] = HevcPicture(True, sequence, dependent, output, extra)
            return number
        number, planes, log2_order, reorder, rate, period = self.sequence(unit)
        self.sequences[number] = HevcSequence(True, planes, log2_order, reorder, rate, period)
        return number

    cdef int take_unit(self, const uint8_t* unit, size_t size, int64_t position) except -1:
        cdef int kind = unit[0] >> 1 & 63
        if size < 3:
            if kind == HEVC_END_OF_SEQUENCE or kind == HEVC_END_OF_SEQUENCE + 1:
                self.begun = False
            return 0
        if (unit[0] & 1) << 5 | unit[1] >> 3:       # a layer above the base
            return self.keep_unit(unit, size)
        if kind <= LAST_VCL:
            return self.take_slice(unit, size, position, kind)
        if HEVC_VPS <= kind <= HEVC_PPS:
            self.take_set(unit, size, kind)
            return self.keep_ahead(unit, size, position, True)
        if kind == HEVC_DELIMITER:
            return self.keep_ahead(unit, size, position, True)
        if kind == PREFIX_SEI or 41 <= kind <= 44 or 48 <= kind <= 55:
            return self.keep_ahead(unit, size, position, False)
        if kind <= HEVC_FILLER:
            return 0
        return self.keep_unit(unit, size)

    cdef int take_slice(self, const uint8_t* unit, size_t size, int64_t position, int kind) except -1:
        cdef HevcSlice slice
        cdef const HevcSequence* sequence
        if not read_hevc_slice(unit, size, self.sequences, self.pictures, &slice):
            return 0
        if slice.first:
            sequence = &self.sequences[self.pictures[slice.picture_set].sequence]
            self.start_access_unit(position)
            self.set_rate(sequence.rate, sequence.rate_period)
            self.set_depth(sequence.reorder)
            self.current.key = BLA_FIRST <= kind <= IRAP_LAST
            self.current.order = self.order_of(&slice, sequence, kind, (unit[1] & 7) - 1)
        return self.keep_unit(unit, size)

    cdef int64_t order_of(self, const HevcSlice* slice, const HevcSequence* sequence, int kind, int layer) noexcept:
        """Return the order of a picture. layer: temporal.   Spec: H.265 clause 8.3.1."""
        cdef int64_t span = <int64_t> 1 << sequence.log2_order
        cdef int64_t high = self.high
        if BLA_FIRST <= kind <= IRAP_LAST and (kind <= IDR_N_LP or not self.begun):
            self.epoch += 1
            high = 0
        elif slice.order_lsb < self.lsb and self.lsb - slice.order_lsb >= span // 2:
            high += span
        elif slice.order_lsb > self.lsb and slice.order_lsb - self.lsb > span // 2:
            high -= span
        self.begun = True
        if layer == 0 and not RADL_N <= kind <= RASL_R and not (kind <= LAST_SUB_LAYER_NON_REFERENCE and kind % 2 == 0):
            self.high, self.lsb = high, slice.order_lsb
        return self.epoch * (<int64_t> 1 << EPOCH_SHIFT) + high + slice.order_lsb


@cython.final
cdef class AnnexBMuxer(Muxer):
    """Writes H.264 or HEVC as a byte stream, with parameter sets before every keyframe that has none in it.

    keys_only: leave out all but keyframes. Raises UnsupportedError for anything but one such track.
    """

    cdef bint keys_only
    cdef bint hevc
    cdef bytes setup

    def __init__(self, tracks, bint keys_only=False):
        self.keys_only = keys_only
        self.load(tracks)

    cdef int load(self, object tracks) except -1:
        if len(tracks) != 1 or tracks[0].codec not in ("H264", "HEVC"):
            told = ", ".join(info.codec for info in tracks) or "nothing"
            raise UnsupportedError(f"a byte stream holds one track of H264 or HEVC, not {told}")
        self.hevc = tracks[0].codec == "HEVC"
        self.setup = (parameter_sets_hevc if self.hevc else parameter_sets_h264)(tracks[0].init_data)
        return 0

    def set_tracks(self, tracks):
        """Go on with new parameter sets. Raises UnsupportedError."""
        self.load(tracks)
        return True

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef uint64_t wanted = <uint64_t> 7 << HEVC_VPS if self.hevc else <uint64_t> 3 << SPS
        cdef size_t offset = 0
        cdef NalUnit unit
        cdef bint setup = packet.flags & KEYFRAME
        cdef bint delimiter
        if track != 0:
            raise LocalProtocolError(f"the muxer has no track {track}")
        if self.keys_only and not setup:
            return 0
        if setup:
            setup = type_mask(packet.data, packet.size, 4, self.hevc) & wanted != wanted
        while next_length_prefixed(packet.data, packet.size, &offset, 4, &unit) == 1:
            delimiter = unit.data[0] >> 1 & 63 == HEVC_DELIMITER if self.hevc else unit.data[0] & 31 == DELIMITER
            if setup and not delimiter:
                self.out.append(<const uint8_t*> PyBytes_AS_STRING(self.setup), <size_t> PyBytes_GET_SIZE(self.setup))
                setup = False
            self.write_unit(&unit)
        return 0

    cdef int write_unit(self, const NalUnit* unit) except -1:
        cdef uint8_t* place = self.out.reserve(unit.size + 4)
        place[0] = place[1] = place[2] = 0
        place[3] = 1
        memcpy(place + 4, unit.data, unit.size)
        self.out.commit(unit.size + 4)
        return 0
