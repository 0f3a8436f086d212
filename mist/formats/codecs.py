"""What every other part asks about a track's codec, whichever it is: one table, one row for each codec.

A payload that does not parse says nothing; init data that does not parse raises RemoteProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mist.core.nal import nal_types, select_units
from mist.errors import RemoteProtocolError
from mist.formats import (
    aac,
    ac3,
    av1,
    dts,
    flac,
    h264,
    hevc,
    jpeg,
    mpeg2,
    mpeg_audio,
    opus,
    speex,
    theora,
    vorbis,
    vp8,
    vp9,
)
from mist.formats.tracks import (
    AAC,
    AC3,
    ALAW,
    AUDIO,
    AV1,
    DTS,
    EAC3,
    FLAC,
    FLOAT,
    H264,
    HEVC,
    ID3,
    JPEG,
    JSON,
    KLV,
    MP2,
    MP3,
    MPEG2,
    OPUS,
    PCM,
    SCTE35,
    SPEEX,
    SUBTITLE,
    THEORA,
    ULAW,
    VIDEO,
    VORBIS,
    VP8,
    VP9,
    TrackInfo,
)

LOSSY_SAMPLE_BITS: Final = 16  # what decoders of lossy codecs give, and the reference server says

_PARAMETER_SETS: Final = 1 << h264.SPS | 1 << h264.PPS | 1 << h264.SPS_EXTENSION
_TRIGGERS: Final = 1 << h264.SPS | 1 << h264.PPS

Fields = Mapping[str, int]


def _nothing(_data: bytes) -> Fields:
    return {}


def _unchanged(_track: TrackInfo, _payload: bytes) -> bytes | None:
    return None


def _always(_track: TrackInfo, _payload: bytes) -> bool:
    return True


def _never(_record: bytes) -> bool | None:
    return False


def _unknown(_record: bytes) -> bool | None:
    return None


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one codec answers.

    describe: fields from init data. probe: fields from a payload. string: codec string from init data that is there.
    bare: codec string without init data. update: new init data from a payload. keyframe; reorders: from init data.
    """

    bare: str
    describe: Callable[[bytes], Fields] = _nothing
    probe: Callable[[bytes], Fields] = _nothing
    string: Callable[[bytes], str] | None = None
    update: Callable[[TrackInfo, bytes], bytes | None] = _unchanged
    keyframe: Callable[[TrackInfo, bytes], bool] = _always
    reorders: Callable[[bytes], bool | None] = _never


def _describe_h264(record: bytes) -> Fields:
    sps = h264.configured_sps(record)
    return {
        "width": sps.width,
        "height": sps.height,
        "frame_rate_mhz": sps.vui.frame_rate_mhz,
    }


def _describe_hevc(record: bytes) -> Fields:
    sps = hevc.configured_sps(record)
    rate = hevc.configured_frame_rate_mhz(record)
    return {"width": sps.width, "height": sps.height, "frame_rate_mhz": rate}


def _describe_av1(record: bytes) -> Fields:
    found = av1.configured_sequence_header(record)
    if found is None:
        return {}
    header = av1.parse_sequence_header(found)
    return {
        "width": header.width,
        "height": header.height,
        "frame_rate_mhz": header.frame_rate_mhz,
    }


def _describe_aac(record: bytes) -> Fields:
    config = aac.parse_config(record)
    return _audio(config.sample_rate_hz, config.channels, LOSSY_SAMPLE_BITS)


def _describe_opus(record: bytes) -> Fields:
    return _audio(opus.SAMPLE_RATE_HZ, opus.parse_head(record).channels, LOSSY_SAMPLE_BITS)


def _describe_flac(record: bytes) -> Fields:
    info = flac.parse_stream_info(record)
    return _audio(info.sample_rate_hz, info.channels, info.sample_bits)


def _describe_vorbis(init_data: bytes) -> Fields:
    found = vorbis.describe(init_data)
    return _audio(found.sample_rate_hz, found.channels, LOSSY_SAMPLE_BITS)


