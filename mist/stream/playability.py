"""Whether a live stream has enough media to begin with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mist.formats.tracks import AUDIO, VIDEO
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
    """Return whether the tracks that a viewer would get have enough media to begin.

    A viewer of fewer tracks than are waited for (sound alone) does not wait for more when the stream has them and they are ready.
    """
    states = {state.index: state for state in reader.tracks()}
    if any(state.last_us - state.first_us > parameters.max_track_us for state in states.values()):
        return True
    chosen = select(list(states.values()))
    ready = {
        index
        for index, state in states.items()
        if state.next_sequence
        and (
            state.last_us - state.first_us > parameters.min_track_us
            or len(reader.keys(index)) >= parameters.min_track_keys
        )
    }
    both = {VIDEO, AUDIO} <= {states[index].info.type for index in ready}
    if chosen and both and ready.issuperset(chosen) and len(ready) >= parameters.wait_track_count:
        return True
    longest = max((states[i].last_us - states[i].first_us for i in chosen if states[i].next_sequence), default=0)
    return len(ready.intersection(chosen)) >= parameters.wait_track_count or longest >= parameters.max_wait_us
