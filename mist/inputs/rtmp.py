"""RTMP published to the server: the connection that the listener accepted goes on here, as the stream's source."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, Final
from urllib.parse import parse_qsl

from mist.core.packet import Packet
from mist.errors import MistError, PeerClosed, TransportError, WriteStalled
from mist.formats.languages import UNDETERMINED, canonical
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.media import MediaEvent, Oddity, TrackAssembler, TrackChanged, TrackFound, TrackGone
from mist.formats.rtmp.server import ServerSession
from mist.formats.rtmp.timeline import Timeline
from mist.stream.capability import Capability
from mist.stream.continued_tracks import FORGET_TRACKS_SECONDS, ContinuedTracks
from mist.stream.services import InputServices

READ_BYTES: Final = 256 * 1024
SILENCE_SECONDS: Final = 30
MAX_UNSENT_BYTES: Final = 64 * 1024
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
    codecs=((("H264", "HEVC", "AV1", "VP8", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3")),),
)


class RtmpInput:
    """Reads a publisher's socket until it ends; media goes to the stream's tracks as it comes."""

    def __init__(self, services: InputServices) -> None:
        self._services = services
        query = dict(parse_qsl(str(services.request.get("query", ""))))
        self._socket = socket.socket(fileno=services.fd)
        self._socket.setblocking(False)
        self._session = ServerSession.restore(services.state, time.monotonic())
        self._assembler = TrackAssembler(canonical(query["lang"]) if query.get("lang") else UNDETERMINED)
        self._timeline = Timeline(services.publisher.last_us(), _offset_us(query.get("timeoffset", "")))
        self._tracks = ContinuedTracks(services.publisher, services.log)
        self._unsent = b""
        self._heard_at = time.monotonic()
        self._silence_s = float(services.config.get("inputtimeout") or SILENCE_SECONDS)
        self._done: asyncio.Future[None] = services.loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self) -> None:
        """Serve the publisher to its end. Raises MistError unless it said goodbye."""
        loop = self._services.loop
        try:
            self._session.send_publish_start(
                str(self._services.request.get("name", self._services.stream)), time.monotonic()
            )
            loop.add_reader(self._socket.fileno(), self._guarded_read)
            self._timers = [loop.call_later(self._silence_s, self._check_silence)]
            self._timers.append(loop.call_later(FORGET_TRACKS_SECONDS, self._tracks.forget_left))
            self._guarded(self._handle, b"")
            await self._done
            self._drain()
        except MistError as error:
            self._session.send_unpublished(str(error))
            self._last_words()
            raise
        except asyncio.CancelledError:
            self._session.send_unpublished("The stream was stopped, or another publisher took over")
            self._last_words()
            raise
        finally:
            for timer in self._timers:
                timer.cancel()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _guarded(self, action: Any, *arguments: Any) -> None:
        """Run a part of the connection; whatever it raises ends `run`."""
        if self._done.done():
            return
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 (given to the task that waits, which raises it)
            if not self._done.done():
                self._done.set_exception(error)

    def _guarded_read(self) -> None:
        self._guarded(self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise PeerClosed(f"the publisher's connection broke: {error}") from error
        if not data:
            raise PeerClosed("the publisher closed the connection without ending the stream")
        self._heard_at = time.monotonic()
        self._services.record.add_bytes(0, len(data))
        self._handle(data)

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, m.Media):
                self._publish(self._assembler.feed(event.type_id, event.time_ms, event.payload))
            elif isinstance(event, m.Data):
                if event.name == "onMetaData" and event.values and isinstance(event.values[0], dict):
                    self._publish(self._assembler.feed_metadata(event.values[0]))
            elif isinstance(event, m.StreamEnded) and not self._done.done():
                self._done.set_result(None)
        self._flush()

    def _publish(self, events: list[MediaEvent]) -> None:
        services = self._services
        for event in events:
            if isinstance(event, Packet):
                self._write(event)
            elif isinstance(event, TrackFound):
                self._tracks.find(event.track, event.info)
            elif isinstance(event, TrackChanged):
                self._tracks.change(event.track, event.info)
            elif isinstance(event, TrackGone):
                self._tracks.remove(event.track)
            elif isinstance(event, Oddity):
                services.log.warning("publisher %s: %s", services.request.get("host", ""), event.text)

    def _write(self, packet: Packet) -> None:
        services = self._services
        index = self._tracks.index(packet.track)
        dts_us = self._timeline.place(packet.track, packet.dts_us)
        if self._timeline.jumped:
            services.publisher.mark_discontinuity()
        for report in self._timeline.take_reports():
            services.log.warning("publisher %s: %s", services.request.get("host", ""), report)
        offset_us = packet.offset_us
        if self._timeline.moved_us and offset_us > 0:
            offset_us = max(0, offset_us - self._timeline.moved_us)
        services.publisher.write(Packet(index, dts_us, offset_us, packet.keyframe, packet.payload))
        services.record.set_position(dts_us)

    # -- sending

    def _flush(self) -> None:
        output = self._session.take_output()
        if not output:
            return
        waiting = bool(self._unsent)
        self._unsent += output
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise WriteStalled("the publisher does not read what is sent to it")
        if not waiting:
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise PeerClosed(f"the publisher's connection broke: {error}") from error
        self._services.record.add_bytes(sent, 0)
        self._unsent = self._unsent[sent:]
        loop = self._services.loop
        if self._unsent:
            loop.add_writer(self._socket.fileno(), self._guarded, self._send)
        else:
            loop.remove_writer(self._socket.fileno())

    def _last_words(self) -> None:
        """Send what can be sent at once; the connection ends anyway."""
        try:
            self._socket.send(self._unsent + self._session.take_output())
        except OSError as error:
            self._services.log.debug("the publisher did not hear why: %s", error)

    def _drain(self) -> None:
        """Read what the peer said after its goodbye, so that closing does not reset the connection under our reply."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(READ_BYTES):
                pass
        except OSError as error:
            self._services.log.debug("the publisher's connection ended: %s", error)

    def _check_silence(self) -> None:
        left = self._heard_at + self._silence_s - time.monotonic()
        if left <= 0 and not self._done.done():
            text = f"the publisher sent nothing for {self._silence_s:g} s"
            self._done.set_exception(TransportError(text, reason="CLEAN_INACTIVE"))
            return
        self._timers[0] = self._services.loop.call_later(max(left, 0.1), self._check_silence)


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
