"""The FLV demuxer: bytes of a file or stream in, packets out.

Frames whose codec is known and needs no second look go from the fed bytes straight into the sink. Everything else (set-ups, metadata,
multitrack bodies, repairs) goes through `take_media` and `take_script`, which know the formats and are written in Python.

Specs: Adobe Flash Video File Format 10.1 annex E ("FLV E.2"), Enhanced RTMP v2 ("E-RTMP v2").
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memmove
from posix.types cimport off_t

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.flv cimport AUDIO_TAG, SCRIPT_TAG, VIDEO_TAG
from mist.core.flv_bodies cimport (
    AV1_UNITS,
    H264_UNITS,
    HEVC_UNITS,
    WHOLE_FRAME,
    coded_frame,
    framing_of,
    u24,
    u32,
)
from mist.core.nal cimport type_mask
from mist.core.packet cimport DISCONTINUITY, KEYFRAME, NEW_INIT, Packet, PacketView
from mist.core.timeline cimport Timeline

from mist.core.demuxer import READ_BYTES
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* data, size_t size, off_t position)

cdef enum:
    TAG_HEAD_BYTES = 11
    BACK_BYTES = 4              # the size of the tag before, in front of every tag
    START_BYTES = BACK_BYTES + TAG_HEAD_BYTES
    SCRIPT_HEAD_BYTES = TAG_HEAD_BYTES + 13
    FILE_HEAD_BYTES = 9
    MAX_FILE_HEAD_BYTES = 4096
    HAS_VIDEO = 1               # flags of the file header, FLV E.2
    HAS_AUDIO = 4
    ENCRYPTED = 0x20            # "filter" bit of a tag's type, FLV E.4.1
    WAIT_MS = 3000              # how much media may pass before announced tracks are given up
    WAIT_BYTES = 16 << 20
    MAX_TAG_BYTES = TAG_HEAD_BYTES + 0xFFFFFF
    H264_SETS = 0x180           # parameter sets, as bits 1 << NAL unit type
    TEMPORAL_DELIMITER = 2      # OBU type

cdef uint8_t[BACK_BYTES] NO_BACK = [0, 0, 0, 0]
cdef uint32_t FIRST_NEGATIVE_MS = 0xFFFF0000     # a first time from here on is meant to be below zero
cdef uint64_t HEVC_SETS = <uint64_t> 7 << 32


def has_data(int fd):
    """Tell whether an open FLV file has script data besides what describes its media; what is no FLV has none.

    Cost: a read of some bytes for each tag.   Spec: FLV E.4.1, E.4.4.
    """
    cdef uint8_t[SCRIPT_HEAD_BYTES] head
    cdef off_t at
    if pread(fd, head, SCRIPT_HEAD_BYTES, 0) < FILE_HEAD_BYTES or memcmp(head, b"FLV", 3):
        return False
    at = <off_t> u32(head + 5) + 4
    while pread(fd, head, SCRIPT_HEAD_BYTES, at) == SCRIPT_HEAD_BYTES:
        if head[0] == SCRIPT_TAG and memcmp(head + TAG_HEAD_BYTES, b"\x02\0\x0aonMetaData", 13):
            if memcmp(head + TAG_HEAD_BYTES, b"\x02\0\x0d@setDataFr", 13):
                return True
        at += TAG_HEAD_BYTES + u24(head + 1) + 4
    return False


cdef class FlvDemuxer(Demuxer):
    """Demuxes FLV. A subclass says what bodies mean.

    It implements `take_media` and `take_script`, and calls `put_track` and `put` in the order of the wire.

    A file that is cut inside a tag ends before that tag. Behind a tag whose size is wrong reading goes on at the next one.
    Times are unwrapped beyond 32 bits of milliseconds and made increasing.
    Raises RemoteProtocolError for what is not FLV, UnsupportedError for encrypted tags. Bound: one tag (16 MiB) is kept, and what
    `Demuxer` holds back.
    """

    def __cinit__(self, *args, **kwargs):
        self.timeline = Timeline()
        self.rest = ByteBuffer()
        self.changed = set()

    def want(self):
        """Return what comes next in the input, or None at its end."""
        return None if self.ended else (self.at, READ_BYTES)

    def feed(self, data):
        """Take the bytes that follow; none: the input ends."""
        cdef const uint8_t[::1] view = data
        cdef const uint8_t* source
        cdef size_t size = <size_t> view.shape[0]
        cdef size_t place = 0
        cdef size_t need, count
        if not size:
            self.finish()
            return
        source = &view[0]
        while place < size:
            if self.skip:
                count = min(self.skip, size - place)
                self.skip -= count
                place += count
            elif self.lost:
                place += self.find_tag(source + place, size - place, self.at + <int64_t> place)
            elif self.rest.size:
                need = self.needed(self.rest.data, self.rest.size)
                count = min(need - self.rest.size, size - place)
                self.rest.append(source + place, count)
                place += count
                if self.rest.size < self.needed(self.rest.data, self.rest.size):
                    continue
                if not self.is_next(self.rest.data):
                    self.lose(self.at + <int64_t> place - TAG_HEAD_BYTES)
                else:
                    self.structure(self.rest.data, self.rest.size, self.at + <int64_t> place - <int64_t> self.rest.size)
                    self.rest.clear()
            else:
                need = self.needed(source + place, size - place)
                if need > size - place:
                    self.rest.append(source + place, size - place)
                    break
                if not self.is_next(source + place):
                    self.lose(self.at + <int64_t> place + BACK_BYTES)
                else:
                    self.structure(source + place, need, self.at + <int64_t> place)
                    place += need
        self.at += <int64_t> size

    cdef size_t needed(self, const uint8_t* data, size_t have) except 0:
        """Return how many bytes the structure at data has, or as many as tell."""
        if not self.begun:
            return FILE_HEAD_BYTES
        if have < START_BYTES or not self.is_next(data):
            return START_BYTES
        return START_BYTES + u24(data + BACK_BYTES + 1)

    cdef bint is_next(self, const uint8_t* data) noexcept:
        """Tell whether a tag begins here, behind the size of the one before, which some writers get wrong.

        Where that size is right, the tag may be of a type or of a stream that should not be.
        """
        cdef const uint8_t* head = data + BACK_BYTES
        cdef bint right = self.back_bytes and u32(data) == self.back_bytes
        if not self.begun:
            return True
        if u24(head + 8):
            return right and is_tag(head) and not head[0] & ENCRYPTED
        return is_tag(head) or (right and not head[0] & 0xC0)

    cdef int lose(self, int64_t position) except -1:
        """Begin to look for the next tag: there is none where one should be.   Spec: FLV E.4.1."""
        self.lost = True
        self.lost_at = position
        return 0

    cdef size_t find_tag(self, const uint8_t* data, size_t size, int64_t position) except? 0:
        """Look byte by byte for the next tag, and return how many bytes were taken; `rest` has its head when it is found."""
        cdef size_t at = 0
        while at < size and self.lost:
            if self.rest.size == START_BYTES:
                self.rest.size -= 1
                memmove(self.rest.data, self.rest.data + 1, self.rest.size)
            self.rest.append(data + at, 1)
            at += 1
            self.lost = self.rest.size < START_BYTES or not is_start(self.rest.data)
        self.passed_bytes += at
        if not self.lost:
            self.passed_bytes = 0
            self.note_lost(position + <int64_t> at - TAG_HEAD_BYTES)
        elif not self.ready and self.passed_bytes > MAX_TAG_BYTES:
            raise RemoteProtocolError(
                f"no FLV tag in {self.passed_bytes} bytes", offset=position + <int64_t> at - self.passed_bytes, spec="FLV E.3"
            )
        return at

    cdef int note_lost(self, int64_t found) except -1:
        """Write down what was passed over to where a tag was found."""
        return self.note_damage(self.lost_at, found - self.lost_at, "no FLV tag; passed over up to the next one")

    cdef int structure(self, const uint8_t* data, size_t size, int64_t position) except -1:
        if not self.begun:
            return self.file_header(data)
        self.back_bytes = <uint32_t> size - BACK_BYTES
        return self.tag(data + BACK_BYTES, size - BACK_BYTES, position + BACK_BYTES)

    cdef int file_header(self, const uint8_t* data) except -1:
        """Take the file header (FLV E.2)."""
        cdef uint32_t size = u32(data + 5)
        if data[0] != 70 or data[1] != 76 or data[2] != 86:
            raise RemoteProtocolError("no FLV signature", offset=0, spec="FLV E.2")
        if size < FILE_HEAD_BYTES or size > MAX_FILE_HEAD_BYTES:
            raise RemoteProtocolError(f"FLV header of {size} bytes", offset=5, spec="FLV E.2")
        self.announced = data[4] & (HAS_VIDEO | HAS_AUDIO)
        self.skip = size - FILE_HEAD_BYTES
        self.begun = True
        return 0

    cdef int tag(self, const uint8_t* data, size_t size, int64_t position) except -1:
        """Take one whole tag (FLV E.4.1)."""
        cdef int kind = data[0] & 0x1F
        cdef const uint8_t* body = data + TAG_HEAD_BYTES
        size -= TAG_HEAD_BYTES
        if data[0] & ENCRYPTED:
            raise UnsupportedError("encrypted FLV tag", offset=position, spec="FLV E.4.1")
        if kind != AUDIO_TAG and kind != VIDEO_TAG and kind != SCRIPT_TAG:
            return 0
        self.position = position
        if kind == SCRIPT_TAG:
            script = PyBytes_FromStringAndSize(<const char*> body, <Py_ssize_t> size)
            self.take_script(self.near(u24(data + 4) | (<uint32_t> data[7] << 24)), script)
            return 0
        self.unwrap(u24(data + 4) | (<uint32_t> data[7] << 24))
        self.frame_video = kind == VIDEO_TAG
        self.framed = coded_frame(body, size, self.frame_video, &self.frame)
        if not self.ready:
            self.media_bytes += size
            if self.framed:
                self.check_ready()
        if self.framed and self.quick():
            return 0
        self.forget()
        self.take_media(kind, self.time_ms, PyBytes_FromStringAndSize(<const char*> body, <Py_ssize_t> size))
        self.framed = False
        return 0

    cdef int64_t near(self, uint32_t time_ms) noexcept:
        """Return the time that is nearest to the last media tag's."""
        if self.has_time:
            return self.time_ms + <int32_t> (time_ms - <uint32_t> self.time_ms)
        return <int64_t> time_ms - (<int64_t> 1 << 32 if time_ms >= FIRST_NEGATIVE_MS else 0)

    cdef int unwrap(self, uint32_t time_ms) noexcept:
        """Set the time to that of a media tag."""
        self.time_ms = self.near(time_ms)
        self.has_time = True
        return 0

    cdef bint quick(self) except -1:
        """Write the frame at hand if it needs nothing but that; False for all others."""
        cdef PacketView view
        cdef const KnownCodec* known
        cdef uint64_t types
        cdef int place
        self.matched = False
        for place in range(self.known_count):
            known = &self.known[place]
            if known.codec == self.frame.codec and known.video == self.frame_video:
                break
        else:
            return False
        self.matched = True
        if known.framing == H264_UNITS or known.framing == HEVC_UNITS:
            types = type_mask(self.frame.data, self.frame.size, 4, known.framing == HEVC_UNITS)
            if not types or types & (H264_SETS if known.framing == H264_UNITS else HEVC_SETS):
                return False
        elif known.video and self.frame.keyframe:
            return False    # may tell a new picture size
        elif known.framing == AV1_UNITS and self.frame.data[0] >> 3 & 15 == TEMPORAL_DELIMITER:
            return False
        view.dts_us = self.time_ms * 1000
        view.offset_us = self.frame.offset_us
        view.flags = KEYFRAME if self.frame.keyframe else 0
        view.data = self.frame.data
        view.size = self.frame.size
        self.place(known.track, &view)
        self.emit(known.track, &view)
        return True

    cdef int forget(self) except -1:
        """Trust no more what the body at hand may change: all, or for a frame in another codec the tracks of its type."""
        cdef int place, kept = 0
        if self.framed and self.matched:
            return 0
        for place in range(self.known_count):
            if self.framed and self.known[place].video != self.frame_video:
                self.known[kept] = self.known[place]
                kept += 1
        self.known_count = kept
        return 0

    cdef int place(self, int track, PacketView* view) except -1:
        """Put the packet's time on the timeline; a packet that is moved alone keeps its presentation time, if it can."""
        view.dts_us = self.timeline.place(track, view.dts_us)
        self.shift_us = self.timeline.shift_us
        if self.timeline.jumped:
            view.flags |= DISCONTINUITY
        if self.timeline.moved_us and view.offset_us > 0:
            view.offset_us = max(<int64_t> 0, view.offset_us - self.timeline.moved_us)
        return 0

    def take_media(self, int tag_type, int64_t time_ms, bytes body):
        """Take the body of an audio (8) or video (9) tag whose time is unwrapped, milliseconds."""
        raise NotImplementedError

    def take_script(self, int64_t time_ms, bytes body):
        """Take the body of a script data tag whose time is unwrapped, milliseconds."""
        raise NotImplementedError

    def take_ready(self):
        """Make known what is to be known before the first packet is written: the other tracks are."""

    def take_end(self):
        """Write what is still to be written: the input ends."""

    def put_track(self, int track, info):
        """Make known, or change, what a track is."""
        self.known_count = 0
        self.found |= {"video": HAS_VIDEO, "audio": HAS_AUDIO}.get(info.type, 0)
        if track < len(self.tracks):
            self.changed.add(track)
        self.set_track(track, info, track < len(self.tracks))

    def put(self, Packet packet not None):
        """Write one packet of a track that is known. Its time is the tag's own."""
        cdef PacketView view
        packet.view(&view)
        if packet.track in self.changed:
            self.changed.discard(packet.track)
            view.flags |= NEW_INIT
        if self.tracks[packet.track].type == "meta":
            view.dts_us = self.timeline.follow(packet.track, view.dts_us)
        else:
            self.learn(packet)
            self.place(packet.track, &view)
        self.emit(packet.track, &view)

    cdef int learn(self, Packet packet) except -1:
        """Remember that frames like the one at hand are this track's packets, if this one is as it stood."""
        cdef KnownCodec* known
        if not self.framed or self.known_count >= MAX_KNOWN or <size_t> PyBytes_GET_SIZE(packet.payload) != self.frame.size:
            return 0
        if memcmp(PyBytes_AS_STRING(packet.payload), self.frame.data, self.frame.size):
            return 0
        known = &self.known[self.known_count]
        known.codec = self.frame.codec
        known.video = self.frame_video
        known.framing = framing_of(known.codec) if known.video else WHOLE_FRAME
        known.track = packet.track
        self.known_count += 1
        return 0

    cdef int check_ready(self) except -1:
        """Say that the tracks are known: all that the file header announced, or all that came in WAIT_MS."""
        if not self.has_first:
            self.has_first = True
            self.first_ms = self.time_ms
        if (
            (self.announced and self.announced & ~self.found == 0)
            or self.time_ms - self.first_ms > WAIT_MS
            or self.media_bytes > WAIT_BYTES
        ):
            self.take_ready()
            self.become_ready()
        return 0

    cdef int finish(self) except -1:
        """End the input; an incomplete tag is left out."""
        if not self.begun:
            raise TruncatedError("the input ends inside the FLV header", offset=self.at, spec="FLV E.2")
        self.ended = True
        if self.lost:
            self.note_lost(self.at)
        elif self.rest.size > BACK_BYTES:
            self.note_damage(
                self.at - <int64_t> self.rest.size + BACK_BYTES, <int64_t> self.rest.size - BACK_BYTES, "the input ends inside this tag"
            )
        if not self.ready:
            self.take_ready()
        self.take_end()
        if not self.ready:
            self.become_ready()
        return 0

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at the tag at position, whose decode time is about dts_us."""
        self.at = position
        self.rest.clear()
        if position > 0:
            self.rest.append(NO_BACK, BACK_BYTES)   # in the place of what stands before the tag
        self.skip = 0
        self.lost = False
        self.back_bytes = 0
        self.begun = position > 0
        self.ended = False
        self.timeline.know(self.bases)
        self.time_ms = (dts_us - self.timeline.shift_us) // 1000
        self.has_time = True
        self.timeline.resume(dts_us)


cdef inline bint is_tag(const uint8_t* head) noexcept:
    """Tell whether a tag's head is of a type that there is.   Spec: FLV E.4.1."""
    cdef int kind = head[0] & ~ENCRYPTED
    return kind == AUDIO_TAG or kind == VIDEO_TAG or kind == SCRIPT_TAG


cdef inline bint is_start(const uint8_t* data) noexcept:
    """Tell whether a tag begins in the middle of something: behind the size of another one, with a body, not encrypted."""
    cdef uint32_t back = u32(data)
    cdef const uint8_t* head = data + BACK_BYTES
    return TAG_HEAD_BYTES <= back <= MAX_TAG_BYTES and is_tag(head) and not (head[0] & ENCRYPTED or u24(head + 8)) and u24(head + 1) > 0