def _describe_speex(header: bytes) -> Fields:
    found = speex.parse_header(header)
    return _audio(found.sample_rate_hz, found.channels, LOSSY_SAMPLE_BITS)


def _describe_theora(init_data: bytes) -> Fields:
    found = theora.describe(init_data)
    return {"width": found.width, "height": found.height, "frame_rate_mhz": found.frame_rate_mhz}


def _audio(sample_rate_hz: int, channels: int, sample_bits: int) -> Fields:
    return {
        "sample_rate_hz": sample_rate_hz,
        "channels": channels,
        "sample_bits": sample_bits,
    }


def _probe_vp8(payload: bytes) -> Fields:
    header = vp8.parse_keyframe(payload)
    return {"width": header.width, "height": header.height}


def _probe_vp9(payload: bytes) -> Fields:
    header = vp9.parse_frame_header(payload)
    return {"width": header.width, "height": header.height} if header.keyframe else {}


def _probe_mpeg2(payload: bytes) -> Fields:
    header = mpeg2.parse_sequence(payload)
    said = {"width": header.width, "height": header.height, "frame_rate_mhz": header.frame_rate_mhz}
    return {name: value for name, value in said.items() if value}


def _probe_jpeg(payload: bytes) -> Fields:
    header = jpeg.parse_frame_header(payload)
    return {"width": header.width, "height": header.height}


def _probe_mpeg_audio(payload: bytes) -> Fields:
    header = mpeg_audio.parse_header(payload)
    return _audio(header.sample_rate_hz, header.channels, LOSSY_SAMPLE_BITS)


def _probe_ac3(payload: bytes) -> Fields:
    frame = ac3.parse_sync_frame(payload)
    channels = ac3.channels_of(payload) if frame.extended else frame.channels
    return _audio(frame.sample_rate_hz, channels, LOSSY_SAMPLE_BITS)


def _probe_dts(payload: bytes) -> Fields:
    header = dts.parse_header(payload)
    return _audio(header.sample_rate_hz, header.channels, header.sample_bits or LOSSY_SAMPLE_BITS)


def _update_h264(track: TrackInfo, payload: bytes) -> bytes | None:
    if not nal_types(payload, False) & _TRIGGERS:
        return None
    return h264.updated_avcc(track.init_data, select_units(payload, _PARAMETER_SETS))


def _update_hevc(track: TrackInfo, payload: bytes) -> bytes | None:
    if not nal_types(payload, True) & hevc.PARAMETER_SET_MASK:
        return None
    return hevc.updated_hvcc(track.init_data, select_units(payload, hevc.PARAMETER_SET_MASK, True))


def _update_opus(track: TrackInfo, payload: bytes) -> bytes | None:
    if track.init_data or not payload:
        return None
    channels = 2 if opus.packet_is_stereo(payload) else 1
    return opus.build_head(opus.OpusHead(channels, coupled=channels - 1))


def _update_flac(track: TrackInfo, payload: bytes) -> bytes | None:
    if track.init_data:
        return None
    header = flac.parse_frame_header(payload)
    if not header.sample_rate_hz or not header.sample_bits or header.block_samples < flac.MIN_BLOCK_SAMPLES:
        return None
    block, rate = header.block_samples, header.sample_rate_hz
    return flac.build_stream_info(
        flac.StreamInfo(block, block, 0, 0, rate, header.channels, header.sample_bits, 0, bytes(16))
    )


