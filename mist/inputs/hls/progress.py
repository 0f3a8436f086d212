"""How far a live presentation has been played, kept beside the stream: the input of one that was killed goes on there."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mist.formats.hls_follow import PlaylistFollower, PresentationClock
from mist.inputs.hls.loading import Rendition

if TYPE_CHECKING:
    from mist.core.packet import Packet
    from mist.stream.publisher import StreamPublisher
    from mist.stream.source_intake import SourceIntake

VERSION: Final = 1
MAX_UNWRITTEN: Final = 64  # segments of one rendition that wait to be written


class RenditionState:
    """How far a rendition is played."""

    def __init__(self, rendition: Rendition) -> None:
        self.rendition = rendition
        self.follower = PlaylistFollower()
        self.expected_us: int | None = None
        self.begun = False
        self.doubled: frozenset[int] = frozenset()
        # Segments that may not be written whole: number, where each begins in the source's time, and its last packet of each track.
        self._unwritten: deque[tuple[int, int, dict[int, int]]] = deque(maxlen=MAX_UNWRITTEN)
        self._next = 0

    def note(self, sequence: int, begins_us: int, packets: Iterable[Packet]) -> None:
        """Take a segment that is about to be written. begins_us: where it was expected to begin."""
        last: dict[int, int] = {}
        for packet in packets:
            last[packet.track] = max(packet.dts_us, last.get(packet.track, packet.dts_us))
        self._unwritten.append((sequence, begins_us, last))
        self._next = sequence + 1

    def export_state(self, intake: SourceIntake) -> dict[str, Any]:
        """Return where reading is to go on, as JSON has it."""
        while self._unwritten and intake.has_all(self._unwritten[0][2]):
            self._unwritten.popleft()
        return {
            "uri": self.rendition.info.uri,
            "next": self._next,
            "expected": self.expected_us,
            "begun": self.begun,
            "doubled": sorted(self.doubled),
            "restarts": self.follower.restarts,
            "unwritten": [[number, begins_us, list(last.items())] for number, begins_us, last in self._unwritten],
        }

    def restore(self, state: Mapping[str, Any], intake: SourceIntake) -> None:
        """Go on with the first segment that is not written whole. Raises ValueError, KeyError, TypeError for damaged state."""
        self.expected_us = state["expected"]
        self.begun, self.doubled = bool(state["begun"]), frozenset(state["doubled"])
        sequence = int(state["next"])
        for number, begins_us, last in state["unwritten"]:
            if not intake.has_all(dict(last)):
                sequence, self.expected_us = number, begins_us
                break
        if self.begun:
            self.follower.go_on(sequence, int(state["restarts"]))


class Progress:
    """The note that the input of a presentation leaves for its successor."""

    def __init__(self, publisher: StreamPublisher, source: str) -> None:
        self._publisher = publisher
        self._source = source
        try:
            found = json.loads(publisher.note() or b"null")
        except ValueError:
            found = None
        fits = isinstance(found, dict) and found.get("version") == VERSION and found.get("source") == source
        self._found: Mapping[str, Any] | None = found if fits and publisher.last_us() is not None else None

    @property
    def intake_state(self) -> Mapping[str, Any] | None:
        """What `SourceIntake` of the predecessor exported, None where there was none."""
        return self._found["intake"] if self._found is not None else None

    def restore(self, places: list[RenditionState], clock: PresentationClock, intake: SourceIntake) -> None:
        """Bring everything to where the predecessor was."""
        if self._found is None:
            return
        states = self._found["renditions"]
        if [one["uri"] for one in states] != [one.rendition.info.uri for one in places]:
            return
        clock.restore(self._found["clock"])
        for place, state in zip(places, states, strict=True):
            place.restore(state, intake)

    def save(self, places: list[RenditionState], clock: PresentationClock, intake: SourceIntake) -> None:
        """Write down where a successor is to go on."""
        note = {
            "version": VERSION,
            "source": self._source,
            "intake": intake.export_state(),
            "clock": clock.export_state(),
            "renditions": [one.export_state(intake) for one in places],
        }
        self._publisher.keep_note(json.dumps(note, separators=(",", ":")).encode())
