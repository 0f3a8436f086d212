"""What every live source has in common that arrives as demuxed packets: tracks and times go on from one to the next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mist.core.packet import Packet
from mist.formats.rtmp.timeline import Timeline
from mist.formats.tracks import META, TrackInfo
from mist.stream.continued_tracks import ContinuedTracks
from mist.stream.state import StreamStatus

if TYPE_CHECKING:
    from mist.stream.publisher import StreamPublisher
    from mist.stream.services import ConnectionRecord

META_REACH_US: Final = 60_000_000  # how far metadata may be from the media: playlists of texts are read on their own


class SourceIntake:
    """Writes one source into a stream, behind what an earlier one brought."""

    def __init__(
        self,
        publisher: StreamPublisher,
        record: ConnectionRecord,
        log: logging.Logger,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """state: what `export_state` of a killed process's intake returned: its source goes on with the same tracks and times."""
        self._publisher = publisher
        self._record = record
        self._log = log
        indexes: dict[int, int] = {}
        self._timeline = Timeline(publisher.last_us())
        if state is not None:
            known = publisher.tracks
            indexes = {int(number): int(index) for number, index in state["tracks"] if index in known}
            self._timeline = Timeline(None, int(state["shift"]))
        self._tracks = ContinuedTracks(publisher, log, indexes)
        self._infos = {number: publisher.tracks[index] for number, index in indexes.items()}
        self._last_us = {number: publisher.track_last_us(index) for number, index in indexes.items()}
        self.packets_written = 0

    def export_state(self) -> dict[str, Any]:
        """Return which tracks of the stream are the source's, and how its times are moved, as JSON has it."""
        return {"tracks": list(self._tracks.indexes.items()), "shift": self._timeline.shift_us}

    def has(self, packet: Packet) -> bool:
        """Tell whether a killed process has written a packet."""
        last_us = self._last_us.get(packet.track)
        return last_us is not None and packet.dts_us + self._timeline.shift_us <= last_us

    def has_all(self, last: Mapping[int, int]) -> bool:
        """Tell whether the stream has everything up to a decode time of each track of the source."""
        for number, dts_us in last.items():
            written_us = self._publisher.track_last_us(self._tracks.index(number)) if number in self._tracks else None
            if written_us is None or written_us < dts_us + self._timeline.shift_us:
                return False
        return True

    def describe(self, infos: Sequence[TrackInfo], first_number: int = 0) -> None:
        """Make tracks known, or note that they are others from here on. first_number: of the source's number of the first."""
        for number, info in enumerate(infos, first_number):
            if number not in self._infos:
                self._tracks.find(number, info)
            elif self._infos[number] != info:
                self._tracks.change(number, info)
            self._infos[number] = info

    def write(self, packet: Packet) -> None:
        """Write a packet of a track that is known. Raises LimitExceededError, SharedMemoryFull."""
        if self._infos[packet.track].type == META:
            dts_us = self._timeline.follow(packet.track, packet.dts_us, META_REACH_US)
        else:
            dts_us = self._timeline.place(packet.track, packet.dts_us)
        if self._timeline.jumped:
            self._publisher.mark_discontinuity()
        for report in self._timeline.take_reports():
            self._log.warning("%s", report)
        index = self._tracks.index(packet.track)
        self._publisher.write(Packet(index, dts_us, packet.offset_us, packet.keyframe, packet.payload))
        self._record.set_position(dts_us)
        if self._publisher.table.status == StreamStatus.WAIT:
            self._publisher.set_status(StreamStatus.READY)
        self.packets_written += 1

    def tell_clock(self, dts_us: int, unix_us: int) -> None:
        """Say at which Unix time a packet of the source was, microseconds."""
        self._publisher.set_wall_clock(unix_us - dts_us - self._timeline.shift_us)

    def forget_left(self) -> None:
        """Remove the tracks of earlier sources that this one does not have."""
        self._tracks.forget_left()
