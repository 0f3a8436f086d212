"""Files of one video track: byte streams of H.264, HEVC and MPEG video, and IVF. The engines of `mist.core` with the headers read."""

from __future__ import annotations

from typing import Final

from mist.core.annexb import H264StreamDemuxer, HevcStreamDemuxer
from mist.core.ivf import IvfStreamDemuxer
from mist.core.mpeg_video import MpegVideoStreamDemuxer
from mist.formats import av1, codecs, h264, hevc, mpeg2
from mist.formats.tracks import AV1, H264, HEVC, MPEG2, VIDEO, TrackInfo

DEFAULT_RATE: Final = (25, 1)  # where the stream says none: what ffmpeg takes, too
MAX_RATE: Final = 10_000
DEFAULT_RATE_MHZ: Final = 25_000


def _rate(time_scale: int, units: int) -> tuple[int, int]:
    """Return pictures and seconds of a rate that makes sense, else the default one."""
    if not time_scale or not units or time_scale > MAX_RATE * units or units > MAX_RATE * time_scale:
        return DEFAULT_RATE
    return time_scale, units


def _described(codec: str, init_data: bytes | None, info: TrackInfo | None) -> TrackInfo | None:
    if init_data is None:
        return None
    known = info or TrackInfo(VIDEO, codec, track_id=1)
    changed = codecs.with_init_data(known.changed(frame_rate_mhz=0), init_data)
    return changed if changed.frame_rate_mhz else changed.changed(frame_rate_mhz=DEFAULT_RATE_MHZ)


class H264Demuxer(H264StreamDemuxer):
    """An H.264 byte stream."""

    def sequence(self, unit: bytes) -> tuple[object, ...]:
        """Return the fields that the engine reads."""
        sps = h264.parse_sps(unit)
        order, vui = sps.picture_order, sps.vui
        reorders = h264.reorders(sps)
        depth = vui.max_num_reorder_frames if vui.max_num_reorder_frames is not None else -1
        return (
            sps.id, sps.frame_mbs_only, sps.separate_colour_planes, sps.log2_max_frame_num, order.type, order.log2_max_lsb,
            order.delta_always_zero, order.offset_for_non_ref, order.offset_for_bottom, order.cycle_offsets,
            0 if reorders is False else depth, *_rate(vui.time_scale, 2 * vui.units_in_tick),
        )  # fmt: skip

    def picture_set(self, unit: bytes) -> tuple[object, ...]:
        """Return the fields that the engine reads."""
        pps = h264.parse_pps(unit)
        return pps.id, pps.sps_id, pps.order_in_frame

    def describe(self, sets: list[bytes], info: TrackInfo | None) -> TrackInfo | None:
        """Return the track with the parameter sets in its init data."""
        return _described(H264, h264.updated_avcc(info.init_data if info else b"", sets), info)


class HevcDemuxer(HevcStreamDemuxer):
    """An HEVC byte stream."""

    _video_rate_mhz: int = 0

    def video_set(self, unit: bytes) -> int:
        """Take the frame rate that a video parameter set says, and return its number."""
        vps = hevc.parse_vps(unit)
        self._video_rate_mhz = vps.frame_rate_mhz
        return vps.id

    def sequence(self, unit: bytes) -> tuple[object, ...]:
        """Return the fields that the engine reads."""
        sps = hevc.parse_sps(unit)
        vui = sps.vui
        rate = _rate(vui.time_scale, vui.units_in_tick) if vui.time_scale else _rate(self._video_rate_mhz, 1000)
        return sps.id, sps.separate_colour_planes, sps.log2_max_poc_lsb, sps.max_num_reorder_pics, *rate

    def picture_set(self, unit: bytes) -> tuple[object, ...]:
        """Return the fields that the engine reads."""
        pps = hevc.parse_pps(unit)
        return pps.id, pps.sps_id, pps.dependent_slices, pps.output_flag, pps.extra_slice_header_bits

    def describe(self, sets: list[bytes], info: TrackInfo | None) -> TrackInfo | None:
        """Return the track with the parameter sets in its init data."""
        return _described(HEVC, hevc.updated_hvcc(info.init_data if info else b"", sets), info)


class MpegVideoDemuxer(MpegVideoStreamDemuxer):
    """An MPEG-1 or MPEG-2 video stream."""

    def describe(self, sequence: bytes, info: TrackInfo | None) -> tuple[TrackInfo, int, int, bool]:
        """Return the track that a sequence header tells, its rate, and whether no picture is reordered."""
        header = mpeg2.parse_sequence(sequence)
        known = info or TrackInfo(VIDEO, MPEG2, track_id=1)
        over, under = header.frame_rate if header.frame_rate[0] else DEFAULT_RATE
        rate_mhz = header.frame_rate_mhz or DEFAULT_RATE_MHZ
        changed = known.changed(width=header.width, height=header.height, frame_rate_mhz=rate_mhz)
        return changed, over, under, header.low_delay


class IvfDemuxer(IvfStreamDemuxer):
    """An IVF file."""

    def describe(
        self, codec: str, width: int, height: int, frame: bytes, info: TrackInfo | None
    ) -> tuple[TrackInfo, bool, bytes]:
        """Return the track after a frame, whether it is a keyframe, and the packet."""
        payload = av1.strip_temporal_delimiters(frame) if codec == AV1 else frame
        known = info or TrackInfo(VIDEO, codec, track_id=1, width=width, height=height)
        key = codecs.is_keyframe(known, payload)
        if info is None:
            return codecs.complete(known, payload), key, payload
        return (codecs.refreshed(known, payload) or known) if key else known, key, payload
