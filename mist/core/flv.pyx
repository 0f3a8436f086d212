"""FLV and enhanced RTMP tag bodies written, the FLV muxer, and the FLV tag reader.

Parsing of the bodies is in `flv_bodies`; its names are offered here too.
Specs: Adobe Flash Video File Format 10.1 annex E ("FLV E.4.2"), Enhanced RTMP v2 (veovera, "E-RTMP v2").
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.flv_bodies cimport (
    AUDIO_MULTITRACK,
    CODED_FRAMES,
    CODED_FRAMES_X,
    ONE_TRACK,
    SEQUENCE_START,
    VIDEO_MULTITRACK,
    u24,
    u32,
)
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

from mist.core.flv_bodies import (
    AUDIO_FOURCCS,
    AUDIO_IDS,
    CHANNELS,
    END,
    ENHANCED_CODECS,
    FRAME,
    INIT,
    LEGACY_CODECS,
    METADATA,
    RATES_HZ,
    VIDEO_FOURCCS,
    VIDEO_IDS,
    TagPart,
    fourcc_number,
    parse_audio_body,
    parse_video_body,
)
from mist.core.script_data import metadata_body, script_body
from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

__all__ = [
    "CHANNELS", "END", "ENHANCED_CODECS", "FRAME", "INIT", "LEGACY_CODECS", "MAX_TRACKS", "METADATA", "FlvMuxer",
    "FlvReader", "FlvTag", "TagMuxer", "TagPart", "carries", "parse_audio_body", "parse_video_body", "serialize_frame",
    "serialize_init",
]

MAX_TRACKS = MAX_PLANS

cdef enum:
    LEGACY_NAL_FORM = 1     # codec bits, packet type, composition time (FLV E.4.3.1)
    LEGACY_AAC_FORM = 2
    LEGACY_PLAIN_FORM = 3
    ENHANCED_FORM = 4
    SCRIPT_FORM = 5         # a metadata track: each packet is a tag of script data


# -- Serialising

cdef int _make_plan(TagPlan* plan, object info, int number, bint enhanced) except -1:
    """Fill plan for a track. number: its place among the tracks of its type, 0 for the first."""
    cdef bint video = info.type == "video"
    cdef dict fourccs = VIDEO_FOURCCS if video else AUDIO_FOURCCS
    cdef dict legacy = VIDEO_IDS if video else AUDIO_IDS
    codec = info.codec
    plan.track_id = -1
    if codec == "JSON":
        plan.tag_type, plan.form, plan.first, plan.has_offset = SCRIPT_TAG, SCRIPT_FORM, 0, False
        return 0
    plan.tag_type = VIDEO_TAG if video else AUDIO_TAG
    plan.track_id = number if number else -1
    plan.has_offset = codec in ("H264", "HEVC")
    plan.first = 0
    if info.type not in ("video", "audio") or number > 255:
        raise UnsupportedError(f"FLV and RTMP carry no {info.type} track number {number}")
    if number == 0 and codec in legacy:
        plan.first = legacy[codec] if video else _sound_byte(info)
        plan.form = LEGACY_PLAIN_FORM
        if codec == "H264":
            plan.form = LEGACY_NAL_FORM
        elif codec == "AAC":
            plan.form = LEGACY_AAC_FORM
    elif enhanced and codec in fourccs:
        plan.fourcc = fourcc_number(fourccs[codec])
        plan.form = ENHANCED_FORM
    else:
        raise UnsupportedError(f"{'enhanced' if enhanced else 'plain'} FLV and RTMP do not carry {codec} here")
    return 0


cdef int _sound_byte(object info) except -1:
    """Return the first byte of a legacy audio body.   Spec: FLV E.4.2.1."""
    cdef int sound_format = AUDIO_IDS[info.codec]
    cdef int rate = 3
    if sound_format == 10:
        return 0xAF     # fixed by the specification, whatever the AudioSpecificConfig says
    if sound_format == 11:
        return 0xB6     # Speex is 16 kHz mono by definition and says "11 kHz, 16 bits"
    if sound_format == 2 and info.sample_rate_hz == 8000:
        sound_format = 14
    elif info.sample_rate_hz in RATES_HZ:
        rate = RATES_HZ.index(info.sample_rate_hz)
    if sound_format in (7, 8):
        rate = 0
    return (sound_format << 4) | (rate << 2) | 2 | (1 if info.channels > 1 else 0)


cdef bytes _wire_init(object info):
    """Return a track's set-up as the tag bodies carry it; b"" if it has none."""
    if info.codec == "FLAC" and info.init_data:
        return b"fLaC\x80" + len(info.init_data).to_bytes(3, "big") + info.init_data
    return info.init_data


