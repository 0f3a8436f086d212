"""Files of audio frames: MP3, ADTS, AC-3 and DTS, each the engine of `mist.core.audio_frames` with what it must know of the codec."""

from __future__ import annotations

from collections.abc import Sequence

from mist.core.audio_frames import AdtsFrameMuxer, AudioFrameDemuxer, FrameMuxer
from mist.formats import aac, ac3, codecs, mpeg_audio
from mist.formats.tracks import AAC, AC3, AUDIO, DTS, EAC3, MP2, MP3, TrackInfo


class Mp3Demuxer(AudioFrameDemuxer):
    """MPEG audio of layers II and III. The frame that tells about the file (Xing, Info, VBRI) is no packet."""

    def __init__(self) -> None:
        super().__init__("mpeg")

    def describe(self, frame: bytes) -> TrackInfo:
        """Return the track that a frame is of."""
        codec = MP3 if mpeg_audio.parse_header(frame).layer == 3 else MP2
        return codecs.complete(TrackInfo(AUDIO, codec, track_id=1), frame)


class AdtsDemuxer(AudioFrameDemuxer):
    """AAC with ADTS headers, which become the AudioSpecificConfig."""

    def __init__(self) -> None:
        super().__init__("adts")

    def describe(self, frame: bytes) -> TrackInfo:
        """Return the track that a frame is of."""
        header = aac.parse_adts(frame)
        config = aac.adts_config(header, frame[header.header_bytes :])
        return codecs.complete(TrackInfo(AUDIO, AAC, config, track_id=1))


class Ac3Demuxer(AudioFrameDemuxer):
    """AC-3 and E-AC-3. A packet is an independent frame with all substreams of its time."""

    def __init__(self) -> None:
        super().__init__("ac3")

    def describe(self, frame: bytes) -> TrackInfo:
        """Return the track that a packet is of."""
        extended = any(part.extended for part in ac3.iterate_sync_frames(frame))
        return codecs.complete(TrackInfo(AUDIO, EAC3 if extended else AC3, track_id=1), frame)


class DtsDemuxer(AudioFrameDemuxer):
    """DTS core frames, each with the extension substream that follows it."""

    def __init__(self) -> None:
        super().__init__("dts")

    def describe(self, frame: bytes) -> TrackInfo:
        """Return the track that a packet is of."""
        return codecs.complete(TrackInfo(AUDIO, DTS, track_id=1), frame)


class Mp3Muxer(FrameMuxer):
    """MP3 or MP2 frames as they are."""

    def __init__(self, tracks: Sequence[TrackInfo]) -> None:
        super().__init__(tracks, (MP3, MP2))


class Ac3Muxer(FrameMuxer):
    """AC-3 or E-AC-3 frames as they are."""

    def __init__(self, tracks: Sequence[TrackInfo]) -> None:
        super().__init__(tracks, (AC3, EAC3))


class DtsMuxer(FrameMuxer):
    """DTS frames as they are."""

    def __init__(self, tracks: Sequence[TrackInfo]) -> None:
        super().__init__(tracks, (DTS,))


class AdtsMuxer(AdtsFrameMuxer):
    """AAC frames with ADTS headers."""

    def prefix(self, info: TrackInfo) -> bytes:
        """Return the header for a track. Raises UnsupportedError for what ADTS cannot say."""
        if info.init_data:
            return aac.adts_prefix(aac.parse_config(info.init_data))
        return aac.adts_prefix(aac.simple_config(info.sample_rate_hz, info.channels))
