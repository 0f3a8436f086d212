"""FLV and enhanced RTMP tag bodies in both directions, the FLV muxer and the FLV tag reader.

A tag body is what an FLV tag and an RTMP audio or video message have in common: codec bits and one or more pieces of
media. Specs: Adobe Flash Video File Format 10.1 annex E ("FLV E.4.2"), Enhanced RTMP v2 (veovera, "E-RTMP v2").
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, PacketView

import struct

from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

# Kinds of TagPart.
INIT = "init"               # set-up of a track as this format carries it: avcC, AudioSpecificConfig, OpusHead …
FRAME = "frame"             # one coded frame
END = "end"                 # the track ends
METADATA = "metadata"       # video metadata (AMF: colour information)
CHANNELS = "channels"       # multichannel configuration of an audio track

_MAX_MULTITRACK_PARTS = 256
MAX_TRACKS = MAX_PLANS

cdef enum:
    LEGACY_NAL_FORM = 1     # codec bits, packet type, composition time (FLV E.4.3.1)
    LEGACY_AAC_FORM = 2
    LEGACY_PLAIN_FORM = 3
    ENHANCED_FORM = 4

    # E-RTMP v2 VideoPacketType and AudioPacketType
    SEQUENCE_START = 0
    CODED_FRAMES = 1
    SEQUENCE_END = 2
    CODED_FRAMES_X = 3      # video: composition time is zero and left out
    VIDEO_METADATA = 4
    MULTICHANNEL_CONFIG = 4
    MPEG2TS_SEQUENCE_START = 5
    AUDIO_MULTITRACK = 5
    VIDEO_MULTITRACK = 6
    MOD_EX = 7

    ONE_TRACK = 0
    MANY_TRACKS = 1
    MANY_TRACKS_MANY_CODECS = 2

    COMMAND_FRAME = 5
    EX_AUDIO = 9
    AVC_CODEC_ID = 7
    DOMESTIC_HEVC_CODEC_ID = 12     # never standardised; phone encoders of the years before E-RTMP send it


cdef uint32_t _fourcc(str text) except? 0:
    cdef bytes raw = text.encode("ascii")
    return int.from_bytes(raw, "big")


_VIDEO_FOURCC = {"H264": "avc1", "HEVC": "hvc1", "AV1": "av01", "VP8": "vp08", "VP9": "vp09"}
_AUDIO_FOURCC = {"AAC": "mp4a", "MP3": ".mp3", "AC3": "ac-3", "EAC-3": "ec-3", "opus": "Opus", "FLAC": "fLaC"}
_VIDEO_OF_FOURCC = {_fourcc(text): codec for codec, text in _VIDEO_FOURCC.items()}
_AUDIO_OF_FOURCC = {_fourcc(text): codec for codec, text in _AUDIO_FOURCC.items()}

# FLV E.4.3.1 CodecID and E.4.2.1 SoundFormat of the codecs that have a legacy form.
_VIDEO_IDS = {"JPEG": 1, "H263": 2, "ScreenVideo1": 3, "VP6": 4, "VP6Alpha": 5, "ScreenVideo2": 6, "H264": 7}
_AUDIO_IDS = {"ADPCM": 1, "MP3": 2, "Nellymoser": 6, "ALAW": 7, "ULAW": 8, "AAC": 10, "Speex": 11}
_VIDEO_OF_ID = {number: codec for codec, number in _VIDEO_IDS.items()}
_VIDEO_OF_ID[DOMESTIC_HEVC_CODEC_ID] = "HEVC"
_AUDIO_OF_ID = {number: codec for codec, number in _AUDIO_IDS.items()}
_AUDIO_OF_ID.update({4: "Nellymoser", 5: "Nellymoser", 14: "MP3"})
_RATES_HZ = (5512, 11025, 22050, 44100)

LEGACY_CODECS = frozenset(_VIDEO_IDS) | frozenset(_AUDIO_IDS)
ENHANCED_CODECS = frozenset(_VIDEO_FOURCC) | frozenset(_AUDIO_FOURCC)


@cython.final
@cython.freelist(64)
cdef class TagPart:
    """One piece of an audio or video tag body.

    kind: INIT, FRAME, END, METADATA or CHANNELS. type: "video" or "audio". codec: internal name, or the FourCC or
    number as text when the codec is unknown here. track_id: multitrack id, 0 for bodies that name none.
    offset_us: composition time. nano_offset_ns: what to add to the tag's time, 0..999999.
    sample_rate_hz, channels, sample_bits: of a legacy audio tag (a mere hint for AAC and MP3), else 0.
    """

    cdef readonly str kind
    cdef readonly str type
    cdef readonly str codec
    cdef readonly int track_id
    cdef readonly bint keyframe
    cdef readonly int64_t offset_us
    cdef readonly int nano_offset_ns
    cdef readonly int sample_rate_hz
    cdef readonly int channels
    cdef readonly int sample_bits
    cdef readonly bytes payload

    def __repr__(self):
        return (
            f"TagPart({self.kind}, {self.codec}, track_id={self.track_id}, keyframe={bool(self.keyframe)}, "
            f"offset_us={self.offset_us}, {len(self.payload)} bytes)"
        )


cdef TagPart _part(str kind, str type_, str codec, int track_id, const uint8_t* data, size_t size):
    cdef TagPart part = TagPart.__new__(TagPart)
    part.kind = kind
    part.type = type_
    part.codec = codec
    part.track_id = track_id
    part.keyframe = True
    part.payload = PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> size)
    return part


cdef inline uint32_t _u24(const uint8_t* data) noexcept:
    return (<uint32_t> data[0] << 16) | (<uint32_t> data[1] << 8) | data[2]


cdef inline uint32_t _u32(const uint8_t* data) noexcept:
    return (<uint32_t> data[0] << 24) | _u24(data + 1)


cdef inline int64_t _offset_us(const uint8_t* data) noexcept:
    cdef int32_t value = <int32_t> (_u24(data) << 8)
    return <int64_t> (value >> 8) * 1000


cdef int _need(size_t have, size_t want, str what) except -1:
    if have < want:
        raise TruncatedError(f"{what} of {have} bytes, at least {want} expected", spec="E-RTMP v2, FLV E.4")
    return 0


def parse_video_body(bytes body not None):
    """Parse the body of a video tag or message.

    Returns its parts in wire order; empty for command frames and empty bodies. Unknown codecs are returned too.
    Raises TruncatedError, UnsupportedError, RemoteProtocolError.   Spec: FLV E.4.3, E-RTMP v2 ExVideoTagHeader.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef size_t size = <size_t> PyBytes_GET_SIZE(body)
    cdef TagPart part
    cdef uint8_t frame_type, codec_id
    cdef size_t head = 1
    cdef str kind = FRAME
    if not size:
        return []
    if data[0] & 0x80:
        return _parse_enhanced("video", data, size, (data[0] >> 4) & 7, VIDEO_MULTITRACK)
    frame_type = data[0] >> 4
    codec_id = data[0] & 15
    if frame_type == COMMAND_FRAME:
        return []
    codec = _VIDEO_OF_ID.get(codec_id, f"video codec {codec_id}")
    if codec_id == AVC_CODEC_ID or codec_id == DOMESTIC_HEVC_CODEC_ID:
        _need(size, 5, "video tag body")
        if data[1] > 2:
            raise RemoteProtocolError(f"AVC packet type {data[1]}", offset=1, spec="FLV E.4.3.1")
        kind = (INIT, FRAME, END)[data[1]]
        head = 5
    part = _part(kind, "video", codec, 0, data + head, size - head)
    part.keyframe = frame_type == 1 or frame_type == 4
    if kind == FRAME and head == 5:
        part.offset_us = _offset_us(data + 2)
    return [part] if kind == END or part.payload else []