cdef bytes _init_body(const TagPlan* plan, object info):
    """Return the body of a track's sequence header, or b"" if the format or the track has none."""
    cdef bytes setup = _wire_init(info)
    if not setup or plan.form == LEGACY_PLAIN_FORM or plan.form == SCRIPT_FORM:
        return b""
    if plan.form == LEGACY_NAL_FORM:
        return bytes((0x10 | plan.first, 0, 0, 0, 0)) + setup
    if plan.form == LEGACY_AAC_FORM:
        return bytes((plan.first, 0)) + setup
    first = 0x90    # video: enhanced bit and keyframe; audio: SoundFormat ExHeader
    fourcc = int(plan.fourcc).to_bytes(4, "big")
    if plan.track_id < 0:
        return bytes((first | SEQUENCE_START,)) + fourcc + setup
    multitrack = VIDEO_MULTITRACK if plan.tag_type == VIDEO_TAG else AUDIO_MULTITRACK
    return bytes((first | multitrack, (ONE_TRACK << 4) | SEQUENCE_START)) + fourcc + bytes((plan.track_id,)) + setup


cdef size_t _frame_head(const TagPlan* plan, const PacketView* packet, uint8_t* head) noexcept:
    """Write what stands before the payload of a coded frame; return its length, at most MAX_BODY_HEAD_BYTES."""
    cdef int64_t offset_ms
    cdef bint video = plan.tag_type == VIDEO_TAG
    cdef uint8_t frame = 0x10 if packet.flags & KEYFRAME else 0x20
    cdef uint8_t packet_type = CODED_FRAMES
    cdef size_t at = 1
    if plan.form != ENHANCED_FORM:
        head[0] = frame | plan.first if video else plan.first
        if plan.form == LEGACY_PLAIN_FORM:
            return 1
        head[1] = 1
        if plan.form == LEGACY_AAC_FORM:
            return 2
    offset_ms = to_ms(packet.dts_us + packet.offset_us) - to_ms(packet.dts_us)
    offset_ms = max(-0x800000, min(0x7FFFFF, offset_ms))
    if plan.form != ENHANCED_FORM:
        head[2] = (offset_ms >> 16) & 0xFF
        head[3] = (offset_ms >> 8) & 0xFF
        head[4] = offset_ms & 0xFF
        return 5
    if plan.has_offset and offset_ms == 0:
        packet_type = CODED_FRAMES_X
    head[0] = (0x80 | frame) if video else 0x90
    if plan.track_id < 0:
        head[0] |= packet_type
    else:
        head[0] |= VIDEO_MULTITRACK if video else AUDIO_MULTITRACK
        head[1] = (ONE_TRACK << 4) | packet_type
        at = 2
    head[at] = plan.fourcc >> 24
    head[at + 1] = (plan.fourcc >> 16) & 0xFF
    head[at + 2] = (plan.fourcc >> 8) & 0xFF
    head[at + 3] = plan.fourcc & 0xFF
    at += 4
    if plan.track_id >= 0:
        head[at] = plan.track_id & 0xFF
        at += 1
    if plan.has_offset and packet_type == CODED_FRAMES:
        head[at] = (offset_ms >> 16) & 0xFF
        head[at + 1] = (offset_ms >> 8) & 0xFF
        head[at + 2] = offset_ms & 0xFF
        at += 3
    return at


def serialize_init(info, int number=0, bint enhanced=True):
    """Return the body of the sequence header of a track, b"" if it needs none.

    number: the track's place among those of its type. Raises UnsupportedError if the format cannot carry it.
    """
    cdef TagPlan plan
    _make_plan(&plan, info, number, enhanced)
    return _init_body(&plan, info)


def serialize_frame(info, packet, int number=0, bint enhanced=True):
    """Return the body of a coded frame. Parameters and errors as `serialize_init`."""
    cdef TagPlan plan
    cdef PacketView view
    cdef uint8_t head[MAX_BODY_HEAD_BYTES]
    _make_plan(&plan, info, number, enhanced)
    view.dts_us = packet.dts_us
    view.offset_us = packet.offset_us
    view.flags = KEYFRAME if packet.keyframe else 0
    cdef size_t size = _frame_head(&plan, &view, head)
    return PyBytes_FromStringAndSize(<char*> head, <Py_ssize_t> size) + packet.payload