_CODECS: Final[Mapping[str, _Codec]] = {
    H264: _Codec(
        "avc1",
        describe=_describe_h264,
        string=lambda record: h264.codec_string(h264.parse_avcc(record)),
        update=_update_h264,
        keyframe=lambda _track, payload: h264.is_keyframe(payload),
        reorders=lambda record: h264.reorders(h264.configured_sps(record)),
    ),
    HEVC: _Codec(
        "hvc1",
        describe=_describe_hevc,
        string=lambda record: hevc.codec_string(hevc.parse_hvcc(record)),
        update=_update_hevc,
        keyframe=lambda _track, payload: hevc.is_keyframe(payload),
        reorders=lambda record: hevc.configured_sps(record).max_num_reorder_pics > 0,
    ),
    AV1: _Codec(
        "av01",
        describe=_describe_av1,
        string=lambda record: av1.codec_string(av1.parse_av1c(record)),
        update=lambda track, payload: av1.updated_av1c(track.init_data, payload),
        keyframe=lambda _track, payload: av1.is_keyframe(payload),
    ),
    VP9: _Codec(
        "vp09.00.10.08",
        probe=_probe_vp9,
        string=lambda record: vp9.codec_string(vp9.parse_vpcc(record)),
        update=lambda track, payload: vp9.updated_vpcc(track.init_data, payload, track.frame_rate_mhz),
        keyframe=lambda _track, payload: vp9.is_keyframe(payload),
    ),
    VP8: _Codec(
        vp8.codec_string(),
        probe=_probe_vp8,
        keyframe=lambda _track, payload: vp8.is_keyframe(payload),
    ),
    MPEG2: _Codec(
        "",
        probe=_probe_mpeg2,
        keyframe=lambda _track, payload: mpeg2.is_keyframe(payload),
        reorders=_unknown,
    ),
    JPEG: _Codec("", probe=_probe_jpeg),
    AAC: _Codec(
        "mp4a.40.2",
        describe=_describe_aac,
        string=lambda record: aac.codec_string(aac.parse_config(record)),
    ),
    MP3: _Codec(mpeg_audio.codec_string(3), probe=_probe_mpeg_audio),
    MP2: _Codec(mpeg_audio.codec_string(2), probe=_probe_mpeg_audio),
    OPUS: _Codec(opus.codec_string(), describe=_describe_opus, update=_update_opus),
    FLAC: _Codec(flac.codec_string(), describe=_describe_flac, update=_update_flac),
    AC3: _Codec(ac3.codec_string(False), probe=_probe_ac3),
    EAC3: _Codec(ac3.codec_string(True), probe=_probe_ac3),
    DTS: _Codec("", probe=_probe_dts),
    SUBTITLE: _Codec(""),
    JSON: _Codec(""),
    ID3: _Codec(""),
    SCTE35: _Codec(""),
    KLV: _Codec(""),
    VORBIS: _Codec(vorbis.codec_string(), describe=_describe_vorbis),
    SPEEX: _Codec("speex", describe=_describe_speex),
    THEORA: _Codec("theora", describe=_describe_theora, keyframe=lambda _track, payload: theora.is_keyframe(payload)),
    # Sample rate, channels and bits of these are the container's to say. No name is registered for them but in QuickTime.
    PCM: _Codec(""),
    FLOAT: _Codec(""),
    ALAW: _Codec(""),
    ULAW: _Codec(""),
}

# Where the source's word stands: its frame rate is the real one, the parameter sets' often a constant of the encoder.
_SOURCE_WINS: Final = frozenset({"frame_rate_mhz", "sample_bits"})
_DESCRIBED: Final = (
    "width",
    "height",
    "frame_rate_mhz",
    "sample_rate_hz",
    "channels",
    "sample_bits",
)


def complete(track: TrackInfo, first_payload: bytes = b"") -> TrackInfo:
    """Return the track with what its init data, or else its first packet, says of it.

    Size, sample rate and channels come from the bitstream wherever it says them; frame rate and sample bits only where
    the source said nothing. first_payload also gives init data where none is there, or where it brings its own.
    Raises RemoteProtocolError for init data that does not parse. A codec that is not known is left alone.
    """
    codec = _CODECS.get(track.codec)
    if codec is None:
        return track
    fields: dict[str, int] = {}
    if first_payload:
        init_data = parameter_sets(track, first_payload)
        track = track if init_data is None else track.changed(init_data=init_data)
        fields.update(_probe(codec, first_payload))
    if track.init_data:
        h264.check_record_size(track.init_data)
        fields.update(codec.describe(track.init_data))
    news = {
        name: value
        for name, value in fields.items()
        if value and getattr(track, name) != value and not (name in _SOURCE_WINS and getattr(track, name))
    }
    return track.changed(**news) if news else track


def _probe(codec: _Codec, payload: bytes) -> Fields:
    try:
        return codec.probe(payload)
    except RemoteProtocolError:
        return {}


