"""Parses the bodies of FLV tags and RTMP audio and video messages, plain and enhanced, and knows their codec numbers.

A body is codec bits and one or more pieces of media.
Specs: Adobe Flash Video File Format 10.1 annex E ("FLV E.4.2"), Enhanced RTMP v2 (veovera, "E-RTMP v2").
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from mist.errors import RemoteProtocolError, TruncatedError

# Kinds of TagPart.
INIT = "init"               # set-up of a track as this format carries it: avcC, AudioSpecificConfig, OpusHead …
FRAME = "frame"             # one coded frame
END = "end"                 # the track ends
METADATA = "metadata"       # video metadata (AMF: colour information)
CHANNELS = "channels"       # multichannel configuration of an audio track

_MAX_MULTITRACK_PARTS = 256

cdef enum:
    COMMAND_FRAME = 5
    EX_AUDIO = 9
    AAC_SOUND_FORMAT = 10
    LITTLE_ENDIAN_PCM = 3


def fourcc_number(str text):
    """Return a FourCC as the big-endian number that it is on the wire."""
    return int.from_bytes(text.encode("ascii"), "big")


VIDEO_FOURCCS = {"H264": "avc1", "HEVC": "hvc1", "AV1": "av01", "VP8": "vp08", "VP9": "vp09"}
AUDIO_FOURCCS = {"AAC": "mp4a", "MP3": ".mp3", "AC3": "ac-3", "EAC-3": "ec-3", "opus": "Opus", "FLAC": "fLaC"}
_VIDEO_OF_FOURCC = {fourcc_number(text): codec for codec, text in VIDEO_FOURCCS.items()}
_AUDIO_OF_FOURCC = {fourcc_number(text): codec for codec, text in AUDIO_FOURCCS.items()}

# FLV E.4.3.1 CodecID and E.4.2.1 SoundFormat of the codecs that have a legacy form.
VIDEO_IDS = {"JPEG": 1, "H263": 2, "ScreenVideo1": 3, "VP6": 4, "VP6Alpha": 5, "ScreenVideo2": 6, "H264": 7}
AUDIO_IDS = {"ADPCM": 1, "MP3": 2, "Nellymoser": 6, "ALAW": 7, "ULAW": 8, "AAC": 10, "Speex": 11}
_VIDEO_OF_ID = {number: codec for codec, number in VIDEO_IDS.items()}
_VIDEO_OF_ID[DOMESTIC_HEVC_CODEC_ID] = "HEVC"
_AUDIO_OF_ID = {number: codec for codec, number in AUDIO_IDS.items()}
_AUDIO_OF_ID.update({4: "Nellymoser", 5: "Nellymoser", 14: "MP3"})
RATES_HZ = (5512, 11025, 22050, 44100)

LEGACY_CODECS = frozenset(VIDEO_IDS) | frozenset(AUDIO_IDS)
ENHANCED_CODECS = frozenset(VIDEO_FOURCCS) | frozenset(AUDIO_FOURCCS)


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


cdef inline int64_t _offset_us(const uint8_t* data) noexcept nogil:
    cdef int32_t value = <int32_t> (u24(data) << 8)
    return <int64_t> (value >> 8) * 1000


cdef int _need(size_t have, size_t want, str what) except -1:
    if have < want:
        raise TruncatedError(f"{what} of {have} bytes, at least {want} expected", spec="E-RTMP v2, FLV E.4")
    return 0


cdef uint32_t AVC1 = fourcc_number(VIDEO_FOURCCS["H264"])
cdef uint32_t HVC1 = fourcc_number(VIDEO_FOURCCS["HEVC"])
cdef uint32_t AV01 = fourcc_number(VIDEO_FOURCCS["AV1"])


cdef int framing_of(uint32_t codec) noexcept nogil:
    """Return how the payload of a video codec number is framed."""
    if codec == AVC_CODEC_ID or codec == AVC1:
        return H264_UNITS
    if codec == DOMESTIC_HEVC_CODEC_ID or codec == HVC1:
        return HEVC_UNITS
    return AV1_UNITS if codec == AV01 else WHOLE_FRAME


cdef bint coded_frame(const uint8_t* data, size_t size, bint video, CodedFrame* frame) noexcept nogil:
    """Read what parse_video_body and parse_audio_body read, of the usual case only."""
    cdef size_t head = 1
    cdef uint8_t packet_type
    cdef uint8_t frame_type = data[0] >> 4 & 7 if size else 0
    if size < 2 or (video and frame_type == COMMAND_FRAME):
        return False
    frame.offset_us = 0
    frame.keyframe = not video or frame_type == 1 or frame_type == 4
    if data[0] & 0x80 and (video or data[0] >> 4 == EX_AUDIO):
        packet_type = data[0] & 15
        if size < 9 or not (packet_type == CODED_FRAMES or (video and packet_type == CODED_FRAMES_X)):
            return False
        frame.codec = u32(data + 1)
        head = 5
        if video and packet_type == CODED_FRAMES and (frame.codec == AVC1 or frame.codec == HVC1):
            frame.offset_us = _offset_us(data + 5)
            head = 8
    elif video:
        frame.codec = data[0] & 15
        if frame.codec == AVC_CODEC_ID or frame.codec == DOMESTIC_HEVC_CODEC_ID:
            if size < 6 or data[1] != 1:
                return False
            frame.offset_us = _offset_us(data + 2)
            head = 5
    else:
        frame.codec = data[0] >> 4
        if frame.codec == AAC_SOUND_FORMAT:
            if size < 3 or data[1] != 1:
                return False
            head = 2
    frame.data = data + head
    frame.size = size - head
    return True


def parse_video_body(bytes body not None):
    """Parse the body of a video tag or message.

    Returns its parts in wire order; empty for command frames and bodies with nothing behind their head. Unknown codecs are
    returned too. Raises TruncatedError, UnsupportedError, RemoteProtocolError.   Spec: FLV E.4.3, E-RTMP v2 ExVideoTagHeader.
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
        if size < 5:
            return []       # at most an end of sequence without its composition time
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
    if sound_format == 0 or sound_format == LITTLE_ENDIAN_PCM:
        codec = "PCM"
    if sound_format == AAC_SOUND_FORMAT:
        if data[1] > 1:
            raise RemoteProtocolError(f"AAC packet type {data[1]}", offset=1, spec="FLV E.4.2.2")
        kind = FRAME if data[1] else INIT
        head = 2
    part = _part(kind, "audio", codec, 0, data + head, size - head)
    part.sample_rate_hz = RATES_HZ[(data[0] >> 2) & 3]
    part.channels = 1 + (data[0] & 1)
    part.sample_bits = 16 if data[0] & 2 else 8
    if sound_format == 4:
        part.sample_rate_hz = 16000
    elif sound_format in (5, 7, 8, 14):
        part.sample_rate_hz = 8000
    elif sound_format == 11:
        part.sample_rate_hz = 16000
    if codec == "PCM" and part.sample_bits == 16:
        part.payload = swapped_words(part.payload)      # format 0 is the writer's own order, and no writer is big-endian any more
    return [part] if part.payload else []


