"""What happens to a live stream's buffer, for the handlers of triggers: its tracks, its health, its byte rate."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from mist.formats.codecs import shown_codec_string
from mist.formats.tracks import AUDIO, VIDEO
from mist.stream.health import health, track_name
from mist.stream.reader import StreamReader
from mist.stream.services import Triggers
from mist.stream.state import TrackState

FULL_FRAGMENTS: Final = 3


class BufferWatch:
    """Compares a stream with what it was when it was looked at last, and fires what follows from that."""

    FIRED: ClassVar = ("LIVE_TRACK_LIST", "STREAM_BUFFER", "LIVE_BANDWIDTH")

    def __init__(self, triggers: Triggers, reader: StreamReader, *, as_is: bool = False) -> None:
        """as_is: the handlers know already what there is now: another process told them."""
        self._triggers = triggers
        self._reader = reader
        self._tracks: list[tuple[int, object]] = []
        self._full = False
        self._dry = False
        self._rate = 0
        if as_is:
            tracks = reader.tracks()
            self._tracks = _shape(tracks)
            self._full = self._is_full(tracks)
            self._dry = self._full and "issues" in (health(reader) or {})

    def look(self) -> int:
        """Fire what has happened; return the byte rate that LIVE_BANDWIDTH has to be asked about, 0 for none."""
        tracks = self._reader.tracks()
        name = self._reader.name
        shape = _shape(tracks)
        if shape != self._tracks and all(track.next_sequence for track in tracks):
            self._tracks = shape
            if self._triggers.wanted("LIVE_TRACK_LIST", name):
                self._triggers.notify("LIVE_TRACK_LIST", name, [name, track_list(tracks), ""])
        if self._triggers.wanted("STREAM_BUFFER", name):
            self._look_at_health(name, tracks)
        rate = sum(track.bytes_per_second for track in tracks)
        if rate == self._rate or not self._triggers.wanted("LIVE_BANDWIDTH", name):
            return 0
        self._rate = rate
        return rate

    def _look_at_health(self, name: str, tracks: list[TrackState]) -> None:
        if not self._full:
            self._full = self._is_full(tracks)
            if self._full:
                self._say(name, "FULL", health(self._reader))
        if not self._full:
            return
        found = health(self._reader)
        if found is not None and ("issues" in found) != self._dry:
            self._dry = "issues" in found
            self._say(name, "DRY" if self._dry else "RECOVER", found)

    def _is_full(self, tracks: list[TrackState]) -> bool:
        return bool(tracks) and all(self._fragments(track) >= FULL_FRAGMENTS for track in tracks)

    def _fragments(self, track: TrackState) -> int:
        """Return how many fragments of a track are or were in the buffer."""
        keys = self._reader.keys(track.index)
        return keys[-1].fragment + 1 if keys else 0

    def _say(self, name: str, state: str, found: dict[str, Any] | None) -> None:
        text = json.dumps(found or {}, separators=(",", ":"))
        self._triggers.notify("STREAM_BUFFER", name, [name, state, text])


def _shape(tracks: list[TrackState]) -> list[tuple[int, object]]:
    return [(track.index, track.info) for track in tracks]


def track_list(tracks: list[TrackState]) -> str:
    """Return the tracks as LIVE_TRACK_LIST tells them, JSON by their names."""
    found = {track_name(track): _entry(track) for track in tracks}
    return json.dumps(found, separators=(",", ":")) if found else ""


def _entry(track: TrackState) -> dict[str, Any]:
    info = track.info
    entry: dict[str, Any] = {
        "codec": info.codec,
        "codecstring": shown_codec_string(info),
        "type": info.type,
        "idx": track.index,
        "trackid": info.track_id,
        "init": info.init_data.hex(),
        "firstms": track.first_us // 1000,
        "lastms": track.last_us // 1000,
        "nowms": track.now_us // 1000,
        "bps": track.bytes_per_second,
        "maxbps": track.max_bytes_per_second,
    }
    if track.jitter_ms:
        entry["jitter"] = track.jitter_ms
    if info.language not in ("", "und"):
        entry["lang"] = info.language
    if info.type == VIDEO:
        entry.update(width=info.width, height=info.height)
        entry.update(fpks=info.frame_rate_mhz, efpks=track.measured_frame_rate_mhz)
        entry.update(fps=info.frame_rate_mhz / 1000, efps=track.measured_frame_rate_mhz / 1000)
        if track.has_bframes:
            entry["bframes"] = 1
    elif info.type == AUDIO:
        entry.update(rate=info.sample_rate_hz, size=info.sample_bits, channels=info.channels)
    return entry
