"""RTMP published to the server: the connection that the listener accepted goes on here, as the stream's source."""

from __future__ import annotations

import json
import time
from typing import Final
from urllib.parse import parse_qsl

from mist.core.packet import Packet
from mist.errors import LocalProtocolError
from mist.formats.languages import UNDETERMINED, canonical
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.media import MediaEvent, Oddity, TrackAssembler, TrackChanged, TrackFound, TrackGone
from mist.formats.rtmp.server import ServerSession
from mist.formats.rtmp.timeline import Timeline
from mist.inputs.base.publisher_connection import PublisherConnection, pack_parts, split_parts
from mist.stream.capability import Capability
from mist.stream.continued_tracks import ContinuedTracks
from mist.stream.services import InputServices

STATE_VERSION: Final = 1
EARLY_DATA_SECONDS: Final = 2.0  # documents wait so long for the media that they belong to
NEXT_STREAM: Final = "This connection has had its stream: connect again for another one"
MAX_OFFSET_MS: Final = 10 * 365 * 86_400_000


CAPABILITY: Final = Capability(
    name="RTMP",
    friendly="RTMP publishing",
    desc=(
        "Takes live streams that encoders publish over RTMP and enhanced RTMP: OBS, ffmpeg, GStreamer, hardware and "
        "phone encoders. push:// lets anyone publish, push://host only this host (name, address or address/bits), "
        "push://@password whoever knows the password, which is the application name in the RTMP URL."
    ),
    source_match=("push://*",),
    codecs=((("H264", "HEVC", "AV1", "VP8", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3"), ("JSON",)),),
)


class RtmpInput(PublisherConnection):
    """Reads a publisher's socket until it ends; media goes to the stream's tracks as it comes."""

    _session: ServerSession
    _assembler: TrackAssembler
    _timeline: Timeline
    _tracks: ContinuedTracks
    _wait_limited = False

    def _begin(self, state: bytes) -> None:
        services = self._services
        query = dict(parse_qsl(str(services.request.get("query", ""))))
        self._session = ServerSession.restore(state, time.monotonic())
        self._assembler = TrackAssembler(canonical(query["lang"]) if query.get("lang") else UNDETERMINED)
        self._timeline = Timeline(services.publisher.last_us(), _offset_us(query.get("timeoffset", "")))
        self._tracks = ContinuedTracks(services.publisher, services.log)
        self._session.send_publish_start(str(services.request.get("name", services.stream)), time.monotonic())

    def _export(self) -> bytes:
        fields = {
            "version": STATE_VERSION,
            "assembler": self._assembler.export_state(),
            "timeline": self._timeline.export_state(),
            "tracks": list(self._tracks.indexes.items()),
        }
        return pack_parts(json.dumps(fields, separators=(",", ":")).encode(), self._session.export_state())

    def _restore(self, state: bytes) -> None:
        about, session = split_parts(state, 2)
        try:
            fields = json.loads(about)
            if fields["version"] != STATE_VERSION:
                raise LocalProtocolError(f"a publisher's state of version {fields['version']}; this is {STATE_VERSION}")
            self._assembler = TrackAssembler.restore(fields["assembler"])
            self._timeline = Timeline.restore(fields["timeline"])
            indexes = {int(number): int(index) for number, index in fields["tracks"]}
        except (ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError(f"damaged state of a publisher: {error}") from error
        self._tracks = ContinuedTracks(self._services.publisher, self._services.log, indexes)
        self._session = ServerSession.restore(session, time.monotonic())
        self._limit_wait()

    def _state_bytes(self) -> int:
        return self._session.memory_bytes

    def _take_replies(self) -> bytes:
        return self._session.take_replies()

    def _take_receipts(self) -> bytes:
        return self._session.take_receipts()

    def _forget_left(self) -> None:
        self._tracks.forget_left()

    def _goodbye(self, text: str) -> None:
        self._session.send_unpublished(text)

    def _feed(self, data: memoryview) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, m.Media):
                self._publish(self._assembler.feed(event.type_id, event.time_ms, event.payload))
            elif isinstance(event, m.Data):
                self._publish(self._assembler.feed_data((event.name, *event.values), event.time_ms))
                self._limit_wait()
            elif isinstance(event, m.StreamEnded):
                self._end()
            elif isinstance(event, m.PublishRequested):  # of another stream: this one has ended
                self._session.send_publish_refused("NetStream.Publish.Rejected", NEXT_STREAM, time.monotonic())
            elif isinstance(event, m.PlayRequested):
                self._session.send_play_refused("NetStream.Play.Failed", NEXT_STREAM, time.monotonic())

    def _feed_after_end(self, data: memoryview) -> None:
        self._feed(data)

    def _limit_wait(self) -> None:
        """See to it that documents do not wait for ever for media that does not come."""
        if self._assembler.holds_data and not self._wait_limited:
            self._wait_limited = True
            release = self._services.loop.call_later(EARLY_DATA_SECONDS, self._guarded, self._release_data)
            self._timers.append(release)

    def _release_data(self) -> None:
        self._publish(self._assembler.release_data())

    def _publish(self, events: list[MediaEvent]) -> None:
        services = self._services
        for event in events:
            if isinstance(event, Packet):
                self._write(event)
            elif isinstance(event, TrackFound):
                self._tracks.find(event.track, event.info)
                self._state_is_due()
            elif isinstance(event, TrackChanged):
                self._tracks.change(event.track, event.info)
                self._state_is_due()
            elif isinstance(event, TrackGone):
                self._tracks.leave(event.track)
                self._state_is_due()
            elif isinstance(event, Oddity):
                services.log.warning("publisher %s: %s", services.request.get("host", ""), event.text)

    def _write(self, packet: Packet) -> None:
        services = self._services
        index = self._tracks.index(packet.track)
        sparse = packet.track == self._assembler.data_track
        place = self._timeline.follow if sparse else self._timeline.place
        dts_us = place(packet.track, packet.dts_us)
        if self._timeline.jumped:
            services.publisher.mark_discontinuity()
        for report in self._timeline.take_reports():
            services.log.warning("publisher %s: %s", services.request.get("host", ""), report)
        offset_us = packet.offset_us
        if self._timeline.moved_us and offset_us > 0:
            offset_us = max(0, offset_us - self._timeline.moved_us)
        services.publisher.write(Packet(index, dts_us, offset_us, packet.keyframe, packet.payload))
        services.record.set_position(dts_us)


def _offset_us(text: str) -> int:
    """Return the `timeoffset` of a publish URL, milliseconds, as microseconds; 0 for nonsense."""
    try:
        return max(-MAX_OFFSET_MS, min(MAX_OFFSET_MS, int(text))) * 1000
    except ValueError:
        return 0


class _Input:
    capability = CAPABILITY

    async def run(self, services: InputServices) -> None:
        """Serve the publisher that was handed over. Returns when it ended the stream; raises MistError else."""
        await RtmpInput(services).run()


INPUT: Final = _Input()
