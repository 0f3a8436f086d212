"""What every live source has in common that arrives as demuxed packets: tracks and times go on from one to the next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mist.core.packet import Packet
from mist.formats.rtmp.timeline import Timeline
from mist.formats.tracks import TrackInfo
from mist.stream.continued_tracks import ContinuedTracks
from mist.stream.state import StreamStatus

if TYPE_CHECKING:
    from mist.stream.publisher import StreamPublisher
    from mist.stream.services import ConnectionRecord


class SourceIntake:
    """Writes one source into a stream, behind what an earlier one brought."""

    def __init__(self, publisher: StreamPublisher, record: ConnectionRecord, log: logging.Logger) -> None:
        self._publisher = publisher
        self._record = record
        self._log = log
        self._tracks = ContinuedTracks(publisher, log)
        self._infos: dict[int, TrackInfo] = {}
        self._timeline = Timeline(publisher.last_us())
        self.packets_written = 0

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