def carries(info, bint enhanced=True):
    """Say whether FLV and RTMP can carry a track, as the first of its type."""
    if info.codec == "JSON":
        return True
    legacy = VIDEO_IDS if info.type == "video" else AUDIO_IDS if info.type == "audio" else {}
    fourccs = VIDEO_FOURCCS if info.type == "video" else AUDIO_FOURCCS if info.type == "audio" else {}
    return info.codec in legacy or (enhanced and info.codec in fourccs)


# -- onMetaData

cdef object _codec_number(const TagPlan* plan):
    """Return what audiocodecid and videocodecid say: the legacy number, or the FourCC as a number."""
    if plan.form == ENHANCED_FORM:
        return plan.fourcc
    return plan.first if plan.tag_type == VIDEO_TAG else plan.first >> 4


cdef dict _track_values(const TagPlan* plan, object info):
    """Return the onMetaData properties of one track."""
    cdef dict values = {}
    if plan.tag_type == VIDEO_TAG:
        if info.width and info.height:
            values["width"], values["height"] = info.width, info.height
        if info.frame_rate_mhz:
            values["framerate"] = info.frame_rate_mhz / 1000.0
        if info.bandwidth_bps:
            values["videodatarate"] = info.bandwidth_bps / 1000.0
        values["videocodecid"] = _codec_number(plan)
    elif plan.tag_type == AUDIO_TAG:
        if info.sample_rate_hz:
            values["audiosamplerate"] = info.sample_rate_hz
        if info.sample_bits:
            values["audiosamplesize"] = info.sample_bits
        if info.channels:
            values["audiochannels"] = info.channels
            values["stereo"] = info.channels > 1
        if info.bandwidth_bps:
            values["audiodatarate"] = info.bandwidth_bps / 1000.0
        values["audiocodecid"] = _codec_number(plan)
    return values


cdef bytes _metadata(TagMuxer muxer):
    """Return the onMetaData body: the first track of each type, the others by their ids.

    Spec: FLV E.5, E-RTMP v2 "audioTrackIdInfoMap" and "videoTrackIdInfoMap".
    """
    cdef int index
    cdef dict values = {"duration": muxer.duration_us / 1e6} if muxer.duration_us else {}
    cdef dict others = {"audioTrackIdInfoMap": {}, "videoTrackIdInfoMap": {}}
    for index in range(muxer.count):
        entry = _track_values(&muxer.plans[index], muxer.tracks[index])
        if muxer.plans[index].track_id < 0:
            values.update(entry)
        else:
            name = "videoTrackIdInfoMap" if muxer.plans[index].tag_type == VIDEO_TAG else "audioTrackIdInfoMap"
            others[name][str(muxer.plans[index].track_id)] = entry
    values.update({name: entries for name, entries in others.items() if entries})
    return metadata_body(values)


# -- Muxers

