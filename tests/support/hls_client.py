"""An HLS client of few lines: reads the playlists and fetches every segment once, in order."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """What a media playlist says: target duration, (duration in seconds, address) of the segments, number of the first, ended."""

    target_s: int
    first_number: int
    segments: list[tuple[float, str]]
    ended: bool


def fetch(url: str, timeout_s: float = 10) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout_s) as reply:
        return bytes(reply.read())


def variants(url: str) -> list[str]:
    """Return the addresses of the media playlists that a master playlist names, in its order."""
    lines = [line.strip() for line in fetch(url).decode().splitlines()]
    return [urllib.parse.urljoin(url, line) for line in lines if line and not line.startswith("#")]


def media_playlist(url: str) -> MediaPlaylist:
    """Fetch and read a media playlist."""
    return read_media_playlist(url, fetch(url))


def read_media_playlist(url: str, document: bytes) -> MediaPlaylist:
    """Read a media playlist that came from this address."""
    text = document.decode()
    assert text.startswith("#EXTM3U"), text[:200]
    assert "#EXT-X-ERROR" not in text, text
    target = re.search(r"#EXT-X-TARGETDURATION:(\d+)", text)
    first = re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", text)
    found = re.findall(r"#EXTINF:([\d.]+),[^\n]*\n(?:#[^\n]*\n)*([^#\s]+)", text)
    return MediaPlaylist(
        int(target[1]) if target else 0,
        int(first[1]) if first else 0,
        [(float(duration), urllib.parse.urljoin(url, name)) for duration, name in found],
        "#EXT-X-ENDLIST" in text,
    )


def record_hls(master: str, target: Path, *, seconds: float, timeout_s: float = 40) -> int:
    """Write the segments of the first quality, as many as make up the seconds, to one file; return how many.

    Waits for the stream to become playable. Raises TimeoutError; AssertionError for a gap in the numbers.
    """
    deadline = time.monotonic() + timeout_s
    playlist_url, next_number, count, got_s = "", -1, 0, 0.0
    with target.open("wb") as file:
        while got_s < seconds:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} segments, {got_s:.1f} s of {seconds} s in {timeout_s} s")
            try:
                playlist_url = playlist_url or variants(master)[0]
                playlist = media_playlist(playlist_url)
            except (urllib.error.HTTPError, IndexError, AssertionError):
                if count:
                    raise
                playlist_url = ""
                time.sleep(POLL_S)
                continue
            if next_number < 0:
                next_number = playlist.first_number
            assert next_number >= playlist.first_number, "a segment left the playlist before it could be read"
            for duration, url in playlist.segments[next_number - playlist.first_number :]:
                assert round(duration) <= playlist.target_s
                file.write(fetch(url))
                next_number, count, got_s = next_number + 1, count + 1, got_s + duration
            if playlist.ended:
                break
            time.sleep(POLL_S)
    return count
