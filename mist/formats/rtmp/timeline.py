"""The times of a live source made increasing: jumps, wraps, restarts and steps back, and a word for the log on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

JUMP_US: Final = 600_000_000  # forward steps over this are repaired; shorter ones are gaps in the source
BACK_US: Final = 500_000  # steps back over this are a new time base; shorter ones are disorder
DISORDER_STEP_US: Final = 1_000  # the least distance after a repaired step back; formats count in milliseconds
USUAL_US: Final = 10_000_000  # distances within a track that need no second look
STUCK_US: Final = 1_000_000  # a track whose time stands still takes that of the others when they are this far ahead
JOIN_US: Final = 40_000  # between the last time of a stream and the first of the publisher that continues it
_MAX_STEP_US: Final = 2_000_000


class Timeline:
    """Maps a publisher's decode times to the stream's.

    All tracks share one shift, so that they stay together. After a jump the shift before it is remembered: packets of
    other tracks that were under way still have the old time base.
    after_us: the stream's last time when a publisher continues it, else None. offset_us: added to all times.
    """

    def __init__(self, after_us: int | None = None, offset_us: int = 0) -> None:
        self.jumped = False  # the last packet began a new time base
        self.moved_us = 0  # how far the last packet was moved alone, so that its presentation time can stay
        self._shift = offset_us
        self._previous: int | None = None
        self._after_us = after_us
        self._newest_us: int | None = None
        self._led = False  # there was a packet that was placed, not one that followed
        self._tracks: dict[int, int] = {}
        self._asked: dict[int, int] = {}  # where the last packet of each track would be if it had not been moved alone
        self._steps: dict[int, int] = {}
        self._said: set[str] = set()
        self.reports: list[str] = []

    @property
    def newest_us(self) -> int | None:
        """The highest time given out, or None."""
        return self._newest_us

    @property
    def shift_us(self) -> int:
        """What is added to the publisher's times now."""
        return self._shift

    def place(self, track: int, dts_us: int) -> int:
        """Return the time of a packet in the stream: higher than that of the packet before it in its track."""
        self.jumped = False
        self.moved_us = 0
        self._led = True
        if self._newest_us is None:
            self._join(dts_us)
        last = self._tracks.get(track)
        stuck = self.stands_still(track, dts_us)
        asked = placed = dts_us + self._shift if stuck else self._choose(track, dts_us)
        if last is not None:
            if placed <= last:
                if placed < self._asked[track]:  # equal ones are usual: GStreamer writes 0 for each time below 0
                    self._report("backstep", "a time that goes back within a track was moved after the one before it")
                target = max(last + DISORDER_STEP_US, self._newest_us or 0) if stuck else last + DISORDER_STEP_US
                self.moved_us = target - placed
                placed = target
            elif placed - last <= _MAX_STEP_US:
                self._steps[track] = placed - last
        self._tracks[track], self._asked[track] = placed, asked
        if self._newest_us is None or placed > self._newest_us:
            self._newest_us = placed
        return placed

    def stands_still(self, track: int, dts_us: int) -> bool:
        """Return whether a track has sent one and the same time again while the others went on: some encoders never set it."""
        asked = self._asked.get(track)
        if asked is None or self._newest_us is None or dts_us + self._shift != asked:
            return False
        if self._newest_us - asked <= STUCK_US:
            return False
        self._report("stuck", "the time of a track stands still; it takes that of the other tracks")
        return True

    def follow(self, track: int, dts_us: int, reach_us: int = USUAL_US) -> int:
        """Return the time of a packet of a track that may be silent for hours, and whose times may mean nothing.

        It never changes the shift: a time that is over reach_us from the newest packet of the other tracks is taken for that packet's.
        Where there are no others it is a track like any.
        """
        newest = self._newest_us
        if newest is None or not self._led:
            placed = self.place(track, dts_us)
            self._led = False
            return placed
        self.jumped = False
        self.moved_us = 0
        shifts = (self._shift,) if self._previous is None else (self._shift, self._previous)
        placed = min((dts_us + shift for shift in shifts), key=lambda time_us: abs(time_us - newest))
        if abs(placed - newest) > reach_us:
            placed = newest
        last = self._tracks.get(track)
        if last is not None and placed <= last:
            placed = last + DISORDER_STEP_US
        self._tracks[track] = self._asked[track] = placed
        return placed

    def _join(self, dts_us: int) -> None:
        """Choose the shift for the first packet of all."""
        if self._after_us is None:
            return
        first = dts_us + self._shift
        if not self._after_us < first <= self._after_us + JUMP_US:
            self._shift += self._after_us + JOIN_US - first
            self._report("restart", "the publisher began with other times; they go on after the stream's last one")
        self.jumped = True

    def _choose(self, track: int, dts_us: int) -> int:
        """Return the time by the shift that fits best; a new shift if none does."""
        placed = dts_us + self._shift
        reference = self._tracks.get(track, self._newest_us)
        if reference is None:
            return placed
        if self._previous is not None:
            before = dts_us + self._previous
            if abs(before - reference) < abs(placed - reference) and -BACK_US <= before - reference <= USUAL_US:
                return before
        if 0 <= placed - reference <= USUAL_US:
            return placed
        known = track in self._tracks
        if -(BACK_US if known else USUAL_US) <= placed - reference <= (JUMP_US if known else USUAL_US):
            return placed
        kind = "forward" if placed > reference else "back"
        anchor = reference if self._newest_us is None or kind == "forward" else max(reference, self._newest_us)
        target = anchor + self._steps.get(track, JOIN_US)
        self._previous = self._shift
        self._shift = target - dts_us
        self.jumped = True
        self._report(kind, f"times jumped {kind} by {abs(placed - reference) / 1e6:.3f} s; they go on without the jump")
        return target

    def _report(self, kind: str, text: str) -> None:
        """Keep a sentence for the log, once of each kind."""
        if kind not in self._said:
            self._said.add(kind)
            self.reports.append(text)

    def export_state(self) -> dict[str, Any]:
        """Return everything the next time depends on, as JSON has it."""
        return {
            "shift": self._shift,
            "previous": self._previous,
            "after": self._after_us,
            "newest": self._newest_us,
            "led": self._led,
            "tracks": [[track, last, self._asked[track]] for track, last in self._tracks.items()],
            "steps": list(self._steps.items()),
            "said": sorted(self._said),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Timeline:
        """Return the time line that `export_state` described. Raises ValueError, TypeError, KeyError."""
        line = cls(state["after"], state["shift"])
        line._previous, line._newest_us = state["previous"], state["newest"]
        line._led = bool(state.get("led", True))
        for track, last, asked in state["tracks"]:
            line._tracks[track], line._asked[track] = last, asked
        line._steps = dict(state["steps"])
        line._said = set(state["said"])
        return line

    def take_reports(self) -> list[str]:
        """Return the new sentences for the log."""
        reports, self.reports = self.reports, []
        return reports
