"""When a live stream has enough media for a viewer to begin."""

from __future__ import annotations

from collections.abc import Sequence

from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.stream.parameters import PlaybackParameters
from mist.stream.playability import is_playable
from mist.stream.state import Key, TrackState


class Reader:
    """Tracks with so much media, microseconds."""

    def __init__(self, *tracks: tuple[str, int]) -> None:
        self._tracks = [
            TrackState(index, TrackInfo(kind, "X"), last_us=media_us, next_sequence=1)
            for index, (kind, media_us) in enumerate(tracks)
        ]

    def tracks(self) -> list[TrackState]:
        return self._tracks

    def keys(self, index: int) -> Sequence[Key]:
        return ()


def playable(reader: Reader, *chosen: int) -> bool:
    return is_playable(reader, PlaybackParameters(), lambda _tracks: list(chosen))


def test_two_tracks_with_media_are_enough() -> None:
    assert playable(Reader((VIDEO, 600_000), (AUDIO, 600_000)), 0, 1)
    assert not playable(Reader((VIDEO, 600_000), (AUDIO, 400_000)), 0, 1)


def test_one_track_is_waited_for() -> None:
    assert not playable(Reader((AUDIO, 4_900_000)), 0)
    assert playable(Reader((AUDIO, 5_000_000)), 0)


def test_sound_alone_of_a_stream_that_has_both_begins_at_once() -> None:
    assert playable(Reader((VIDEO, 600_000), (AUDIO, 600_000)), 1)
    assert not playable(Reader((VIDEO, 600_000), (AUDIO, 400_000)), 1)
    assert not playable(Reader((VIDEO, 600_000), (VIDEO, 600_000)), 1)  # its sound may still come


def test_nothing_chosen_is_not_enough() -> None:
    assert not playable(Reader((VIDEO, 600_000), (AUDIO, 600_000)))
