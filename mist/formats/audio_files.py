"""Files of audio frames: MP3, ADTS, AC-3 and DTS, each the engine of `mist.core.audio_frames` with what it must know of the codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mist.core.audio_frames import AdtsFrameMuxer, AudioFrameDemuxer, FrameMuxer
from mist.formats import aac, ac3, codecs, mpeg_audio
from mist.formats.tracks import AAC, AC3, AUDIO, DTS, EAC3, MP2, MP3, TrackInfo


def describe(form: str, frame: bytes) -> TrackInfo:
    """Return the track that a frame is of. form: of the frames, a key of `mist.core.audio_frames.FORMATS`. Raises RemoteProtocolError."""
    return _DESCRIBE[form](frame)


def _mpeg(frame: bytes) -> TrackInfo:
    codec = MP3 if mpeg_audio.parse_header(frame).layer == 3 else MP2
    return codecs.complete(TrackInfo(AUDIO, codec, track_id=1), frame)


def _adts(frame: bytes) -> TrackInfo:
    header = aac.parse_adts(frame)
    config = aac.adts_config(header, frame[header.header_bytes :])
    return codecs.complete(TrackInfo(AUDIO, AAC, config, track_id=1))


def _ac3(frame: bytes) -> TrackInfo:
    extended = any(part.extended for part in ac3.iterate_sync_frames(frame))
    return codecs.complete(TrackInfo(AUDIO, EAC3 if extended else AC3, track_id=1), frame)


def _dts(frame: bytes) -> TrackInfo:
    return codecs.complete(TrackInfo(AUDIO, DTS, track_id=1), frame)


_DESCRIBE: Final[Mapping[str, Callable[[bytes], TrackInfo]]] = {"mpeg": _mpeg, "adts": _adts, "ac3": _ac3, "dts": _dts}


class _FramesDemuxer(AudioFrameDemuxer):
    """Frames of one form."""

    form: str

    def __init__(self) -> None:
        super().__init__(self.form)

    def describe(self, frame: bytes) -> TrackInfo:
        """Return the track that a frame is of."""
        return describe(self.form, frame)


class Mp3Demuxer(_FramesDemuxer):
    """MPEG audio of layers II and III. The frame that tells about the file (Xing, Info, VBRI) is no packet."""

    form = "mpeg"


class AdtsDemuxer(_FramesDemuxer):
    """AAC with ADTS headers, which become the AudioSpecificConfig."""

    form = "adts"


class Ac3Demuxer(_FramesDemuxer):
    """AC-3 and E-AC-3. A packet is an independent frame with all substreams of its time."""

    form = "ac3"


class DtsDemuxer(_FramesDemuxer):
    """DTS core frames, each with the extension substream that follows it."""

    form = "dts"


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
