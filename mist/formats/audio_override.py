"""Audio that takes the place of a stream's own: silence, or a file of AAC that is repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mist.core.audio_frames import AudioFrameDemuxer
from mist.core.demuxer import demux
from mist.errors import LimitExceededError, RemoteProtocolError, UnsupportedError
from mist.formats import codecs
from mist.formats.audio_files import AdtsDemuxer
from mist.formats.tracks import AAC, AUDIO, TrackInfo

SILENCES: Final = frozenset({"silence", "silent"})
MAX_FILE_BYTES: Final = 32 << 20
MAX_FRAMES: Final = 100_000
# AAC-LC, 44.1 kHz, stereo: one frame of nothing (ISO/IEC 14496-3 table 4.4: a channel pair element without spectrum).
_SILENT_FRAME: Final = bytes.fromhex("210049900219002380")
_SILENT_CONFIG: Final = bytes.fromhex("1210")


@dataclass(frozen=True, slots=True)
class AddedTrack:
    """A track that a stream does not have. frames: payloads, 1024 samples each."""

    info: TrackInfo
    frames: tuple[bytes, ...]


def split_selector(text: str) -> tuple[str, list[str]]:
    """Return what of an audio selector is about the stream's own tracks, and what names other audio."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    other = [item for item in items if item.lower() in SILENCES or "/" in item]
    return ",".join(item for item in items if item not in other), other


def silence() -> AddedTrack:
    """Return a track in which nothing is to be heard."""
    return AddedTrack(codecs.complete(TrackInfo(AUDIO, AAC, _SILENT_CONFIG)), (_SILENT_FRAME,))


def parse_adts_file(data: bytes) -> AddedTrack:
    """Return the track of a file of AAC frames with ADTS headers. Raises RemoteProtocolError, UnsupportedError."""
    demuxer: AudioFrameDemuxer = AdtsDemuxer()
    try:
        packets = demux(demuxer, data)
    except UnsupportedError as error:
        raise UnsupportedError(f"no AAC with ADTS headers: {error}") from error
    if not packets or not demuxer.tracks:
        raise RemoteProtocolError("no AAC with ADTS headers")
    if len(packets) > MAX_FRAMES:
        raise LimitExceededError(f"{len(packets)} frames; the limit is {MAX_FRAMES}")
    return AddedTrack(demuxer.tracks[0], tuple(packet.payload for packet in packets))
