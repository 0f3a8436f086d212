"""What the HLS output knows of a stream that it holds open, live or on demand: its renditions and its master playlist."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

from mist.errors import NotFound
from mist.outputs.hls.master import TS_CODECS, master_playlist, subtitle_tracks
from mist.stream.capability import Capability
from mist.stream.parameters import PlaybackParameters
from mist.stream.reader import StreamReader
from mist.stream.segments import SegmentCache
from mist.stream.selectors import usable_tracks
from mist.stream.services import OutputServices
from mist.stream.state import TrackState

MAX_TRACKS: Final = 4  # in one rendition
MAX_RENDITIONS: Final = 64
TS_SUFFIX: Final = "ts"
VTT_SUFFIX: Final = "vtt"
MARK: Final = "\0"  # where the query goes in a playlist that is kept

_TRACK_LIST: Final = re.compile(r"[0-9]{1,4}(_[0-9]{1,4})*", re.ASCII)

CAPABILITY = Capability(
    name="HLS",
    friendly="Apple segmented over HTTP (HLS)",
    desc="Segmented streaming in Apple (TS-based) format over HTTP (HTTP Live Streaming)",
    deps="HTTP",
    url_rel="/hls/$/index.m3u8",
    url_prefix=("/hls/$/",),
    codecs=((*TS_CODECS[0], ("+subtitle",)),),
    methods=({"handler": "http", "type": "html5/application/vnd.apple.mpegurl", "hrn": "HLS (TS)", "priority": 9},),
    # What players of browsers cannot do: the stream is not offered to them, but whoever asks for it gets it.
    exceptions={
        "codec:HEVC": (("blacklist",),),
        "codec:MPEG2": (("blacklist",),),
        "codec:MP2": (("blacklist",),),
        "codec:MP3": (("blacklist",), ("whitelist", ("iPad", "iPhone", "iPod", "MacIntel", "Edge"))),
    },
    optional={
        "listlimit": {
            "name": "Live playlist limit",
            "help": "Maximum number of segments in live playlists, 0 for all that are in the buffer",
            "type": "uint",
            "default": 0,
            "option": "--list-limit",
            "short": "y",
        },
        "chunkpath": {
            "name": "Base URL of segments",
            "help": "Alternative URL that segments are fetched from, such as that of a cache in front of this server",
            "type": "str",
            "default": "",
            "option": "--chunkpath",
            "short": "e",
        },
        "nonchunked": {
            "name": "Send whole segments",
            "help": "Segments are always sent whole, with their length; kept for configurations that set it",
            "type": "bool",
            "default": False,
            "option": "--nonchunked",
            "short": "C",
        },
    },
)


def options_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configured options of the HLS connector, {} when it has none."""
    protocols = (config.get("config") or {}).get("protocols") or ()
    return next((entry for entry in protocols if entry.get("connector") == CAPABILITY.name), {})


class Rendition(Protocol):
    """The playlist and the segments of one choice of tracks. suffix: of a segment's name."""

    name: str
    suffix: str

    def refresh(self) -> None:
        """Follow the stream; costs a comparison when nothing has changed. Raises NotFound for tracks that are gone."""
        ...

    def ready(self) -> bool:
        """Return whether a player has enough to begin with."""
        ...

    def empty(self) -> bool:
        """Return whether there is nothing to list, and more may come."""
        ...

    def playlist(self, query: str) -> bytes:
        """Return the playlist. query: what follows the name of each segment, "" or from its "?" on."""
        ...

    def begin_us(self) -> int:
        """Return the time at which the list begins."""
        ...

    def playlist_between(self, query: str, start_us: int | None, stop_us: int | None) -> bytes:
        """Return the playlist of a part of the stream."""
        ...

    def segment(self, from_ms: int, to_ms: int) -> bytes | Awaitable[bytes]:
        """Return a segment, or what waits for it. Raises NotFound for one that is not there."""
        ...


class HlsStream:
    """A stream that a worker holds open for HLS."""

    def __init__(
        self, services: OutputServices, reader: StreamReader, url_name: str, cache: SegmentCache, serial: int
    ) -> None:
        """Take a reader; `close` gives it back. serial: makes the cache's keys unique."""
        self.services = services
        self.reader = reader
        self.url_name = url_name
        self.cache = cache
        self.serial = serial
        self.time = services.loop.time
        self.used_at = self.time()
        self.playable = False
        self.buffered_s = 0
        options = options_of(services.config)
        self.config = services.config
        self.list_limit = int(options.get("listlimit") or 0)
        self.chunk_path = str(options.get("chunkpath") or "").rstrip("/")
        self._renditions: dict[str, Rendition] = {}

    def close(self) -> None:
        """Give the reader back and forget the segments."""
        self.cache.forget(lambda key: isinstance(key, tuple) and key[0] == self.serial)
        self.services.close_stream(self.reader)

    def idle_s(self, longest_s: float) -> float:
        """Return after how long without a request nobody plays it any more, at most so long."""
        return longest_s

    def start_wait_s(self, longest_s: float) -> float:
        """Return how long a playlist waits until a player has enough to begin with, at most so long."""
        return longest_s

    def fix_begin(self, query: dict[str, str]) -> None:
        """Put where a viewer begins into a query that does not say it, where that changes with time."""

    def make_rendition(self, name: str, indexes: Sequence[int]) -> Rendition:
        """Return the rendition of some tracks."""
        raise NotImplementedError

    def make_subtitles(self, name: str, indexes: Sequence[int]) -> Rendition:
        """Return the rendition of a subtitle track."""
        raise NotImplementedError

    def usable(self) -> list[TrackState]:
        """Return the tracks that segments can carry together."""
        return usable_tracks(self.reader.tracks(), TS_CODECS)

    def segment_prefix(self, tracks: str) -> str:
        """Return what goes before a segment's name in a playlist."""
        return f"{self.chunk_path}/hls/{quote(self.url_name, safe='')}/{tracks}/" if self.chunk_path else ""

    def rendition(self, name: str) -> Rendition:
        """Return the rendition of a list of track numbers such as "0_1". Raises NotFound."""
        found = self._renditions.get(name)
        if found is None:
            indexes = [int(text) for text in name.split("_")] if _TRACK_LIST.fullmatch(name) else []
            if not indexes or len(indexes) > MAX_TRACKS or len(set(indexes)) != len(indexes):
                raise NotFound(f"No track {name[:40]!r}")
            subtitles = any(state.index == indexes[0] for state in subtitle_tracks(self.reader.tracks()))
            make = self.make_subtitles if subtitles and len(indexes) == 1 else self.make_rendition
            found = make(name, indexes)
            found.refresh()
            if len(self._renditions) >= MAX_RENDITIONS:
                self._renditions.clear()
            self._renditions[name] = found
        return found

    def master(self, parameters: PlaybackParameters, query: str) -> bytes:
        """Return the master playlist of the tracks that a viewer asked for. Raises NoSuitableTrack."""
        return master_playlist(self.reader.tracks(), parameters.selectors, query, live=self.reader.live)