def parse_audio_body(bytes body not None):
    """Parse the body of an audio tag or message.

    Returns its parts in wire order; empty for empty bodies. Unknown codecs are returned too.
    Raises TruncatedError, UnsupportedError, RemoteProtocolError.   Spec: FLV E.4.2, E-RTMP v2 ExAudioTagHeader.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef size_t size = <size_t> PyBytes_GET_SIZE(body)
    cdef TagPart part
    cdef uint8_t sound_format
    cdef size_t head = 1
    cdef str kind = FRAME
    if not size:
        return []
    sound_format = data[0] >> 4
    if sound_format == EX_AUDIO:
        return _parse_enhanced("audio", data, size, 0, AUDIO_MULTITRACK)
    if size == 1:
        return []
    codec = _AUDIO_OF_ID.get(sound_format, f"sound format {sound_format}")
    if sound_format == 10:
        if data[1] > 1:
            raise RemoteProtocolError(f"AAC packet type {data[1]}", offset=1, spec="FLV E.4.2.2")
        kind = FRAME if data[1] else INIT
        head = 2
    part = _part(kind, "audio", codec, 0, data + head, size - head)
    part.sample_rate_hz = _RATES_HZ[(data[0] >> 2) & 3]
    part.channels = 1 + (data[0] & 1)
    part.sample_bits = 16 if data[0] & 2 else 8
    if sound_format == 4:
        part.sample_rate_hz = 16000
    elif sound_format in (5, 7, 8, 14):
        part.sample_rate_hz = 8000
    elif sound_format == 11:
        part.sample_rate_hz = 16000
    return [part] if part.payload else []


cdef list _parse_enhanced(str type_, const uint8_t* data, size_t size, uint8_t frame_type, uint8_t multitrack):
    """Parse a body with an enhanced header; data[0] holds the packet type in its low bits."""
    cdef size_t at = 1
    cdef size_t length
    cdef uint8_t packet_type = data[0] & 15
    cdef int nano_offset_ns = 0
    cdef uint8_t modifier, track_type
    cdef uint32_t fourcc = 0
    cdef bint video = type_ == "video"
    cdef list parts = []
    while packet_type == MOD_EX:
        _need(size, at + 1, "ModEx")
        length = <size_t> data[at] + 1
        at += 1
        if length == 256:
            _need(size, at + 2, "ModEx")
            length = ((<size_t> data[at] << 8) | data[at + 1]) + 1
            at += 2
        _need(size, at + length + 1, "ModEx")
        modifier = data[at + length] >> 4
        packet_type = data[at + length] & 15
        if modifier == 0 and length >= 3:
            nano_offset_ns = <int> min(<uint32_t> 999999, _u24(data + at))
        at += length + 1
    if video and frame_type == COMMAND_FRAME and packet_type != VIDEO_METADATA:
        return parts
    if packet_type != multitrack:
        _need(size, at + 4, "enhanced tag body")
        _enhanced_part(parts, video, packet_type, _u32(data + at), 0, frame_type, data + at + 4, size - at - 4)
    else:
        _need(size, at + 1, "multitrack body")
        track_type = data[at] >> 4
        packet_type = data[at] & 15
        at += 1
        if packet_type == multitrack or packet_type == MOD_EX or track_type > MANY_TRACKS_MANY_CODECS:
            raise RemoteProtocolError("nested or unknown multitrack", offset=at - 1, spec="E-RTMP v2, AvMultitrackType")
        if track_type != MANY_TRACKS_MANY_CODECS:
            _need(size, at + 4, "multitrack body")
            fourcc = _u32(data + at)
            at += 4
        while at < size:
            if track_type == MANY_TRACKS_MANY_CODECS:
                _need(size, at + 4, "multitrack body")
                fourcc = _u32(data + at)
                at += 4
            _need(size, at + 1, "multitrack body")
            modifier = data[at]     # the track id
            at += 1
            length = size - at
            if track_type != ONE_TRACK:
                _need(size, at + 3, "multitrack body")
                length = _u24(data + at)
                at += 3
                _need(size, at + length, "track of a multitrack body")
            _enhanced_part(parts, video, packet_type, fourcc, modifier, frame_type, data + at, length)
            at += length
            if len(parts) > _MAX_MULTITRACK_PARTS:
                raise RemoteProtocolError("more tracks in a body than there are ids", spec="E-RTMP v2, trackId")
    for part in parts:
        (<TagPart> part).nano_offset_ns = nano_offset_ns
    return parts


cdef int _enhanced_part(list parts, bint video, uint8_t packet_type, uint32_t fourcc, int track_id, uint8_t frame_type,
                        const uint8_t* data, size_t size) except -1:
    """Append the part that one track's piece of an enhanced body is, if it is of a kind we know."""
    cdef TagPart part
    cdef str kind
    cdef str codec
    cdef int64_t offset_us = 0
    if packet_type == SEQUENCE_START:
        kind = INIT
    elif packet_type == CODED_FRAMES or (video and packet_type == CODED_FRAMES_X):
        kind = FRAME
    elif packet_type == SEQUENCE_END:
        kind = END
    elif packet_type == VIDEO_METADATA:
        kind = METADATA if video else CHANNELS
    else:
        return 0    # MPEG2TSSequenceStart, which nobody sends, and types to come
    codec = (_VIDEO_OF_FOURCC if video else _AUDIO_OF_FOURCC).get(fourcc)
    if codec is None:
        codec = int(fourcc).to_bytes(4, "big").decode("ascii", "replace")
    if video and packet_type == CODED_FRAMES and codec in ("H264", "HEVC", "vvc1"):
        _need(size, 3, "coded frame")
        offset_us = _offset_us(data)
        data += 3
        size -= 3
    if kind == FRAME and not size:
        return 0
    part = _part(kind, "video" if video else "audio", codec, track_id, data, size)
    part.offset_us = offset_us
    if video:
        part.keyframe = frame_type == 1 or frame_type == 4
    elif kind == CHANNELS and size >= 2:
        part.channels = data[1]
    parts.append(part)
    return 0


