"""Fuzz target: playlists from other servers."""

from __future__ import annotations

from mist.errors import RemoteProtocolError
from mist.formats.m3u8 import MediaPlaylist, parse_playlist


def fuzz(data: bytes) -> None:
    """Read any bytes as a playlist; what is accepted keeps the promises that a player relies on."""
    try:
        playlist = parse_playlist(data)
    except RemoteProtocolError:
        return
    if isinstance(playlist, MediaPlaylist):
        numbers = [segment.sequence for segment in playlist.segments]
        if numbers != list(range(playlist.media_sequence, playlist.media_sequence + len(numbers))):
            raise RuntimeError(f"segments are numbered {numbers[:10]}")
        if any(segment.duration_us > playlist.target_duration_s * 1_000_000 + 500_000 for segment in playlist.segments):
            raise RuntimeError("a segment is longer than the target duration")
