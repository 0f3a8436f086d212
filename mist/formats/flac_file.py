"""FLAC files: what their metadata says of the track. Frames are read and written by `mist.core.flac_file`.   Spec: RFC 9639 section 8."""

from __future__ import annotations

from collections.abc import Sequence

from mist.core.flac_file import FlacDemuxer, FlacMuxer
from mist.formats import flac, xiph
from mist.formats.tracks import AUDIO, FLAC, TrackInfo


def describe(stream_info: bytes, comments: bytes) -> TrackInfo:
    """Return the track of a file. comments: body of its comment block, b"" if it has none. Raises RemoteProtocolError."""
    info = flac.parse_stream_info(stream_info)
    return TrackInfo(
        AUDIO, FLAC, stream_info, language=xiph.language_of(comments), sample_rate_hz=info.sample_rate_hz,
        channels=info.channels, sample_bits=info.sample_bits,
    )  # fmt: skip


def make_demuxer() -> FlacDemuxer:
    """Return a demuxer of FLAC files."""
    return FlacDemuxer(describe)


def make_muxer(tracks: Sequence[TrackInfo]) -> FlacMuxer:
    """Return a muxer of FLAC files for one track. Raises UnsupportedError."""
    return FlacMuxer(tracks)