# -- Serialising

cdef int _make_plan(TagPlan* plan, object info, int number, bint enhanced) except -1:
    """Fill plan for a track. number: its place among the tracks of its type, 0 for the first."""
    cdef bint video = info.type == "video"
    cdef dict fourccs = _VIDEO_FOURCC if video else _AUDIO_FOURCC
    cdef dict legacy = _VIDEO_IDS if video else _AUDIO_IDS
    codec = info.codec
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
        plan.fourcc = _fourcc(fourccs[codec])
        plan.form = ENHANCED_FORM
    else:
        raise UnsupportedError(f"{'enhanced' if enhanced else 'plain'} FLV and RTMP do not carry {codec} here")
    return 0


cdef int _sound_byte(object info) except -1:
    """Return the first byte of a legacy audio body.   Spec: FLV E.4.2.1."""
    cdef int sound_format = _AUDIO_IDS[info.codec]
    cdef int rate = 3
    if sound_format == 10:
        return 0xAF     # fixed by the specification, whatever the AudioSpecificConfig says
    if sound_format == 11:
        return 0xB6     # Speex is 16 kHz mono by definition and says "11 kHz, 16 bits"
    if sound_format == 2 and info.sample_rate_hz == 8000:
        sound_format = 14
    elif info.sample_rate_hz in _RATES_HZ:
        rate = _RATES_HZ.index(info.sample_rate_hz)
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
    if not setup or plan.form == LEGACY_PLAIN_FORM:
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
    cdef int64_t offset_ms = to_ms(packet.dts_us + packet.offset_us) - to_ms(packet.dts_us)
    cdef bint video = plan.tag_type == VIDEO_TAG
    cdef uint8_t frame = 0x10 if packet.flags & KEYFRAME else 0x20
    cdef uint8_t packet_type = CODED_FRAMES
    cdef size_t at = 1
    offset_ms = max(-0x800000, min(0x7FFFFF, offset_ms))
    if plan.form != ENHANCED_FORM:
        head[0] = frame | plan.first if video else plan.first
        if plan.form == LEGACY_PLAIN_FORM:
            return 1
        head[1] = 1
        if plan.form == LEGACY_AAC_FORM:
            return 2
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
    legacy = _VIDEO_IDS if info.type == "video" else _AUDIO_IDS if info.type == "audio" else {}
    fourccs = _VIDEO_FOURCC if info.type == "video" else _AUDIO_FOURCC if info.type == "audio" else {}
    return info.codec in legacy or (enhanced and info.codec in fourccs)


