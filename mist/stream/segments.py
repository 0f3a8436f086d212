"""A live stream as a list of segments: which fragments are whole, what a playlist lists, and a cache of muxed ones.

A segment holds one fragment of its main track, and of every other track the packets whose decode time is in
[from, to): consecutive segments neither lose nor repeat a packet. Numbers and limits come from the key records in
shared memory, so all processes agree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.stream.on_demand import SpanPlace
from mist.stream.state import FragmentStart, Key, TrackState

STALLED_US: Final = 5_000_000  # a track this far behind the main one is not waited for
MIN_LISTED_TARGETS: Final = 4  # a playlist keeps this many target durations when it drops old segments
UNLISTED: Final = 2  # of the oldest fragments, so that what was listed a moment ago can still be fetched
ROUNDING_US: Final = 550_000  # rounds a duration to seconds as RFC 8216 does, with 50 ms to spare for jitter
MAX_TAIL_US: Final = 1_000_000  # of other tracks, behind the main track's end
DEFAULT_FRAME_US: Final = 40_000
DEFAULT_CACHE_BYTES: Final = 8 << 20


class Reader(Protocol):
    """What of `StreamReader` is used here."""

    @property
    def segment_us(self) -> int: ...
    def fragment_starts(self, index: int) -> list[FragmentStart]: ...
    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]: ...
    def sequence_at(self, index: int, dts_us: int) -> int: ...
    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> object: ...


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of a stream. from_us, to_us: decode times, to is where the next begins."""

    number: int
    from_us: int
    to_us: int

    @property
    def duration_us(self) -> int:
        return self.to_us - self.from_us

    @property
    def from_ms(self) -> int:
        """The beginning as URLs name it."""
        return (self.from_us + 500) // 1000

    @property
    def to_ms(self) -> int:
        """The end as URLs name it."""
        return (self.to_us + 500) // 1000


@dataclass(frozen=True, slots=True)
class Fragment(Section):
    """A whole fragment. discontinuities, init_changes: of the main track up to its beginning, as `Key` counts them."""

    discontinuities: int = 0
    init_changes: int = 0


@dataclass(frozen=True, slots=True)
class FragmentList:
    """The whole fragments of a track, oldest first.

    complete: False while one is held back only because another track has not got there. ended: no more will come.
    """

    fragments: tuple[Fragment, ...]
    complete: bool
    ended: bool

    def find(self, from_ms: int, to_ms: int) -> Fragment | None:
        """Return the fragment that a URL names."""
        for fragment in self.fragments:
            if fragment.from_ms == from_ms and fragment.to_ms == to_ms:
                return fragment
        return None


def list_fragments(reader: Reader, main: TrackState, others: Sequence[TrackState], ended: bool = False) -> FragmentList:
    """Return the fragments of the main track for which all packets of all tracks are there.

    others: the tracks that are muxed with it, or instead of it. ended: the stream has ended, so its last fragment is whole too.
    """
    starts = [start for start in reader.fragment_starts(main.index) if start.number >= main.first_fragment]
    ends = [start.dts_us for start in starts[1:]]
    if ended and starts:
        end_us = _end_us(reader, main)
        longest_us = max((_end_us(reader, track) for track in others if track.next_sequence), default=end_us)
        end_us = max(end_us, starts[-1].dts_us)
        ends.append(max(end_us, min(longest_us, end_us + MAX_TAIL_US)))
    fragments = [
        Fragment(start.number, start.dts_us, end_us, start.discontinuities, start.init_changes)
        for start, end_us in zip(starts, ends, strict=False)
        if end_us > start.dts_us
    ]
    whole = len(fragments)
    if not ended:
        reached_us = max(main.last_us, starts[-1].dts_us if starts else 0)
        limit_us = min((_known_until(track, reached_us) for track in others), default=None)
        while limit_us is not None and whole and fragments[whole - 1].to_us > limit_us:
            whole -= 1
    return FragmentList(tuple(fragments[:whole]), whole == len(fragments), ended)


def _known_until(track: TrackState, reached_us: int) -> int:
    """Return the decode time before which a track has everything, or how far the main one is where it has fallen silent."""
    known_us = max(track.now_us, track.last_us) if track.next_sequence else reached_us
    return reached_us if reached_us - known_us > STALLED_US else known_us


def _end_us(reader: Reader, track: TrackState) -> int:
    """Return where a track's last packet ends, guessing its duration from the one before."""
    last = reader.packets(track.index, max(track.next_sequence - 2, track.first_sequence), track.next_sequence)
    length_us = last[-1].dts_us - last[0].dts_us if len(last) > 1 else DEFAULT_FRAME_US
    return (last[-1].dts_us if last else track.last_us) + length_us


