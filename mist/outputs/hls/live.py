"""HLS from a live stream: playlists and segments of what lies in its buffer; all processes make the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mist.core.ts_mux import TsMuxer
from mist.errors import NotFound
from mist.formats.m3u8 import MediaPlaylist, Segment, write_media
from mist.formats.subtitles import MAX_NEXT_US, to_cues, webvtt_segment
from mist.formats.tracks import VIDEO, TrackInfo
from mist.outputs.base import UNPLAYABLE
from mist.outputs.hls.master import subtitle_tracks
from mist.outputs.hls.stream import MARK, TS_SUFFIX, VTT_SUFFIX, HlsStream
from mist.stream.reader import StreamReader
from mist.stream.segments import (
    Fragment,
    FragmentList,
    SegmentCache,
    init_runs,
    list_fragments,
    listed,
    segment_ranges,
    split_ranges,
    target_duration_s,
)
from mist.stream.services import OutputServices
from mist.stream.state import Key, TrackState

IDLE_TARGETS: Final = 3
MIN_IDLE_S: Final = 4.0
START_FRAGMENTS: Final = 2  # a new stream's playlist waits for this many
NEVER_US: Final = 1 << 62
RECHECK_S: Final = 0.01  # how often a track that lags is looked at again


class LiveRendition:
    """The playlist and the segments of one choice of tracks."""

    suffix = TS_SUFFIX

    def __init__(self, stream: LiveStream, name: str, indexes: Sequence[int]) -> None:
        self.stream = stream
        self.name = name
        self.indexes = tuple(indexes)
        self.fragments = FragmentList((), True, False)
        self._seen: tuple[int, int, int] | None = None
        self._recheck_at = 0.0
        self._first_listed = 0
        self._target_s = 1
        self._parts: list[str] = []

    def refresh(self) -> None:
        """Follow the stream; costs a comparison when nothing has changed. Raises NotFound for tracks that are gone."""
        reader = self.stream.reader
        now = (reader.key_generation(), reader.track_set_generation(), int(reader.status()))
        if now == self._seen and (self.fragments.complete or self.stream.time() < self._recheck_at):
            return
        try:
            self._follow(reader)
        except NotFound:
            if reader.status() not in UNPLAYABLE or not self.fragments.fragments:
                raise
            self.fragments = FragmentList(self.fragments.fragments, True, True)  # its memory is gone: this was all
        self._parts = self._write(self._listed()).split(MARK)
        self._recheck_at = self.stream.time() + RECHECK_S
        self._seen = now

    def _follow(self, reader: StreamReader) -> None:
        """Look at the stream's fragments. Raises NotFound."""
        main, others = self._tracks()
        found = list_fragments(reader, main, others, reader.status() in UNPLAYABLE)
        unknown = [span for state in (main, *others) for span in self.stream.unknown_spans(state.index)]
        whole = tuple(
            one
            for one in found.fragments
            if all(to_us <= one.from_us or from_us >= one.to_us for from_us, to_us in unknown)
        )
        self.fragments = FragmentList(whole, found.complete, found.ended)
        self._target_s = target_duration_s(reader, main, self.fragments.fragments)
        self.stream.target_s = max(self.stream.target_s, self._target_s)

    def _tracks(self) -> tuple[TrackState, list[TrackState]]:
        """Return the track whose fragments are followed, and the others."""
        states = {state.index: state for state in self.stream.usable()}
        span_us = max((state.last_us - state.first_us for state in states.values()), default=0)
        self.stream.buffered_s = span_us // 1_000_000
        for (
            state
        ) in self.stream.reader.tracks():  # one that has been silent for long plays on as soon as there is more of it
            if state.index in self.indexes and 0 < state.next_sequence == state.first_sequence:
                states[state.index] = state
        if any(index not in states for index in self.indexes):
            raise NotFound(f"The stream has no track {self.name}")
        chosen = [states[index] for index in self.indexes]
        videos = [state for state in chosen if state.info.type == VIDEO]
        main = (videos or [state for state in states.values() if state.info.type == VIDEO] or chosen)[0]
        return main, [state for state in chosen if state.index != main.index]

    def _listed(self) -> Sequence[Fragment]:
        """Return what the playlist lists; it never goes back to what it has dropped."""
        fragments = self.fragments.fragments
        if not self.fragments.ended:
            fragments = tuple(listed(fragments, self._target_s, self.stream.list_limit))
        kept = tuple(fragment for fragment in fragments if fragment.number >= self._first_listed)
        if kept:
            self._first_listed = kept[0].number
        return kept

    def _write(self, fragments: Sequence[Fragment]) -> str:
        """Return the playlist with MARK where the query of a segment goes."""
        prefix = self.stream.segment_prefix(self.name)
        before: Fragment | None = None
        segments = []
        for fragment in fragments:
            broken = before is not None and fragment.discontinuities != before.discontinuities
            uri = f"{prefix}{fragment.from_ms}_{fragment.to_ms}.{self.suffix}{MARK}"
            segments.append(Segment(uri, fragment.duration_us, broken))
            before = fragment
        return write_media(
            MediaPlaylist(
                target_duration_s=self._target_s,
                segments=tuple(segments),
                media_sequence=fragments[0].number if fragments else self._first_listed,
                discontinuity_sequence=fragments[0].discontinuities if fragments else 0,
                ended=self.fragments.ended,
            )
        )

    def playlist(self, query: str) -> bytes:
        """Return the playlist. query: what follows the name of each segment, "" or from its "?" on."""
        return query.join(self._parts).encode()

    def begin_us(self) -> int:
        """Return the time at which the list begins."""
        listed = self._listed()
        return listed[0].from_us if listed else 0

    def playlist_between(self, query: str, start_us: int | None, stop_us: int | None) -> bytes:
        """Return the playlist of a part of the stream."""
        known_us = self.fragments.fragments[-1].to_us if self.fragments.fragments else 0
        past = stop_us is not None and known_us >= stop_us
        fragments = self.fragments.fragments if start_us is not None or past else self._listed()
        wanted = [
            fragment
            for fragment in fragments
            if (start_us is None or fragment.to_us > start_us) and (stop_us is None or fragment.from_us < stop_us)
        ]
        text = self._write(wanted)
        if past and not self.fragments.ended:
            text += "#EXT-X-ENDLIST\r\n"
        return text.replace(MARK, query).encode()

    def ready(self) -> bool:
        """Return whether a player has enough to begin with."""
        self.refresh()
        return len(self.fragments.fragments) >= START_FRAGMENTS or self.fragments.ended

    def empty(self) -> bool:
        """Return whether there is nothing to list, and more may come."""
        return not self.fragments.fragments and not self.fragments.ended

    def segment(self, from_ms: int, to_ms: int) -> bytes:
        """Return a segment. Raises NotFound for one that is not in the buffer."""
        key = (self.stream.serial, self.indexes, from_ms, to_ms)
        cached = self.stream.cache.get(key)
        if cached is not None:
            return cached
        self.refresh()
        fragment = self.fragments.find(from_ms, to_ms)
        if fragment is None:
            raise NotFound("Fragment out of range")
        return self.stream.cache.get_or_make(key, lambda: self._mux(fragment))

    def _mux(self, fragment: Fragment) -> bytes:
        """Make a segment: tables first, and padded so that the next one continues its continuity counters."""
        reader = self.stream.reader
        states = {state.index: state for state in reader.tracks()}
        if any(index not in states for index in self.indexes):
            raise NotFound("Fragment out of range")
        ranges = segment_ranges(reader, fragment, self.indexes)
        runs = [init_runs(reader.keys(index), first, end) for index, first, end in ranges]
        infos = [self.stream.info_of(states[index], run[:1]) for index, run in zip(self.indexes, runs, strict=True)]
        muxer = TsMuxer(infos, reader.name, fragment.number, repeat_tables=False)
        written, rest = 0, ranges
        for key, place in sorted(((key, place) for place, run in enumerate(runs) for key in run[1:]), key=_time_of):
            part, rest = split_ranges(reader, rest, place, key)
            written += reader.mux_range(muxer, part)
            infos[place] = self.stream.info_of(states[self.indexes[place]], [key])
            muxer.set_tracks(infos)
        written += reader.mux_range(muxer, rest)
        muxer.pad_counters()
        segment = muxer.take_output()
        now = {state.index: state for state in reader.tracks()}
        whole = written == sum(end - first for _, first, end in ranges)
        if (
            not segment
            or not whole
            or any(index not in now or _trimmed(now[index], fragment) for index in self.indexes)
        ):
            raise NotFound("Fragment out of range")
        return segment