# -- onMetaData (AMF 0, which core cannot import from the formats)

cdef bytes _amf_key(str name):
    cdef bytes raw = name.encode()
    return struct.pack(">H", len(raw)) + raw


cdef bytes _amf_number(str name, double value):
    return _amf_key(name) + struct.pack(">Bd", 0, value)


cdef object _codec_number(const TagPlan* plan):
    """Return what audiocodecid and videocodecid say: the legacy number, or the FourCC as a number."""
    if plan.form == ENHANCED_FORM:
        return plan.fourcc
    return plan.first if plan.tag_type == VIDEO_TAG else plan.first >> 4


cdef bytes _track_values(const TagPlan* plan, object info):
    """Return the onMetaData properties of one track."""
    cdef list values = []
    if plan.tag_type == VIDEO_TAG:
        if info.width and info.height:
            values += [_amf_number("width", info.width), _amf_number("height", info.height)]
        if info.frame_rate_mhz:
            values.append(_amf_number("framerate", info.frame_rate_mhz / 1000.0))
        if info.bandwidth_bps:
            values.append(_amf_number("videodatarate", info.bandwidth_bps / 1000.0))
        values.append(_amf_number("videocodecid", _codec_number(plan)))
    else:
        if info.sample_rate_hz:
            values.append(_amf_number("audiosamplerate", info.sample_rate_hz))
        if info.sample_bits:
            values.append(_amf_number("audiosamplesize", info.sample_bits))
        if info.channels:
            values.append(_amf_number("audiochannels", info.channels))
            values.append(_amf_key("stereo") + bytes((1, info.channels > 1)))
        if info.bandwidth_bps:
            values.append(_amf_number("audiodatarate", info.bandwidth_bps / 1000.0))
        values.append(_amf_number("audiocodecid", _codec_number(plan)))
    return b"".join(values)


