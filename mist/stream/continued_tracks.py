"""The tracks of a stream whose source comes and goes: those of the next source continue the ones that were left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mist.formats.tracks import TrackInfo

if TYPE_CHECKING:
    from mist.stream.publisher import StreamPublisher

FORGET_TRACKS_SECONDS: Final = 5.0  # what an earlier source left and this one does not continue


class ContinuedTracks:
    """The stream's tracks as the numbers of one source, and what an earlier source left behind."""

    def __init__(
        self, publisher: StreamPublisher, log: logging.Logger, indexes: Mapping[int, int] | None = None
    ) -> None:
        """indexes: of the source's tracks that another process has taken up, by their numbers."""
        self._publisher = publisher
        self._log = log
        self._indexes: dict[int, int] = dict(indexes or {})
        taken = set(self._indexes.values())
        self._left = {index: info for index, info in publisher.tracks.items() if index not in taken}

    def find(self, number: int, info: TrackInfo) -> int:
        """Take up a track of the source and return its index: that of a left one of the same type, else a new one."""
        match = best_match(self._left, info)
        if match is None:
            index = self._publisher.add_track(info)
        else:
            del self._left[match]
            index = match
            self._publisher.update_track(match, info)
        self._indexes[number] = index
        self._log.info("track %d: %s", index, describe(info))
        return index

    def change(self, number: int, info: TrackInfo) -> None:
        """Note that a track of the source is another one from here on."""
        index = self._indexes[number]
        self._publisher.update_track(index, info)
        self._log.info("track %d changed: %s", index, describe(info))

    def remove(self, number: int) -> None:
        self._publisher.remove_track(self._indexes.pop(number))

    def leave(self, number: int) -> None:
        """Note that a track of the source has ended, and the next one of its type goes on in its place, in another codec."""
        index = self._indexes.pop(number)
        self._left[index] = self._publisher.tracks[index]

    @property
    def indexes(self) -> dict[int, int]:
        """The stream's indexes of the source's tracks."""
        return dict(self._indexes)

    def index(self, number: int) -> int:
        """Return the stream's index of a track of the source."""
        return self._indexes[number]

    def __contains__(self, number: int) -> bool:
        return number in self._indexes

    def forget_left(self) -> None:
        """Remove the tracks that this source does not send."""
        for index in self._left:
            self._publisher.remove_track(index)
        self._left = {}


def best_match(left: Mapping[int, TrackInfo], info: TrackInfo) -> int | None:
    """Return the left track that the new one goes on with: the same type, best with equal codec, set-up and number."""

    def likeness(index: int) -> tuple[bool, bool, bool]:
        old = left[index]
        return old.codec == info.codec, old.init_data == info.init_data, old.track_id == info.track_id

    return max((index for index, old in left.items() if old.type == info.type), key=likeness, default=None)


def describe(info: TrackInfo) -> str:
    """Return a track in words, for the log."""
    if info.width:
        rate = f" {info.frame_rate_mhz / 1000:g} fps" if info.frame_rate_mhz else ""
        return f"{info.codec} {info.width}x{info.height}{rate}"
    if info.sample_rate_hz:
        return f"{info.codec} {info.sample_rate_hz} Hz, {info.channels} channels"
    return info.codec
