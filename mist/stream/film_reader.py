"""What a recorder reads of an on-demand stream: the spans that are loaded, one after the other, as if they were a live stream's buffer.

A packet's number is its decode time: all tracks are read to the same time, so nothing else has to be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.stream.on_demand import LoadedSpan, OnDemandReader, places
from mist.stream.recording import RecordingTarget
from mist.stream.state import Key, StreamStatus, TrackState

AT_ONCE_US = -1  # waiting time: a film's tracks are all known


class FilmReader:
    """A `mist.stream.recorder.Reader` of a film. The driver calls `load` whenever it does not `wait`."""

    def __init__(self, media: OnDemandReader) -> None:
        """Begin nowhere: see `begin`."""
        self._media = media
        self._next = 0  # number of the span that is loaded next
        self._loaded: list[LoadedSpan] = []
        self._keyframes: list[Sequence[int]] = []  # of the main track, in each loaded span: decode times
        self._muxed_us: int | None = None
        self._over = False

    @property
    def name(self) -> str:
        return self._media.name

    @property
    def table(self) -> Any:
        """The stream's table."""
        return self._media.reader.table

    @property
    def wall_clock_offset_us(self) -> int:
        return self._media.reader.wall_clock_offset_us

    @property
    def waits(self) -> bool:
        """Whether there is something loaded that has not been read, though reading has begun."""
        return self._muxed_us is not None and self._muxed_us < self._loaded[-1].place.to_us

    async def begin(self, target: RecordingTarget, now_unix_us: int) -> RecordingTarget:
        """Go to where a recording begins; returns the target for the recorder. Raises NotReady."""
        await self._media.reaches(0)
        first_us, playback = self._media.place(0).from_us, target.playback
        start_us, stop_us = playback.window(now_unix_us, self.wall_clock_offset_us or None, first_us)
        start_us = first_us if start_us is None else max(start_us, first_us)
        await self.go_to(start_us)
        wanted = replace(
            playback, start_us=start_us, stop_us=stop_us, start_unix_s=None, stop_unix_s=None, max_wait_us=AT_ONCE_US
        )
        return replace(target, playback=wanted, film=True)

    async def go_to(self, dts_us: int) -> None:
        """Load what holds a decode time next. Raises NotReady."""
        await self._media.reaches_time(dts_us)
        self._next = self._media.find(dts_us)

    async def load(self) -> bool:
        """Read on by one span; False at the film's end. Raises what went wrong with the file."""
        if not await self._media.reaches(self._next):
            self._over = True
            return False
        loaded = await self._media.span(self._next)
        self._loaded.append(loaded)
        self._keyframes.append(_keyframes(loaded, self._media.main))
        self._next += 1
        self._media.prepare(self._next)
        return True

    def forget_pages(self) -> None:
        """Let go of what was read, but for the newest span, which says where the tracks are."""
        while len(self._loaded) > 1 and self._muxed_us is not None and self._loaded[0].place.to_us <= self._muxed_us:
            del self._loaded[0], self._keyframes[0]

    # -- what the recorder reads

    def status(self) -> StreamStatus:
        return StreamStatus.OFF if self._over else StreamStatus.READY

    def tracks(self) -> list[TrackState]:
        if not self._loaded:
            return []
        first_us, last = self._loaded[0].place.from_us, self._loaded[-1]
        end_us = last.place.to_us
        return [
            replace(
                state,
                info=info,
                first_us=first_us,
                first_sequence=first_us,
                last_us=end_us - 1,
                now_us=end_us,
                next_sequence=end_us,
            )
            for state, info in zip(self._media.tracks(), last.infos, strict=False)
        ]

    def keys(self, index: int) -> list[Key]:
        """Return where one may begin with a track: at its keyframes if it is the main one, else at the spans' beginnings."""
        if index == self._media.main:
            return [_key(at, one) for one, times in zip(self._loaded, self._keyframes, strict=True) for at in times]
        return [_key(one.place.from_us, one) for one in self._loaded]

    def packets(self, index: int, first_sequence: int, end_sequence: int) -> list[Packet]:
        return []  # the end of the last one is the span's, which needs no guess

    def sequence_at(self, index: int, dts_us: int) -> int:
        return dts_us

    def mux_range(self, muxer: Muxer, ranges: Sequence[tuple[int, int, int]]) -> object:
        """Write the packets of tracks that are between two decode times; a range's place is its track's in the muxer."""
        for from_us, to_us in sorted({(first, end) for _, first, end in ranges if first < end}):
            chosen = [one if (first, end) == (from_us, to_us) else -1 for one, first, end in ranges]
            for loaded in self._loaded:
                if loaded.place.from_us < to_us and loaded.place.to_us > from_us:
                    loaded.span.mux(muxer, places(chosen, len(loaded.infos)), 0, from_us=from_us, to_us=to_us)
            self._muxed_us = max(to_us, self._muxed_us or to_us)
        return None


def _key(dts_us: int, loaded: LoadedSpan) -> Key:
    version = loaded.place.version
    return Key(dts_us, dts_us, dts_us, loaded.number, version, version)


def _keyframes(loaded: LoadedSpan, main: int) -> list[int]:
    """Return the decode times of the main track's keyframes in a span."""
    place, span = loaded.place, loaded.span
    found: list[int] = []
    at_us = span.key_before(main, place.to_us)
    while at_us is not None and at_us >= place.from_us and (not found or at_us < found[-1]):
        found.append(at_us)
        at_us = span.key_before(main, at_us - 1)
    return found[::-1]
