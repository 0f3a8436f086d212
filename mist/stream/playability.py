"""Whether a live stream has enough media to begin with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mist.stream.parameters import PlaybackParameters
from mist.stream.state import Key, StreamStatus, TrackState

UNPLAYABLE: Final = frozenset({StreamStatus.OFF, StreamStatus.SHUTDOWN, StreamStatus.INVALID})


class Reader(Protocol):
    """What of `StreamReader` is used here."""

    def tracks(self) -> list[TrackState]: ...
    def keys(self, index: int) -> Sequence[Key]: ...


def is_playable(
    reader: Reader, parameters: PlaybackParameters, select: Callable[[list[TrackState]], list[int]]
) -> bool:
    """Return whether the tracks that a viewer would get have enough media to begin."""
    states = {state.index: state for state in reader.tracks()}
    if any(state.last_us - state.first_us > parameters.max_track_us for state in states.values()):
        return True
    ready = 0
    longest = 0
    for index in select(list(states.values())):
        state = states[index]
        if not state.next_sequence:
            continue
        buffered = state.last_us - state.first_us
        longest = max(longest, buffered)
        ready += buffered > parameters.min_track_us or len(reader.keys(index)) >= parameters.min_track_keys
    return ready >= parameters.wait_track_count or longest >= parameters.max_wait_us
