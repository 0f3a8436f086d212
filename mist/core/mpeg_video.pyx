"""MPEG-1 and MPEG-2 video elementary streams: read into pictures with times, and written.

Spec: ISO/IEC 13818-2 clauses 6.1.1, 6.2 and 6.3.9.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t

from mist.core.muxer cimport Muxer
from mist.core.nal cimport find_start_code
from mist.core.packet cimport PacketView
from mist.core.picture_stream cimport PictureStreamDemuxer

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError

MAX_UNIT_BYTES = UNIT_LIMIT
MAX_GARBAGE_BYTES = GARBAGE_LIMIT

cdef enum:
    UNIT_LIMIT = 32 << 20
    GARBAGE_LIMIT = 1 << 20     # before the first sequence header
    EPOCH_SHIFT = 40
    REFERENCE_SPAN = 1024       # temporal_reference has 10 bits

cdef enum:                      # start codes, table 6-1, and extension numbers, table 6-2
    PICTURE_CODE = 0x00
    LAST_SLICE_CODE = 0xAF
    SEQUENCE_CODE = 0xB3
    EXTENSION_CODE = 0xB5
    GROUP_CODE = 0xB8
    PICTURE_EXTENSION = 8
    FRAME_STRUCTURE = 3


cdef class MpegVideoStreamDemuxer(PictureStreamDemuxer):
    """Finds pictures by their start codes; their times come from the frame rate, their order from the temporal references.

    Two field pictures are one packet. Subclasses implement `describe`. What stands before the first sequence header is dropped.
    """

    cdef bint aligned
    cdef size_t scanned
    cdef bint sliced            # the current picture has slices
    cdef bint has_picture       # … or its picture header at least
    cdef bint one_field
    cdef bint in_sequence       # a sequence header is being gathered
    cdef bint grouped           # the current picture begins a group
    cdef size_t sequence_size   # bytes of it at the start of the current picture
    cdef bytes sequence
    cdef int reference
    cdef int64_t high
    cdef int64_t epoch

    def describe(self, sequence, info):
        """Return (TrackInfo, pictures, in so many seconds, low delay). sequence: the headers. Raises RemoteProtocolError."""
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Go on with the picture at a position. dts_us: its decode time, microseconds."""
        PictureStreamDemuxer.seek(self, dts_us, position)
        self.aligned = self.sliced = self.has_picture = self.one_field = self.in_sequence = False
        self.scanned = 0
        self.high = 0
        self.reference = 0
        self.epoch += 1

    cdef int finish(self) except -1:
        if not self.has_picture:
            self.current = None
        self.close_mpeg_picture()
        PictureStreamDemuxer.finish(self)
        if not self.tracks:
            raise RemoteProtocolError("the input holds no sequence header with a picture", offset=0)
        return 0

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t search, following
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
            following = min(size, find_start_code(data, size, search))
            if following >= size and not over:
                if size - at > UNIT_LIMIT:
                    raise LimitExceededError(f"over {UNIT_LIMIT} bytes between start codes", offset=self.base)
                self.scanned = size - at - 2 if size - at > 5 else 0
                return at
            if following > at + 3:
                self.take_unit(data + at, following - at, self.base + <int64_t> at)
            at = following
        return size

    cdef int take_unit(self, const uint8_t* unit, size_t size, int64_t position) except -1:
        """Take a start code and what follows it, up to the next."""
        cdef uint8_t code = unit[3]
        cdef bint header = code == SEQUENCE_CODE or code == GROUP_CODE or code == PICTURE_CODE
        if header and self.sliced and not (code == PICTURE_CODE and self.one_field):
            self.close_mpeg_picture()
        if self.current is None:
            if not header or (code != SEQUENCE_CODE and self.sequence is None):
                return 0
            self.begin_picture(position)
        if code == SEQUENCE_CODE:
            self.in_sequence = True
            self.sequence_size = self.current.data.size
        if code == GROUP_CODE or code == PICTURE_CODE:
            self.in_sequence = False
        if code == GROUP_CODE:
            self.grouped = True
        elif code == PICTURE_CODE:
            self.take_picture_header(unit, size)
        elif code == EXTENSION_CODE and size > 6 and unit[4] >> 4 == PICTURE_EXTENSION and not self.sliced:
            self.one_field = unit[6] & 3 != FRAME_STRUCTURE
        elif code <= LAST_SLICE_CODE and self.has_picture:
            self.sliced = True
        self.check_size(size)
        self.current.data.append(unit, size)
        if self.in_sequence:
            self.sequence_size = self.current.data.size
        return 0

    cdef int take_picture_header(self, const uint8_t* unit, size_t size) except -1:
        cdef int reference
        if self.has_picture or size < 6:
            self.one_field = False      # this is the second field
            return 0
        self.has_picture = True
        reference = unit[4] << 2 | unit[5] >> 6
        if self.grouped:
            self.epoch += 1
            self.high = 0
        elif reference < self.reference and self.reference - reference >= REFERENCE_SPAN // 2:
            self.high += REFERENCE_SPAN
        elif reference > self.reference and reference - self.reference > REFERENCE_SPAN // 2:
            self.high -= REFERENCE_SPAN
        self.reference = reference
        self.current.order = self.epoch * (<int64_t> 1 << EPOCH_SHIFT) + self.high + reference
        self.current.key = self.sequence_size > 0 and unit[5] >> 3 & 7 == 1
        return 0

    cdef int close_mpeg_picture(self) except -1:
        cdef bytes sequence
        if self.current is not None and self.sequence_size:
            sequence = PyBytes_FromStringAndSize(<const char*> self.current.data.data, <Py_ssize_t> self.sequence_size)
            if sequence != self.sequence:
                self.take_sequence(sequence)
        self.sliced = self.has_picture = self.one_field = self.grouped = self.in_sequence = False
        self.sequence_size = 0
        return self.close_picture()

    cdef int take_sequence(self, bytes sequence) except -1:
        known = self.tracks[0] if self.tracks else None
        try:
            info, rate, period, low_delay = self.describe(sequence, known)
        except RemoteProtocolError:
            return 0
        self.sequence = sequence
        self.set_rate(rate, period)
        self.set_depth(0 if low_delay else 1)
        if info != known:
            self.current.info = info
        return 0


@cython.final
cdef class MpegVideoMuxer(Muxer):
    """Writes MPEG video packets one after the other. Raises UnsupportedError for anything but one track of it."""

    def __init__(self, tracks):
        self.check(tracks)

    cdef int check(self, object tracks) except -1:
        if len(tracks) != 1 or tracks[0].codec != "MPEG2":
            told = ", ".join(info.codec for info in tracks) or "nothing"
            raise UnsupportedError(f"an MPEG video stream holds one track of MPEG2, not {told}")
        return 0

    def set_tracks(self, tracks):
        """Go on with a changed track; its sequence headers are in the packets."""
        self.check(tracks)
        return True

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if track != 0:
            raise LocalProtocolError(f"the muxer has no track {track}")
        return self.out.append(packet.data, packet.size)