cdef bytes swapped_words(bytes data):
    """Return 16-bit words with their bytes in the other order; half a word at the end is left out."""
    cdef bytearray found = bytearray(data[:len(data) & ~1])
    found[0::2], found[1::2] = found[1::2], found[0::2]
    return bytes(found)


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
            nano_offset_ns = <int> min(<uint32_t> 999999, u24(data + at))
        at += length + 1
    if video and frame_type == COMMAND_FRAME and packet_type != VIDEO_METADATA:
        return parts
    if packet_type != multitrack:
        _need(size, at + 4, "enhanced tag body")
        _enhanced_part(parts, video, packet_type, u32(data + at), 0, frame_type, data + at + 4, size - at - 4)
    else:
        _need(size, at + 1, "multitrack body")
        track_type = data[at] >> 4
        packet_type = data[at] & 15
        at += 1
        if packet_type == multitrack or packet_type == MOD_EX or track_type > MANY_TRACKS_MANY_CODECS:
            raise RemoteProtocolError("nested or unknown multitrack", offset=at - 1, spec="E-RTMP v2, AvMultitrackType")
        if track_type != MANY_TRACKS_MANY_CODECS:
            _need(size, at + 4, "multitrack body")
            fourcc = u32(data + at)
            at += 4
        while at < size:
            if track_type == MANY_TRACKS_MANY_CODECS:
                _need(size, at + 4, "multitrack body")
                fourcc = u32(data + at)
                at += 4
            _need(size, at + 1, "multitrack body")
            modifier = data[at]     # the track id
            at += 1
            length = size - at
            if track_type != ONE_TRACK:
                _need(size, at + 3, "multitrack body")
                length = u24(data + at)
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
