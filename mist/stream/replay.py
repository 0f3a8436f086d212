"""What is parsed a second time, because the process that had parsed it died: what of it the stream has already."""

from __future__ import annotations

from collections.abc import Mapping

from mist.formats.tracks import TrackInfo


class Replay:
    """Counts the packets of each track from a known place on; the writer that died had written the first of them, in this order.

    So everything up to the first packet that is not in the stream was done, but for the step that the writer died in, which
    is kept here until then: doing it once more changes nothing.
    """

    def __init__(self, counts: Mapping[int, int]) -> None:
        """counts: packets that each track had at the place where parsing begins again; a track that is younger has none."""
        self.infos: dict[int, TrackInfo] = {}  # what the tracks changed to
        self.marked = False  # a discontinuity came right before the next packet
        self._counts = dict(counts)

    def passes(self, index: int, written: int | None) -> bool:
        """Count a packet; tell whether the stream has it. written: packets of its track, None for one that was removed since."""
        number = self._counts.get(index, 0)
        if written is not None and number >= written:
            return False
        self._counts[index] = number + 1
        self.marked = False
        return True
