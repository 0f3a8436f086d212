"""Fuzz target: playlists and segments of HLS as an input takes them."""

from __future__ import annotations

from mist.errors import RemoteProtocolError
from mist.formats.hls_follow import PlaylistFollower
from mist.formats.hls_segments import read_segment, renditions_of, resolve_ranges, unix_us
from mist.formats.m3u8 import MasterPlaylist, parse_playlist


def fuzz(data: bytes) -> None:
    """Read any bytes as a playlist and as a segment; what is accepted keeps the promises that the input relies on."""
    try:
        playlist = parse_playlist(data, lenient=True)
        if isinstance(playlist, MasterPlaylist):
            renditions_of(playlist)
        else:
            for segment in resolve_ranges(playlist.segments):
                unix_us(segment.date)
            found = PlaylistFollower().take(playlist)
            if len(found) > len(playlist.segments):
                raise RuntimeError("more segments than are listed")
    except RemoteProtocolError:
        pass
    try:
        media = read_segment(data)
    except RemoteProtocolError:
        return
    if any(not 0 <= packet.track < len(media.infos) for packet in media.packets):
        raise RuntimeError("a packet of an unknown track")
