"""HLS from an on-demand stream: a playlist of the whole file, cut at its keyframes, and segments that are muxed when asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from mist.core.ts_mux import TsMuxer
from mist.errors import NotFound
from mist.formats.m3u8 import MediaPlaylist, Segment, write_media
from mist.outputs.hls.stream import MARK, HlsStream
from mist.stream.on_demand import places
from mist.stream.reader import StreamReader
from mist.stream.segments import ROUNDING_US, SegmentCache, SpanSegment, SpanSegments
from mist.stream.services import OutputServices

WHOLE_WAIT_S: Final = 2.0  # a playlist waits this long for the whole index; after that it is one that grows
CACHE_S: Final = 3600


class OnDemandRendition:
    """The playlist and the segments of one choice of tracks."""

    def __init__(self, stream: OnDemandStream, name: str, indexes: Sequence[int]) -> None:
        self.stream = stream
        self.name = name
        self.indexes = list(indexes)
        self._muxing: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._written = (-1, False)
        self._parts: list[str] = []

    def refresh(self) -> None:
        """Follow the index as it grows. Raises NotFound for tracks that are not there."""
        usable = {state.index for state in self.stream.usable()}
        if any(index not in usable for index in self.indexes):
            raise NotFound(f"The stream has no track {self.name}")
        self.stream.segments.follow(self.stream.media)

    def ready(self) -> bool:
        """Return whether the whole stream can be listed."""
        self.stream.segments.follow(self.stream.media)
        return self.stream.segments.complete

    def empty(self) -> bool:
        """Return whether there is nothing to list yet."""
        return not self.stream.segments.list and not self.stream.segments.complete

    def _write(self, segments: Sequence[SpanSegment]) -> str:
        """Return the playlist with MARK where the query of a segment goes."""
        prefix = self.stream.segment_prefix(self.name)
        listed = []
        version: int | None = None
        for one in segments:
            uri = f"{prefix}{one.from_ms}_{one.to_ms}.ts{MARK}"
            listed.append(Segment(uri, one.duration_us, version is not None and one.version != version))
            version = one.version
        whole = self.stream.segments.complete
        longest_us = max((one.duration_us for one in self.stream.segments.list), default=0)
        return write_media(
            MediaPlaylist(
                target_duration_s=max((longest_us + ROUNDING_US) // 1_000_000, 1),
                segments=tuple(listed),
                media_sequence=segments[0].number if segments else 0,
                ended=whole,
                type="VOD" if whole else "EVENT",
            )
        )

    def playlist(self, query: str) -> bytes:
        """Return the playlist. query: what follows the name of each segment, "" or from its "?" on."""
        segments = self.stream.segments
        if self._written != (len(segments.list), segments.complete):
            self._parts = self._write(segments.list).split(MARK)
            self._written = (len(segments.list), segments.complete)
        return query.join(self._parts).encode()

    def begin_us(self) -> int:
        """Return the time at which the list begins."""
        return self.stream.segments.list[0].from_us if self.stream.segments.list else 0

    def playlist_between(self, query: str, start_us: int | None, stop_us: int | None) -> bytes:
        """Return the playlist of a part of the stream."""
        wanted = [
            one
            for one in self.stream.segments.list
            if (start_us is None or one.to_us > start_us) and (stop_us is None or one.from_us < stop_us)
        ]
        return self._write(wanted).replace(MARK, query).encode()

    def segment(self, from_ms: int, to_ms: int) -> bytes | Awaitable[bytes]:
        """Return a segment that was muxed before, or what waits until it is. Raises NotFound."""
        cached = self.stream.cache.get((self.stream.serial, tuple(self.indexes), from_ms, to_ms))
        if cached is not None:
            return cached
        self.refresh()
        found = self.stream.segments.find(from_ms, to_ms)
        if found is None:
            raise NotFound("Fragment out of range")
        muxing = self._muxing.get((from_ms, to_ms))
        if muxing is None:
            muxing = self._muxing[from_ms, to_ms] = asyncio.ensure_future(self._mux(found))
            muxing.add_done_callback(lambda task: self._muxing.pop((from_ms, to_ms)).cancelled() or task.exception())
        return asyncio.shield(muxing)

    async def _mux(self, segment: SpanSegment) -> bytes:
        """Make a segment: tables first, and padded so that the next one continues its continuity counters."""
        media = self.stream.media
        muxer: TsMuxer | None = None
        for number in range(segment.first, segment.end):
            loaded = await media.span(number)
            if muxer is None:
                infos = [loaded.infos[index] for index in self.indexes]
                muxer = TsMuxer(infos, media.name, segment.number, repeat_tables=False)
            loaded.span.mux(muxer, places(self.indexes, len(loaded.infos)))
        assert muxer is not None
        muxer.pad_counters()
        made = muxer.take_output()
        key = (self.stream.serial, tuple(self.indexes), segment.from_ms, segment.to_ms)
        return self.stream.cache.get_or_make(key, lambda: made)


class OnDemandStream(HlsStream):
    """An on-demand stream that a worker holds open for HLS."""

    def __init__(
        self, services: OutputServices, reader: StreamReader, url_name: str, cache: SegmentCache, serial: int
    ) -> None:
        """Take a reader; `close` gives it back. Raises NotFound."""
        super().__init__(services, reader, url_name, cache, serial)
        self.media = services.on_demand(reader)
        self.segments = SpanSegments(reader.segment_us)
        self.playable = True
        self.buffered_s = CACHE_S

    def start_wait_s(self, longest_s: float) -> float:
        """Return how long a playlist waits for the whole index."""
        return min(longest_s, WHOLE_WAIT_S)

    def make_rendition(self, name: str, indexes: Sequence[int]) -> OnDemandRendition:
        """Return the rendition of some tracks."""
        return OnDemandRendition(self, name, indexes)