cdef class TagMuxer(Muxer):
    """What the FLV muxer and the RTMP play muxer have in common: tag bodies for the tracks, set-ups when they change.

    tracks: the first track of each type is written plainly, further ones as multitrack bodies with ids from 1; those of JSON
    as script data.
    enhanced: the receiver knows E-RTMP; without it only legacy codecs and one track of each type are possible.
    duration_us: of a whole file, for onMetaData; 0: not known.
    Raises UnsupportedError for tracks that the format cannot carry.
    """

    def __cinit__(self, *args, **kwargs):
        self.plans = <TagPlan*> calloc(MAX_PLANS, sizeof(TagPlan))
        self.pending = <uint8_t*> calloc(MAX_PLANS, 1)
        if self.plans is NULL or self.pending is NULL:
            raise MemoryError
        self.count = 0

    def __dealloc__(self):
        free(self.plans)
        free(self.pending)

    def __init__(self, tracks, bint enhanced=True, int64_t duration_us=0):
        self.enhanced = enhanced
        self.duration_us = duration_us
        self.tracks = []
        self.inits = []
        self._plan_all(list(tracks))

    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1:
        raise NotImplementedError

    cdef int put_bytes(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, bytes body) except -1:
        return self.put(
            out, tag_type, time_ms, NULL, 0, <const uint8_t*> PyBytes_AS_STRING(body), <size_t> PyBytes_GET_SIZE(body)
        )

    cdef int put_metadata(self, ByteBuffer out, bytes body) except -1:
        """Append onMetaData, at time 0, whenever the stream begins: ffmpeg takes any other for a subtitle track."""
        return self.put_bytes(out, SCRIPT_TAG, 0, body)

    cdef int put_setup(self, ByteBuffer out, uint32_t time_ms) except -1:
        """Append onMetaData and every track's sequence header."""
        cdef int index
        self.put_metadata(out, _metadata(self))
        for index in range(self.count):
            if self.inits[index]:
                self.put_bytes(out, self.plans[index].tag_type, time_ms, self.inits[index])
        return 0

    cdef int _plan_all(self, list tracks) except -1:
        """Plan all tracks, or change nothing and raise UnsupportedError."""
        cdef TagPlan plans[MAX_PLANS]
        cdef int index
        cdef list inits = []
        cdef dict numbers = {}
        if len(tracks) > MAX_PLANS:
            raise UnsupportedError(f"{len(tracks)} tracks, at most {MAX_PLANS} fit")
        for index, info in enumerate(tracks):
            plans[index].fourcc = 0
            _make_plan(&plans[index], info, numbers.get(info.type, 0), self.enhanced)
            numbers[info.type] = numbers.get(info.type, 0) + 1
            inits.append(_init_body(&plans[index], info))
        self.count = <int> len(tracks)
        memcpy(self.plans, plans, self.count * sizeof(TagPlan))
        self.tracks = tracks
        self.inits = inits
        return 0

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef uint8_t head[MAX_BODY_HEAD_BYTES]
        cdef const TagPlan* plan
        cdef size_t size
        cdef uint32_t time_ms = <uint32_t> to_ms(packet.dts_us)
        if track < 0 or track >= self.count:
            raise LocalProtocolError(f"track {track} of {self.count}")
        plan = &self.plans[track]
        if plan.form == SCRIPT_FORM:
            body = script_body(PyBytes_FromStringAndSize(<const char*> packet.data, <Py_ssize_t> packet.size))
            return self.put_bytes(self.out, SCRIPT_TAG, time_ms, body) if body else 0
        if self.pending[track]:
            self.pending[track] = 0
            self.put_bytes(self.out, plan.tag_type, time_ms, self.inits[track])
        size = _frame_head(plan, packet, head)
        return self.put(self.out, plan.tag_type, time_ms, head, size, packet.data, packet.size)

    def set_tracks(self, tracks):
        """Go on with changed tracks; a changed sequence header goes out before the track's next packet."""
        previous = list(self.inits)
        try:
            self._plan_all(list(tracks))
        except UnsupportedError:
            return False
        cdef int index
        for index in range(self.count):
            if self.inits[index] and (index >= len(previous) or previous[index] != self.inits[index]):
                self.pending[index] = 1
        return True

    def state(self):
        """Return one byte for each track: 1 if its sequence header goes out before its next packet."""
        return PyBytes_FromStringAndSize(<char*> self.pending, self.count)

    def restore(self, state):
        """Go on from `state()`. Raises LocalProtocolError if it is of other tracks."""
        if len(state) > MAX_PLANS:
            raise LocalProtocolError(f"muxer state of {len(state)} bytes")
        for index, value in enumerate(state):
            self.pending[<int> index] = value


@cython.final
cdef class FlvMuxer(TagMuxer):
    """Packets in, an FLV stream out.

    Times are the packets' own, in milliseconds modulo 2^32. Sequence headers that change go in front of the track's
    next packet.   Spec: FLV E.2 to E.5, E-RTMP v2.
    """

    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1:
        cdef size_t body = head_size + size
        cdef uint32_t total
        cdef uint8_t* to
        if body > 0xFFFFFF:
            raise LocalProtocolError(f"a packet of {size} bytes does not fit an FLV tag")
        to = out.reserve(body + 15)
        to[0] = tag_type
        to[1] = (body >> 16) & 0xFF
        to[2] = (body >> 8) & 0xFF
        to[3] = body & 0xFF
        to[4] = (time_ms >> 16) & 0xFF
        to[5] = (time_ms >> 8) & 0xFF
        to[6] = time_ms & 0xFF
        to[7] = time_ms >> 24
        to[8] = to[9] = to[10] = 0
        if head_size:
            memcpy(to + 11, head, head_size)
        if size:
            memcpy(to + 11 + head_size, data, size)
        total = <uint32_t> body + 11
        to += total
        to[0] = total >> 24
        to[1] = (total >> 16) & 0xFF
        to[2] = (total >> 8) & 0xFF
        to[3] = total & 0xFF
        out.commit(body + 15)
        return 0

    def header(self, start_us=0):
        """Return the file header, onMetaData, and all sequence headers at the time of the first packet."""
        cdef ByteBuffer out = ByteBuffer()
        cdef uint8_t flags = 0
        cdef int index
        for index in range(self.count):
            flags |= {VIDEO_TAG: 1, AUDIO_TAG: 4}.get(self.plans[index].tag_type, 0)
        out.write(b"FLV\x01" + bytes((flags,)) + b"\x00\x00\x00\x09\x00\x00\x00\x00")
        self.put_setup(out, <uint32_t> to_ms(start_us))
        return out.take()


