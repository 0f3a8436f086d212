"""Audio elementary streams: files of MP3, ADTS, AC-3, E-AC-3 and DTS frames read and written.

Times come from counting samples, so they are exact however long the file is.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcpy

from mist.core.audio_headers cimport (
    FRAME,
    LOOK_BYTES,
    NO_FRAME,
    REFUSED,
    FrameHead,
    is_info_frame,
    read_ac3,
    read_adts,
    read_dts,
    read_mpeg,
    tag_bytes,
)
from mist.core.byte_stream cimport ByteStreamDemuxer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, PacketView

from mist.errors import LocalProtocolError, RemoteProtocolError, UnsupportedError

MAX_GARBAGE_BYTES = 1 << 20     # before the first frame; damage after it is passed over however long it is
MAX_JOINED_FRAMES = JOINED_LIMIT
MAX_PACKET_BYTES = PACKET_LIMIT

cdef enum:
    JOINED_LIMIT = 64           # 8 independent substreams with 7 dependent ones each, ETSI TS 102 366 clause E.1.3.1.2
    PACKET_LIMIT = 1 << 20      # of joined frames: many times what a second of them has
    ADTS_MAX_BYTES = 8191
    WAIT = -1

FORMATS = {
    "mpeg": "MPEG audio",
    "adts": "ADTS",
    "ac3": "AC-3",
    "dts": "DTS",
}
cdef dict REFUSALS = {
    "mpeg": "MPEG audio of layer I or of free format",
    "adts": "ADTS frames of several AAC frames without the table of their places",
    "ac3": "",
    "dts": "DTS in another form than 16-bit words with the most significant byte first",
}


cdef class AudioFrameDemuxer(ByteStreamDemuxer):
    """Reads frames that follow each other; what is between them is passed over.

    A subclass names the format ("mpeg", "adts", "ac3" or "dts") and implements `describe`. The first frame, and one that differs from those
    before it, counts only when another one of its kind follows it. ID3 and APE tags are passed over wherever a frame may begin.

    `seek(dts_us, position)` takes dts_us for the time of the frame at position: frames say no time.
    """

    def __init__(self, str format not None):
        self.set_form(format)

    cdef int set_form(self, str format) except -1:
        """Say which frames these are, by a key of FORMATS."""
        self.format = format
        self.mpeg = format == "mpeg"
        self.joins = format == "ac3" or format == "dts"
        self.clean = True
        self.info_position = -1
        if self.mpeg:
            self.read = read_mpeg
        elif format == "adts":
            self.read = read_adts
        elif format == "ac3":
            self.read = read_ac3
        elif format == "dts":
            self.read = read_dts
        else:
            raise LocalProtocolError(f"no audio frames of the format {format}")
        return 0

    def describe(self, frame):
        """Return the TrackInfo that a frame tells.

        frame: with its header, and the frames joined to it. Raises RemoteProtocolError.
        """
        raise NotImplementedError

    def seek(self, int64_t dts_us, int64_t position):
        """Go on with the frame at a position. dts_us: its time, microseconds."""
        self.restart(position)
        self.locked = self.hunting = False
        self.trusted = True
        self.base_us = 0
        self.samples = (dts_us * self.rate_hz + 500000) // 1000000 if self.rate_hz else 0
        if self.now_us() != dts_us:     # the sample rate was, or will be, another one there
            self.base_us = dts_us
            self.samples = 0

    cdef int finish(self) except -1:
        if not self.tracks:
            raise RemoteProtocolError(f"the input holds no {FORMATS[self.format]} frame", offset=0)
        return 0

    cdef size_t parse(self, const uint8_t* data, size_t size, bint over) except? 0xFFFFFFFF:
        cdef size_t at = 0
        cdef size_t length, end
        cdef int found
        cdef FrameHead head
        while at < size:
            if self.hunting:
                length = at
                at = self.find(data, at, size)
                self.garbage += <int64_t> (at - length)
                if not self.tracks and self.garbage > MAX_GARBAGE_BYTES:
                    raise RemoteProtocolError(
                        f"no {FORMATS[self.format]} frame in {self.garbage} bytes", offset=self.base + <int64_t> at
                    )
                if at >= size:
                    return at
            if not over and size - at < LOOK_BYTES:
                return at
            length = 0 if self.hunting else tag_bytes(data + at, size - at)
            if length:
                at += length
                continue
            found = self.accept(data + at, size - at, over, &head, &end)
            if found == WAIT:
                return at
            self.hunting = found != FRAME
            if self.hunting:
                self.clean = self.locked = self.trusted = False
                self.garbage += 1
                at += 1
            else:
                self.write_frame(data + at, end, &head, self.base + <int64_t> at)
                at += end
        return at

    cdef size_t find(self, const uint8_t* data, size_t begin, size_t size) noexcept:
        """Return the next place where a frame or a tag may begin."""
        cdef const void* found
        cdef size_t at = begin
        if self.mpeg or self.read == read_adts:
            found = memchr(data + begin, 0xFF, size - begin) if begin < size else NULL
            return size if found is NULL else <size_t> (<const uint8_t*> found - data)
        while at < size:
            if data[at] == (0x0B if self.read == read_ac3 else 0x7F):
                return at
            at += 1
        return at

    cdef int accept(self, const uint8_t* data, size_t size, bint over, FrameHead* head, size_t* end) except -2:
        """Return FRAME with the end of the packet that begins at data, NO_FRAME, or WAIT for more bytes."""
        cdef FrameHead following
        cdef size_t count = 0
        cdef int found = self.read(data, size, head)
        if found == REFUSED and self.clean and REFUSALS[self.format]:
            raise UnsupportedError(f"{REFUSALS[self.format]} is not supported", offset=self.base)
        if found != FRAME or head.joined:
            return NO_FRAME
        end[0] = head.size
        if self.joins:
            while True:
                if size < end[0] + LOOK_BYTES and not over:
                    return WAIT
                if end[0] >= size or self.read(data + end[0], size - end[0], &following) != FRAME or not following.joined:
                    break
                count += 1
                end[0] += following.size
                if count > JOINED_LIMIT or end[0] > PACKET_LIMIT:
                    return NO_FRAME
        if size < end[0]:
            return NO_FRAME if over else WAIT
        if self.trusted or (self.locked and head.key == self.key):
            return FRAME
        if size < end[0] + LOOK_BYTES and not over:
            return WAIT
        return FRAME if self.follows(data + end[0], size - end[0], over, head) else NO_FRAME

    cdef bint follows(self, const uint8_t* data, size_t size, bint over, const FrameHead* head) noexcept:
        """Tell whether what comes after a frame shows that it was one."""
        cdef FrameHead following
        if size == 0 or tag_bytes(data, size):
            return True
        if self.read(data, size, &following) != FRAME:
            return False
        return following.joined or following.key == head.key

    cdef int64_t now_us(self) noexcept:
        if not self.rate_hz:
            return self.base_us
        return self.base_us + (self.samples * 1000000 + self.rate_hz // 2) // self.rate_hz

    cdef int write_frame(self, const uint8_t* data, size_t size, const FrameHead* head, int64_t position) except -1:
        cdef uint32_t flags = KEYFRAME
        cdef bint known = len(self.tracks) > 0
        self.locked = True
        self.trusted = False
        self.position = position
        if self.mpeg and (not known or position == self.info_position) and is_info_frame(data, size):
            self.info_position = position
            self.key = head.key
            return 0
        if not known or head.key != self.key:
            try:
                info = self.describe(PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> size))
            except RemoteProtocolError:
                if not known:
                    raise
                return 0        # damage that looks like a frame
            if known and info != self.tracks[0]:
                flags |= NEW_INIT
            if head.rate_hz != self.rate_hz:
                self.base_us = self.now_us()
                self.samples = 0
                self.rate_hz = head.rate_hz
            self.key = head.key
            if not known or flags & NEW_INIT:
                self.set_track(0, info, known)
            if not known:
                self.become_ready()
        if head.blocks > 1:
            return self.write_blocks(data, size, head, flags)
        return self.write_payload(data + head.header, size - head.header, head.samples, flags)

    cdef int write_blocks(self, const uint8_t* data, size_t size, const FrameHead* head, uint32_t flags) except -1:
        """Write the AAC frames of an ADTS frame, each of which a CRC follows.   Spec: ISO/IEC 14496-3 clause 1.A.3.2.1."""
        cdef size_t place = 0
        cdef size_t following
        cdef size_t payload = size - head.header
        cdef uint32_t number
        cdef const uint8_t* entry = data + 7
        for number in range(head.blocks):
            following = payload
            if number + 1 < head.blocks:
                following = <size_t> entry[0] << 8 | entry[1]
                entry += 2
            if following < place + 3 or following > payload:
                return 0        # the table of places lies; what was good is written
            self.write_payload(data + head.header + place, following - place - 2, head.samples // head.blocks, flags)
            flags = KEYFRAME
            place = following
        return 0

    cdef int write_payload(self, const uint8_t* data, size_t size, uint32_t samples, uint32_t flags) except -1:
        cdef PacketView packet
        packet.dts_us = self.now_us()
        packet.offset_us = 0
        packet.flags = flags
        packet.data = data
        packet.size = size
        self.samples += samples
        return self.emit(0, &packet)


cdef class FrameMuxer(Muxer):
    """Writes the packets of one track one after the other: MP3, MP2, AC-3, E-AC-3, DTS.

    codecs: those that fit. Raises UnsupportedError for anything but one track of them.
    """

    cdef object codecs

    def __init__(self, tracks, codecs):
        self.codecs = codecs
        self.check(tracks)

    cdef int check(self, object tracks) except -1:
        if len(tracks) != 1 or tracks[0].codec not in self.codecs:
            told = ", ".join(info.codec for info in tracks) or "nothing"
            raise UnsupportedError(f"this format holds one track of {' or '.join(self.codecs)}, not {told}")
        return 0

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        if track != 0:
            raise LocalProtocolError(f"the muxer has no track {track}")
        return self.out.append(packet.data, packet.size)

    def set_tracks(self, tracks):
        """Go on with a changed track; frames say themselves what they are. Raises UnsupportedError for further tracks."""
        self.check(tracks)
        return True


cdef class AdtsFrameMuxer(FrameMuxer):
    """Writes AAC frames with ADTS headers; a frame that is too long for one is left out.

    A subclass implements `prefix`.   Spec: ISO/IEC 14496-3 clause 1.A.3.2.
    """

    cdef bytes before

    def __init__(self, tracks):
        super().__init__(tracks, ("AAC",))
        self.before = self.prefix(tracks[0])

    def prefix(self, info):
        """Return what stands before each frame, with a frame length of 0. Raises UnsupportedError, RemoteProtocolError."""
        raise NotImplementedError

    def set_tracks(self, tracks):
        """Go on with a changed track. Raises UnsupportedError."""
        self.check(tracks)
        self.before = self.prefix(tracks[0])
        return True

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef size_t before = <size_t> PyBytes_GET_SIZE(self.before)
        cdef size_t size = before + packet.size
        cdef uint8_t* target
        if track != 0:
            raise LocalProtocolError(f"the muxer has no track {track}")
        if size > ADTS_MAX_BYTES or not packet.size:
            return 0
        target = self.out.reserve(size)
        memcpy(target, PyBytes_AS_STRING(self.before), before)
        target[3] |= <uint8_t> (size >> 11)
        target[4] |= <uint8_t> (size >> 3)
        target[5] |= <uint8_t> ((size & 7) << 5)
        memcpy(target + before, packet.data, packet.size)
        self.out.commit(size)
        return 0