def _time_of(change: tuple[Key, int]) -> tuple[int, int]:
    return change[0].dts_us, change[1]


def _trimmed(track: TrackState, fragment: Fragment) -> bool:
    """Return whether packets of a fragment have left a track's buffer."""
    return track.first_sequence > 0 and track.first_us > fragment.from_us


class LiveSubtitles(LiveRendition):
    """The playlist and the segments of one subtitle track of a live stream.

    How long a text is shown is not known while it is, so one that goes on behind its segment ends with it, and the next segment
    shows it again.
    """

    suffix = VTT_SUFFIX

    def _tracks(self) -> tuple[TrackState, list[TrackState]]:
        """Return the track whose fragments are followed; subtitles come seldom, and are not waited for."""
        self._check()
        usable = self.stream.usable()
        if not usable:
            raise NotFound("The stream has no picture and no sound")
        return next((state for state in usable if state.info.type == VIDEO), usable[0]), []

    def _check(self) -> None:
        if all(state.index != self.indexes[0] for state in subtitle_tracks(self.stream.reader.tracks())):
            raise NotFound(f"The stream has no track {self.name}")

    def _mux(self, fragment: Fragment) -> bytes:
        """Make a segment of what is shown between its ends."""
        self._check()
        reader, index = self.stream.reader, self.indexes[0]
        first, end = (reader.sequence_at(index, time_us) for time_us in (fragment.from_us, fragment.to_us))
        packets = [(one.dts_us, one.payload) for one in reader.packets(index, max(first - 1, 0), end)]
        shown = to_cues(packets)
        if shown and shown[-1].start_us == packets[-1][0]:
            shown[-1] = replace(shown[-1], end_us=shown[-1].start_us + MAX_NEXT_US)
        cues = [
            replace(cue, start_us=max(cue.start_us, fragment.from_us), end_us=min(cue.end_us, fragment.to_us))
            for cue in shown
            if cue.end_us > fragment.from_us
        ]
        return webvtt_segment(cues, fragment.from_us)