@cython.final
cdef class FlvSizes(TagMuxer):
    """Counts what packets take in an FLV stream; their payload is not looked at."""

    cdef readonly int64_t total_bytes

    cdef int put(self, ByteBuffer out, uint8_t tag_type, uint32_t time_ms, const uint8_t* head, size_t head_size,
                 const uint8_t* data, size_t size) except -1:
        self.total_bytes += <int64_t> (head_size + size + 15)
        return 0


# -- Reading FLV

@cython.final
@cython.freelist(32)
cdef class FlvTag:
    """One FLV tag: tag_type 8 audio, 9 video, 18 script data; time_ms 0..2^32-1; body as parse_*_body take it."""

    cdef readonly int tag_type
    cdef readonly uint32_t time_ms
    cdef readonly bytes body

    def __repr__(self):
        return f"FlvTag({self.tag_type}, time_ms={self.time_ms}, {len(self.body)} bytes)"


@cython.final
cdef class FlvReader:
    """Bytes of an FLV stream in, its tags out.   Spec: FLV E.2 to E.4."""

    cdef bytearray _buffer
    cdef size_t _wanted     # bytes the buffer must hold before it is looked at again
    cdef size_t _skip       # bytes still to be ignored: header extension, previous-tag sizes
    cdef bint _begun

    def __init__(self):
        self._buffer = bytearray()
        self._wanted = 1
        self._skip = 0
        self._begun = False

    def feed(self, bytes data not None):
        """Take bytes, any split, and return the tags they complete.

        Raises RemoteProtocolError, UnsupportedError (encrypted tags). Bound: one tag (16 MiB) and one feed are kept.
        """
        cdef list tags = []
        cdef bytes view
        cdef size_t at = 0
        self._buffer += data
        if <size_t> len(self._buffer) < self._wanted:
            return tags
        view = bytes(self._buffer)
        while self._next(tags, view, &at):
            pass
        del self._buffer[:at]
        return tags

    cdef bint _next(self, list tags, bytes view, size_t* at) except -1:
        """Take one structure off view at at[0]; False and `_wanted` when it is not all there."""
        cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(view) + at[0]
        cdef size_t have = <size_t> PyBytes_GET_SIZE(view) - at[0]
        cdef size_t length
        cdef FlvTag tag
        self._wanted = 1 if self._begun else 9
        if self._skip and have:
            length = min(self._skip, have)
            self._skip -= length
            at[0] += length
            return True
        if have < (11 if self._begun else 9):
            return False
        if not self._begun:
            if data[0] != 70 or data[1] != 76 or data[2] != 86:
                raise RemoteProtocolError("no FLV signature", offset=0, spec="FLV E.2")
            self._skip = u32(data + 5)
            if self._skip < 9 or self._skip > 4096:
                raise RemoteProtocolError(f"FLV header of {self._skip} bytes", offset=5, spec="FLV E.2")
            self._skip += 4
            self._begun = True
            return True
        length = u24(data + 1)
        self._wanted = 11 + length
        if have < self._wanted:
            return False
        if data[0] & 0x20:
            raise UnsupportedError("encrypted FLV tag", spec="FLV E.4.1")
        tag = FlvTag.__new__(FlvTag)
        tag.tag_type = data[0] & 0x1F
        tag.time_ms = u24(data + 4) | (<uint32_t> data[7] << 24)
        tag.body = PyBytes_FromStringAndSize(<const char*> (data + 11), <Py_ssize_t> length)
        tags.append(tag)
        at[0] += self._wanted
        self._skip = 4
        return True

    def end_of_input(self):
        """Say that no more bytes come. Raises TruncatedError if the last tag is incomplete."""
        if self._buffer:
            raise TruncatedError(f"{len(self._buffer)} bytes of an incomplete tag", spec="FLV E.4.1")