def target_duration_s(reader: Reader, main: TrackState, fragments: Sequence[Fragment]) -> int:
    """Return the target duration: the longest fragment in whole seconds (RFC 8216 section 4.3.3.1).

    Follows the longest of the stream's life, so that it stays as it is and is the same in all processes.
    """
    longest_us = max(
        (fragment.duration_us for fragment in fragments), default=max(reader.segment_us, main.longest_fragment_us)
    )
    return max((max(longest_us, main.longest_fragment_us, reader.segment_us) + ROUNDING_US) // 1_000_000, 1)


def listed(fragments: Sequence[Fragment], target_s: int, limit: int = 0) -> Sequence[Fragment]:
    """Return the fragments that a live playlist lists: without the oldest, which are about to leave the buffer.

    limit: longest list, 0 for any. What is left is never shorter than MIN_LISTED_TARGETS target durations.
    """
    if not fragments:
        return fragments
    end_us = fragments[-1].to_us
    enough_us = MIN_LISTED_TARGETS * target_s * 1_000_000
    first = 0
    wanted = max(UNLISTED, len(fragments) - limit if limit > 0 else 0)
    while first < wanted and first + 1 < len(fragments) and end_us - fragments[first + 1].from_us >= enough_us:
        first += 1
    return fragments[first:]


def segment_ranges(reader: Reader, fragment: Fragment, indexes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (track index, first packet number, end) of each track for `StreamReader.mux_range`."""
    return [
        (index, reader.sequence_at(index, fragment.from_us), reader.sequence_at(index, fragment.to_us))
        for index in indexes
    ]


def init_runs(keys: Sequence[Key], first: int, end: int) -> list[Key]:
    """Return the keys with which the init data of the packets from first to before end begin to hold, oldest first."""
    before = [key for key in keys if key.sequence <= first]
    runs = before[-1:] or list(keys[:1])
    for key in keys:
        if first < key.sequence < end and key.init_changes != runs[-1].init_changes:
            runs.append(key)
    return runs


def split_ranges(
    reader: Reader, ranges: Sequence[tuple[int, int, int]], place: int, key: Key
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return what of the ranges comes before a key, and the rest. place: that of the key's track in the list."""
    cuts = [
        key.sequence if number == place else min(max(reader.sequence_at(index, key.dts_us), first), end)
        for number, (index, first, end) in enumerate(ranges)
    ]
    before = [(index, first, cut) for (index, first, _), cut in zip(ranges, cuts, strict=True)]
    return before, [(index, cut, end) for (index, _, end), cut in zip(ranges, cuts, strict=True)]


@dataclass(frozen=True, slots=True)
class SpanSegment(Section):
    """A segment of an on-demand stream: its spans from first to before end.

    version: how often init data changed before it.
    """

    first: int
    end: int
    version: int


class SpanIndexLike(Protocol):
    """What of an on-demand stream's reader is used here."""

    @property
    def complete(self) -> bool: ...
    def __len__(self) -> int: ...
    def place(self, number: int) -> SpanPlace: ...


class SpanSegments:
    """The segments of an on-demand stream: spans from one that begins with a keyframe up to a later one that does."""

    def __init__(self, segment_us: int) -> None:
        """segment_us: shortest segment."""
        self.list: list[SpanSegment] = []
        self.complete = False
        self._segment_us = segment_us
        self._open: list[SpanPlace] = []
        self._first_open = 0
        self._by_name: dict[tuple[int, int], SpanSegment] = {}

    def follow(self, media: SpanIndexLike) -> None:
        """Take in the spans that are new in the index; the last segment is listed once the next one begins."""
        if self.complete:
            return
        complete = media.complete
        for number in range(self._first_open + len(self._open), len(media)):
            place = media.place(number)
            if self._open and (
                place.version != self._open[0].version
                or (place.key and place.from_us - self._open[0].from_us >= self._segment_us)
            ):
                self._close()
            self._open.append(place)
        if complete and self._open:
            self._close()
        self.complete = complete

    def _close(self) -> None:
        first, end = self._first_open, self._first_open + len(self._open)
        from_us, to_us, version = self._open[0].from_us, self._open[-1].to_us, self._open[0].version
        segment = SpanSegment(len(self.list), from_us, to_us, first, end, version)
        self.list.append(segment)
        self._by_name[segment.from_ms, segment.to_ms] = segment
        self._first_open, self._open = end, []

    def find(self, from_ms: int, to_ms: int) -> SpanSegment | None:
        """Return the segment that a URL names."""
        return self._by_name.get((from_ms, to_ms))


class SegmentCache:
    """The newest used segments of a process, up to a number of bytes."""

    def __init__(self, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.bytes_used = 0
        self.misses = 0
        self._segments: OrderedDict[Hashable, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._segments)

    def get(self, key: Hashable) -> bytes | None:
        """Return a segment and keep it for longer."""
        segment = self._segments.get(key)
        if segment is not None:
            self._segments.move_to_end(key)
        return segment

    def get_or_make(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return a segment, made if it is not there; one over the limit is not kept."""
        segment = self.get(key)
        if segment is None:
            self.misses += 1
            segment = make()
            if len(segment) <= self.limit_bytes:
                self._segments[key] = segment
                self.bytes_used += len(segment)
                while self.bytes_used > self.limit_bytes:
                    self.bytes_used -= len(self._segments.popitem(last=False)[1])
        return segment

    def forget(self, belongs: Callable[[Hashable], bool]) -> None:
        """Drop the segments whose key belongs to what has ended."""
        for key in [key for key in self._segments if belongs(key)]:
            self.bytes_used -= len(self._segments.pop(key))