class LiveStream(HlsStream):
    """A live stream that a worker holds open for HLS."""

    def __init__(
        self, services: OutputServices, reader: StreamReader, url_name: str, cache: SegmentCache, serial: int
    ) -> None:
        """Take a reader; `close` gives it back."""
        super().__init__(services, reader, url_name, cache, serial)
        self.target_s = 1  # the longest of any rendition

    def idle_s(self, longest_s: float) -> float:
        """Return some segments' time: a player asks for the playlist at least once in that of one."""
        if not self.playable and all(one.empty() for one in self._renditions.values()):
            return longest_s  # somebody may be waiting for the beginning
        return min(longest_s, max(IDLE_TARGETS * self.target_s, MIN_IDLE_S))

    def fix_begin(self, query: dict[str, str]) -> None:
        """Let a viewer begin with the newest whole keyframe interval."""
        videos = [state for state in self.usable() if state.info.type == VIDEO]
        keys = self.reader.keys((videos or self.usable())[0].index) if self.usable() else []
        if keys:
            query["start"] = str(-(-keys[-2:][0].dts_us // 1000))

    def make_rendition(self, name: str, indexes: Sequence[int]) -> LiveRendition:
        """Return the rendition of some tracks."""
        return LiveRendition(self, name, indexes)

    def make_subtitles(self, name: str, indexes: Sequence[int]) -> LiveSubtitles:
        """Return the rendition of a subtitle track."""
        return LiveSubtitles(self, name, indexes)

    def unknown_spans(self, index: int) -> list[tuple[int, int]]:
        """Return the times, from and before, in which packets of a track have init data that are not kept any more."""
        keys = self.reader.keys(index)
        numbers = {key.init_changes for key in keys}
        unknown = {number for number in numbers if len(numbers) > 1 and self.reader.info_at(index, number) is None}
        ends = [*(key.dts_us for key in keys[1:]), NEVER_US]
        return [(key.dts_us, end) for key, end in zip(keys, ends, strict=False) if key.init_changes in unknown]

    def info_of(self, state: TrackState, begin: Sequence[Key]) -> TrackInfo:
        """Return the properties that a track had from a key on. Raises NotFound.

        begin: that key, empty where nothing of the track is there.
        """
        info = self.reader.info_at(state.index, begin[0].init_changes) if begin else state.info
        if info is None:
            raise NotFound("Fragment out of range")
        return info