def with_init_data(track: TrackInfo, init_data: bytes) -> TrackInfo:
    """Return the track after its init data changed: everything the new init data says is taken from it.

    Raises RemoteProtocolError.
    """
    codec = _CODECS.get(track.codec)
    changed = track.changed(init_data=init_data)
    if codec is None or not init_data:
        return changed
    h264.check_record_size(init_data)
    return changed.changed(**{name: value for name, value in codec.describe(init_data).items() if value})


def refreshed(track: TrackInfo, payload: bytes) -> TrackInfo | None:
    """Return the track as a keyframe's payload changes it; None where it changes nothing (and at once for most packets).

    New parameter sets count, and the picture size of VP8 and VP9.
    """
    codec = _CODECS.get(track.codec)
    if codec is None or track.type != VIDEO:
        return None
    init_data = parameter_sets(track, payload)
    changed = track if init_data is None else with_init_data(track, init_data)
    fields = _probe(codec, payload)
    if any(getattr(changed, name) != value for name, value in fields.items()):
        changed = changed.changed(**fields)
    return changed if changed is not track else None


def codec_string(track: TrackInfo) -> str:
    """Return the codec as RFC 6381 and the codec registries write it, "" for a codec without such a name.

    Without init data the shortest form that browsers take. Raises RemoteProtocolError for init data that does not parse.
    """
    codec = _CODECS.get(track.codec)
    if codec is None:
        return ""
    return codec.string(track.init_data) if codec.string and track.init_data else codec.bare


def shown_codec_string(track: TrackInfo) -> str:
    """Return the same to show it, "" also where init data does not parse: a player finds out from the media."""
    try:
        return codec_string(track)
    except RemoteProtocolError:
        return ""


def is_keyframe(track: TrackInfo, payload: bytes) -> bool:
    """Tell whether a packet is a random access point; always so for audio and codecs that are not known."""
    codec = _CODECS.get(track.codec)
    return codec is None or codec.keyframe(track, payload)


def parameter_sets(track: TrackInfo, payload: bytes) -> bytes | None:
    """Return new init data where a packet carries parameter sets that differ from the track's; None otherwise.

    Cost: one step per NAL unit or OBU for packets without parameter sets.
    """
    codec = _CODECS.get(track.codec)
    if codec is None:
        return None
    try:
        return codec.update(track, payload)
    except RemoteProtocolError:
        return None


def has_bframes(track: TrackInfo) -> bool | None:
    """Tell whether packets are presented in another order than decoded; None where the init data does not say.

    Raises RemoteProtocolError for init data that does not parse.
    """
    if track.type == AUDIO:
        return False
    codec = _CODECS.get(track.codec)
    if codec is None or (codec.reorders is not _never and not track.init_data):
        return None
    return codec.reorders(track.init_data)


def reordering(track: TrackInfo) -> int:
    """Return how many pictures may be decoded before one that is shown before them; -1 where the init data does not say.

    Raises RemoteProtocolError for init data that does not parse.
    """
    if track.codec == HEVC and track.init_data:
        return hevc.configured_sps(track.init_data).max_num_reorder_pics
    if track.codec != H264 or not track.init_data:
        return -1
    record = h264.parse_avcc(track.init_data)
    if not record.sps:
        return -1
    sps = h264.parse_sps(record.sps[0])
    depth = 0 if h264.reorders(sps) is False else sps.vui.max_num_reorder_frames
    return -1 if depth is None else depth


def profile_level(track: TrackInfo) -> tuple[str, str]:
    """Return profile and level of an H.264 track as people write them, such as ("High", "3.1"), to show them.

    ("", "") for others, and where init data does not parse.
    """
    if track.codec != H264 or not track.init_data:
        return "", ""
    try:
        record = h264.parse_avcc(track.init_data)
    except RemoteProtocolError:
        return "", ""
    profile, flags, level = (
        record.profile_idc,
        record.constraint_flags,
        record.level_idc,
    )
    return h264.profile_name(profile, flags), h264.level_name(level, flags, profile)
