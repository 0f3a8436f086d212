"""HLS from an on-demand stream: a playlist of the whole file, cut at its keyframes, and segments that are muxed when asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from mist.core.text_tracks import TextMuxer
from mist.core.ts_mux import TsMuxer
from mist.errors import NotFound
from mist.formats.m3u8 import MediaPlaylist, Segment, write_media
from mist.formats.subtitles import MAX_NEXT_US, to_cues, webvtt_segment
from mist.formats.tracks import TrackInfo
from mist.outputs.hls.master import subtitle_tracks
from mist.outputs.hls.stream import MARK, TS_SUFFIX, VTT_SUFFIX, HlsStream
from mist.stream.on_demand import places
from mist.stream.reader import StreamReader
from mist.stream.segments import ROUNDING_US, SegmentCache, SpanSegment, SpanSegments
from mist.stream.services import OutputServices

WHOLE_WAIT_S: Final = 2.0  # a playlist waits this long for the whole index; after that it is one that grows
CACHE_S: Final = 3600


class OnDemandRendition:
    """The playlist and the segments of one choice of tracks."""

    suffix = TS_SUFFIX

    def __init__(self, stream: OnDemandStream, name: str, indexes: Sequence[int]) -> None:
        self.stream = stream
        self.name = name
        self.indexes = list(indexes)
        self._muxing: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._written = (-1, False)
        self._parts: list[str] = []

    def refresh(self) -> None:
        """Follow the index as it grows. Raises NotFound for tracks that are not there."""
        known = self._known()
        if any(index not in known for index in self.indexes):
            raise NotFound(f"The stream has no track {self.name}")
        self.stream.segments.follow(self.stream.media)

    def _known(self) -> set[int]:
        """Return the tracks that this kind of rendition may be of."""
        return {state.index for state in self.stream.usable()}

    def _key(self, segment: SpanSegment) -> tuple[int, tuple[int, ...], int, int]:
        return self.stream.serial, tuple(self.indexes), segment.from_ms, segment.to_ms

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
            uri = f"{prefix}{one.from_ms}_{one.to_ms}.{self.suffix}{MARK}"
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
        return self.stream.cache.get_or_make(self._key(segment), lambda: made)


class OnDemandSubtitles(OnDemandRendition):
    """The playlist and the segments of one subtitle track of an on-demand stream."""

    suffix = VTT_SUFFIX

    def _known(self) -> set[int]:
        return {state.index for state in subtitle_tracks(self.stream.reader.tracks())}

    async def _mux(self, segment: SpanSegment) -> bytes:
        """Make a segment of all cues that are shown between its ends, with all of their time."""
        packets: list[tuple[int, bytes]] = []
        for number in range(segment.first, segment.end):
            packets += await self._packets(number)
        packets = [*await self._before(segment), *packets, *await self._behind(segment)]
        shown = [cue for cue in to_cues(packets) if cue.end_us > segment.from_us and cue.start_us < segment.to_us]
        made = webvtt_segment(shown, segment.from_us)
        return self.stream.cache.get_or_make(self._key(segment), lambda: made)

    async def _before(self, segment: SpanSegment) -> list[tuple[int, bytes]]:
        """Return the last packet before a segment, whose text may still be shown in it."""
        for number in range(segment.first - 1, -1, -1):
            if found := (await self._packets(number))[-1:]:
                return found
            if self.stream.media.place(number).from_us <= segment.from_us - MAX_NEXT_US:
                break
        return []

    async def _behind(self, segment: SpanSegment) -> list[tuple[int, bytes]]:
        """Return the first packet behind a segment, which ends what is shown there."""
        media, number = self.stream.media, segment.end
        while await media.reaches(number) and media.place(number).from_us < segment.to_us + MAX_NEXT_US:
            if found := (await self._packets(number))[:1]:
                return found
            number += 1
        return []

    async def _packets(self, number: int) -> list[tuple[int, bytes]]:
        """Return (time, text) of the track's packets in a span."""
        loaded = await self.stream.media.span(number)
        index = self.indexes[0]
        if index >= len(loaded.infos):
            return []
        gathered = _Gathered([loaded.infos[index]])
        loaded.span.mux(gathered, places([index], len(loaded.infos)))
        return gathered.packets


class _Gathered(TextMuxer):
    """Keeps packets of a text track."""

    def __init__(self, tracks: Sequence[TrackInfo]) -> None:
        super().__init__(tracks)
        self.packets: list[tuple[int, bytes]] = []

    def serialize(self, _track: int, time_us: int, payload: bytes) -> bytes:
        """Keep a packet."""
        self.packets.append((time_us, payload))
        return b""


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

    def make_subtitles(self, name: str, indexes: Sequence[int]) -> OnDemandSubtitles:
        """Return the rendition of a subtitle track."""
        return OnDemandSubtitles(self, name, indexes)