cdef bytes _metadata(TagMuxer muxer):
    """Return the onMetaData body: the first track of each type, the others by their ids.

    Spec: FLV E.5, E-RTMP v2 "audioTrackIdInfoMap" and "videoTrackIdInfoMap".
    """
    cdef int index
    cdef list values = []
    cdef dict others = {"audioTrackIdInfoMap": [], "videoTrackIdInfoMap": []}
    for index in range(muxer.count):
        entry = _track_values(&muxer.plans[index], muxer.tracks[index])
        if muxer.plans[index].track_id < 0:
            values.append(entry)
        else:
            name = "videoTrackIdInfoMap" if muxer.plans[index].tag_type == VIDEO_TAG else "audioTrackIdInfoMap"
            others[name].append(_amf_key(str(muxer.plans[index].track_id)) + b"\x03" + entry + b"\x00\x00\x09")
    for name, entries in others.items():
        if entries:
            values.append(_amf_key(name) + b"\x03" + b"".join(entries) + b"\x00\x00\x09")
    count = sum(1 for _ in values)
    return b"\x02" + _amf_key("onMetaData") + b"\x08" + struct.pack(">I", count) + b"".join(values) + b"\x00\x00\x09"


# -- Muxers

cdef class TagMuxer(Muxer):
    """What the FLV muxer and the RTMP play muxer have in common: tag bodies for the tracks, set-ups when they change.

    tracks: the first track of each type is written plainly, further ones as multitrack bodies with ids from 1.
    enhanced: the receiver knows E-RTMP; without it only legacy codecs and one track of each type are possible.
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

    def __init__(self, tracks, bint enhanced=True):
        self.enhanced = enhanced
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

    cdef int put_setup(self, ByteBuffer out, uint32_t time_ms) except -1:
        """Append onMetaData and every track's sequence header.

        onMetaData is at time 0, whenever the stream begins: ffmpeg takes any other for a subtitle track.
        """
        cdef int index
        self.put_bytes(out, SCRIPT_TAG, 0, _metadata(self))
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
            flags |= 1 if self.plans[index].tag_type == VIDEO_TAG else 4
        out.write(b"FLV\x01" + bytes((flags,)) + b"\x00\x00\x00\x09\x00\x00\x00\x00")
        self.put_setup(out, <uint32_t> to_ms(start_us))
        return out.take()


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
            self._skip = _u32(data + 5)
            if self._skip < 9 or self._skip > 4096:
                raise RemoteProtocolError(f"FLV header of {self._skip} bytes", offset=5, spec="FLV E.2")
            self._skip += 4
            self._begun = True
            return True
        length = _u24(data + 1)
        self._wanted = 11 + length
        if have < self._wanted:
            return False
        if data[0] & 0x20:
            raise UnsupportedError("encrypted FLV tag", spec="FLV E.4.1")
        tag = FlvTag.__new__(FlvTag)
        tag.tag_type = data[0] & 0x1F
        tag.time_ms = _u24(data + 4) | (<uint32_t> data[7] << 24)
        tag.body = PyBytes_FromStringAndSize(<const char*> (data + 11), <Py_ssize_t> length)
        tags.append(tag)
        at[0] += self._wanted
        self._skip = 4
        return True

    def end_of_input(self):
        """Say that no more bytes come. Raises TruncatedError if the last tag is incomplete."""
        if self._buffer:
            raise TruncatedError(f"{len(self._buffer)} bytes of an incomplete tag", spec="FLV E.4.1")
