"""How a client follows a live presentation: which segments of a playlist are new, when it is asked for again, and where times belong.

Spec: RFC 8216 sections 6.3.3 to 6.3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mist.formats.hls_segments import SegmentMedia, unwrapped_us
from mist.formats.m3u8 import MediaPlaylist, Segment

START_TARGETS: Final = 3  # target durations before the end of a live playlist where playing begins
NEAR_US: Final = 1_000_000  # times that differ by less than this go on as they are
FAR_US: Final = 10_000_000  # times that differ by more than this belong to another run, whatever the playlist says


@dataclass(frozen=True, slots=True)
class NewSegment:
    """A segment to play. run: changes when its times are others than before. skipped_us: media that was missed before it."""

    segment: Segment
    run: tuple[int, int]
    skipped_us: int = 0


class PlaylistFollower:
    """One media playlist that is asked for again and again."""

    def __init__(self) -> None:
        self.ended = False
        self.restarts = 0
        self.skipped = 0  # segments that left the playlist before they could be played
        self.target_s = 1.0
        self._next: int | None = None

    def go_on(self, sequence: int, restarts: int) -> None:
        """Begin with a segment, as the one after those that another follower took. restarts: which that one has seen."""
        self._next, self.restarts = sequence, restarts

    def take(self, playlist: MediaPlaylist | None) -> list[NewSegment]:
        """Return what is new. playlist: None for one that has not changed."""
        if playlist is None:
            return []
        self.target_s = float(max(playlist.target_duration_s, 1))
        self.ended = playlist.ended
        end = playlist.media_sequence + len(playlist.segments)
        if self._next is not None and end < self._next:
            self.restarts += 1
            self._next = None
        missed = 0
        if self._next is None:
            self._next = end - self._behind_the_end(playlist)
        elif playlist.media_sequence > self._next:
            missed = playlist.media_sequence - self._next
            self.skipped += missed
            self._next = playlist.media_sequence
        found = playlist.segments[self._next - playlist.media_sequence :]
        self._next = end
        new = [NewSegment(one, (self.restarts, one.discontinuity_sequence)) for one in found]
        if new and missed:
            new[0] = NewSegment(new[0].segment, new[0].run, round(missed * self.target_s * 1_000_000))
        return new

    def reload_s(self, changed: bool) -> float:
        """Return how long after the last load began the playlist is to be loaded again."""
        return self.target_s if changed else self.target_s / 2

    def _behind_the_end(self, playlist: MediaPlaylist) -> int:
        """Return how many of the last segments are played at the beginning."""
        wanted_us = round(START_TARGETS * self.target_s * 1_000_000)
        count = 0
        for segment in reversed(playlist.segments):
            if wanted_us <= 0:
                break
            wanted_us -= segment.duration_us
            count += 1
        return count


class PresentationClock:
    """Where the times of all renditions of a presentation are in the stream: one shift for each run."""

    def __init__(self) -> None:
        self._shifts: dict[tuple[int, int], tuple[int, int]] = {}  # of a run: (shift, a time in it)
        self._latest: tuple[int, int] | None = None

    def export_state(self) -> dict[str, Any]:
        """Return all shifts, as JSON has them."""
        return {"shifts": [[list(run), list(one)] for run, one in self._shifts.items()], "latest": self._latest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what `export_state` returned. Raises ValueError, KeyError, TypeError."""
        self._shifts = {(run[0], run[1]): (one[0], one[1]) for run, one in state["shifts"]}
        self._latest = None if state["latest"] is None else (state["latest"][0], state["latest"][1])

    def shift_us(self, media: SegmentMedia, run: tuple[int, int], expected_us: int | None) -> int:
        """Return what is added to the times of a segment.

        expected_us: where its rendition's last one ended in the stream, None for the first.
        """
        known = self._shifts.get(run)
        texts = not any(info.type in ("video", "audio") for info in media.infos)
        if not media.timed or (texts and known is None and self._latest is None):
            return (expected_us or 0) - (0 if texts else media.first_us)
        base = known or self._latest
        first_us = media.first_us
        wrap_us = 0
        if base is not None and media.wraps and media.packets:
            near_us = base[1] if expected_us is None else expected_us - base[0]
            wrap_us = unwrapped_us(first_us, near_us) - first_us
            first_us += wrap_us
        shift_us = -first_us if base is None else base[0]
        apart_us = 0 if expected_us is None else abs(first_us + shift_us - expected_us)
        if expected_us is not None and not texts and apart_us > (FAR_US if known else NEAR_US):
            shift_us = expected_us - first_us
            known = None
        if known is None and not texts:
            self._shifts = {run: (shift_us, first_us), **dict(list(self._shifts.items())[:7])}
        if not texts:
            self._latest = (shift_us, first_us)
            self._shifts[run] = (shift_us, first_us)
        return shift_us + wrap_us
