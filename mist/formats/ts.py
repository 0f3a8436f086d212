"""Transport streams demuxed: packets read by `mist.core.ts_demux`, set-ups understood here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mist.core import ts_demux
from mist.core.ts_sections import StreamDescription
from mist.errors import RemoteProtocolError
from mist.formats import aac, ac3, codecs, h264, mpeg_audio, opus
from mist.formats.tracks import AAC, AC3, AV1, EAC3, H264, HEVC, MP2, MP3, OPUS, RAW, VIDEO, TrackInfo

EVERY_PROGRAM: Final = ts_demux.EVERY_PROGRAM

# channel_config_code 1 to 8: streams, coupled ones, and where each channel is (ETSI TS 103 491, Opus profile, table 4-2).
_OPUS_LAYOUTS: Final[Mapping[int, tuple[int, int, bytes]]] = {
    1: (1, 0, bytes((0,))),
    2: (1, 1, bytes((0, 1))),
    3: (2, 1, bytes((0, 2, 1))),
    4: (2, 2, bytes((0, 1, 2, 3))),
    5: (3, 2, bytes((0, 4, 1, 2, 3))),
    6: (4, 2, bytes((0, 4, 1, 2, 3, 5))),
    7: (4, 3, bytes((0, 4, 1, 2, 3, 5, 6))),
    8: (5, 3, bytes((0, 6, 1, 2, 3, 4, 5, 7))),
}
_NEEDS_INIT: Final = frozenset({H264, HEVC, AV1})


class TsDemuxer(ts_demux.TsDemuxer):
    """Bytes of a transport stream in, packets out. program: its number, 0 for the first, EVERY_PROGRAM for all."""

    def describe(self, description: StreamDescription, sample: bytes) -> TrackInfo | None:
        """Return what a stream is by its first unit, None while that does not tell enough."""
        info = TrackInfo(description.type, description.codec, track_id=description.pid, language=description.language)
        try:
            return _DESCRIBED.get(description.codec, _describe_plain)(info, description, sample)
        except RemoteProtocolError:
            return None

    def refresh(self, description: StreamDescription, info: TrackInfo, sample: bytes) -> TrackInfo | None:
        """Return the track as a unit with set-up changes it, None where nothing changes."""
        try:
            if info.type == VIDEO:
                return codecs.refreshed(info, sample)
            return self.describe(description, sample)
        except RemoteProtocolError:
            return None

    def slice_coding(self, sps: bytes) -> tuple[bool, int, bool, int]:
        """Return what slice headers need of an SPS of H.264; zeros for one that does not parse."""
        try:
            parsed = h264.parse_sps(sps)
        except RemoteProtocolError:
            return False, 0, False, 0
        order = parsed.picture_order
        order_bits = order.log2_max_lsb if order.type == 0 else 0
        return not parsed.frame_mbs_only, parsed.log2_max_frame_num, parsed.separate_colour_planes, order_bits

    def reordering(self, info: TrackInfo) -> int:
        """Return the depth to which pictures are reordered, as the parameter sets say; -1 where they do not."""
        try:
            return codecs.reordering(info)
        except RemoteProtocolError:
            return -1


def _describe_plain(info: TrackInfo, description: StreamDescription, sample: bytes) -> TrackInfo | None:
    if info.codec == RAW:
        return info.changed(init_data=description.descriptors)
    info = codecs.complete(info, sample)
    return info if info.init_data or info.codec not in _NEEDS_INIT else None


def _describe_adts(info: TrackInfo, _description: StreamDescription, sample: bytes) -> TrackInfo:
    header = aac.parse_adts(sample)
    return codecs.complete(info.changed(init_data=aac.adts_config(header, sample[header.header_bytes :])))


def _describe_latm(info: TrackInfo, _description: StreamDescription, sample: bytes) -> TrackInfo:
    return codecs.complete(info.changed(codec=AAC, init_data=sample))


def _describe_mpeg_audio(info: TrackInfo, _description: StreamDescription, sample: bytes) -> TrackInfo:
    layer = mpeg_audio.parse_header(sample).layer
    return codecs.complete(info.changed(codec=MP3 if layer == 3 else MP2), sample)


def _describe_ac3(info: TrackInfo, _description: StreamDescription, sample: bytes) -> TrackInfo:
    frame = ac3.parse_sync_frame(sample)
    return codecs.complete(info.changed(codec=EAC3 if frame.extended else AC3), sample)


def _describe_opus(info: TrackInfo, description: StreamDescription, sample: bytes) -> TrackInfo:
    layout = _OPUS_LAYOUTS.get(description.channel_code)
    if layout is None:
        return codecs.complete(info, sample)
    streams, coupled, mapping = layout
    count = description.channel_code
    head = opus.OpusHead(count, family=int(count > 2), streams=streams, coupled=coupled, mapping=mapping)
    return codecs.complete(info.changed(init_data=opus.build_head(head)))


_DESCRIBED: Final[Mapping[str, Callable[[TrackInfo, StreamDescription, bytes], TrackInfo | None]]] = {
    AAC: _describe_adts,
    "LATM": _describe_latm,
    MP3: _describe_mpeg_audio,
    AC3: _describe_ac3,
    EAC3: _describe_ac3,
    OPUS: _describe_opus,
}
