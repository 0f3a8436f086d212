"""DTSC: streams fetched from another server, and those that one pushes to us."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from mist import __version__
from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.errors import (
    ConfigError,
    LocalProtocolError,
    MistError,
    NotReady,
    PeerClosed,
    RemoteProtocolError,
    TransportError,
    WriteStalled,
)
from mist.formats.codecs import complete
from mist.formats.dtsc_session import EXACT, PeerFailed, ReceivingSession
from mist.formats.rtmp.timeline import JUMP_US, Timeline
from mist.formats.tracks import AV1, FLAC, H264, HEVC, META, OPUS, VIDEO, VP9, TrackInfo
from mist.inputs.base.ahead import Ahead
from mist.inputs.base.publisher_connection import PublisherConnection, pack_parts, split_parts
from mist.net.dial import client_context
from mist.stream.capability import Capability
from mist.stream.continued_tracks import FORGET_TRACKS_SECONDS, ContinuedTracks
from mist.stream.names import sanitise
from mist.stream.services import InputServices
from mist.stream.state import StreamStatus

STATE_VERSION: Final = 1  # of a pusher's connection
DEFAULT_PORT: Final = 4200
CONNECT_SECONDS: Final = 10.0
PULL_SILENCE_SECONDS: Final = 15.0  # the other server says something every second
SILENCE_SECONDS: Final = 30.0
FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 2.0
MAX_UNSENT_BYTES: Final = 64 * 1024
SAME_CLOCK_US: Final = 500_000  # servers that differ by less mean the same time base
MAX_OVERLAP_US: Final = 300_000_000  # of what is sent again after a connection was lost
GAP_US: Final = 500_000
RECENT_INTERVALS: Final = 3  # keyframe intervals, of which the longest must not be much longer than the shortest of all
SET_UP_CODECS: Final = frozenset({AV1, FLAC, H264, HEVC, OPUS, VP9})  # need init data, which packets also have

CAPABILITY: Final = Capability(
    name="DTSC",
    friendly="DTSC from another server",
    desc=(
        "Fetches a stream from another mist or MistServer, once however many viewers it has here: "
        "dtsc://host[:4200][/stream], or dtscs:// over TLS. The stream's own name is asked for when the URL has none. "
        "Also takes the streams that others push with DTSC."
    ),
    source_match=("dtsc://*", "dtscs://*"),
    always_match=("dtsc://*", "dtscs://*"),
    codecs=((("+*",),),),
)


class SourceEnded(MistError):
    """The other server has no such stream (any more)."""

    reason = "CLEAN_EOF"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a stream is fetched. parameters: of playback, and `sync`."""

    host: str
    port: int
    stream: str
    tls: ssl.SSLContext | None
    parameters: dict[str, str]

    def ask(self, parameters: Mapping[str, str]) -> ReceivingSession:
        """Return a session that asks for the stream."""
        return ReceivingSession.play(self.stream, f"mist/{__version__}", {EXACT: "1", **parameters})

    @classmethod
    def parse(cls, url: str, own_name: str) -> Source:
        """Read a source such as `dtscs://host:4200/live?verify=0`. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        except ValueError as error:
            raise ConfigError(f'the source "{url}" is no address: {error}', path="source", value=url) from None
        if not host:
            raise ConfigError(f'the source "{url}" names no host', path="source", value=url)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        checked = parameters.pop("verify", "1") != "0"
        path = unquote(parts.path).strip("/")
        tls = client_context(checked) if parts.scheme == "dtscs" else None
        return cls(host, port, sanitise(path) if path else own_name, tls, parameters)


class KeyIntervals:
    """How far apart a track's keyframes are. One much longer than another may be two, the keyframe between which was lost."""

    def __init__(
        self, last_us: int | None = None, shortest_us: int = 0, recent: Iterable[int] = (), asked_us: int = 0
    ) -> None:
        """With nothing seen, or what `export_state` of another process's object returned."""
        self._last_us = last_us
        self._shortest_us = shortest_us
        self._recent: deque[int] = deque(recent, maxlen=RECENT_INTERVALS)
        self._asked_us = asked_us

    def export_state(self) -> list[Any]:
        """Return what was seen, as JSON has it."""
        return [self._last_us, self._shortest_us, list(self._recent), self._asked_us]

    def doubtful(self, dts_us: int) -> int:
        """Take the time of a keyframe; return the interval to ask the sender about, 0 for none. Each is asked about once."""
        last_us, self._last_us = self._last_us, dts_us
        if last_us is None or dts_us <= last_us:
            return 0
        interval_us = dts_us - last_us
        self._recent.append(interval_us)
        self._shortest_us = min(self._shortest_us or interval_us, interval_us)
        longest_us = max(self._recent)
        if longest_us <= 2 * self._shortest_us or longest_us <= self._asked_us:
            return 0
        self._asked_us = longest_us
        return longest_us


class Intake:
    """Writes what a session receives into the stream, behind what an earlier session brought."""

    def __init__(
        self, services: InputServices, session: ReceivingSession, state: Mapping[str, Any] | None = None
    ) -> None:
        """state: what `export_state` of another process's intake returned. Raises ValueError, KeyError, TypeError for a damaged one."""
        self.packets_written = 0
        self._services = services
        self._publisher = services.publisher
        self._session = session
        self._demuxer = session.demuxer
        self._received = PacketList()
        self._demuxer.attach(self._received)
        session.on_header = self._take_header
        indexes = {int(number): int(index) for number, index in state["tracks"]} if state is not None else None
        self._tracks = ContinuedTracks(self._publisher, services.log, indexes)
        self._infos: dict[int, TrackInfo] = {}
        self._looked_at: set[int] = set()
        self._timeline: Timeline | None = None
        self._after_us = self._publisher.last_us()
        self._left_us = {index: self._publisher.track_last_us(index) for index in self._publisher.tracks}
        self._shift_us: int | None = None  # where the wall clock says how the times go on
        self._resume_after: dict[int, int] = {}
        self._repeats: set[int] = set()
        self._keys: dict[int, KeyIntervals] = {}
        self.on_tracks: Callable[[], None] = lambda: None  # called when tracks came, went or changed
        if state is not None:
            self._restore(state)

    def export_state(self) -> dict[str, Any]:
        """Return everything the next packet depends on, as JSON has it."""
        return {
            "written": self.packets_written,
            "tracks": list(self._tracks.indexes.items()),
            "infos": [[number, info.export_state()] for number, info in self._infos.items()],
            "looked_at": sorted(self._looked_at),
            "timeline": self._timeline.export_state() if self._timeline is not None else None,
            "after": self._after_us,
            "left": list(self._left_us.items()),
            "shift": self._shift_us,
            "resume_after": list(self._resume_after.items()),
            "repeats": sorted(self._repeats),
            "keys": [[number, keys.export_state()] for number, keys in self._keys.items()],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.packets_written = int(state["written"])
        self._infos = {number: TrackInfo.restore(info) for number, info in state["infos"]}
        self._looked_at = set(state["looked_at"])
        self._timeline = Timeline.restore(state["timeline"]) if state["timeline"] is not None else None
        self._after_us, self._shift_us = state["after"], state["shift"]
        self._left_us = dict(state["left"])
        self._resume_after = dict(state["resume_after"])
        self._repeats = set(state["repeats"])
        self._keys = {number: KeyIntervals(*keys) for number, keys in state["keys"]}

    def take_packets(self) -> None:
        """Write the packets that the session has received."""
        for packet in self._received.take():
            self._write(packet)

    def forget_left(self) -> None:
        """Remove the tracks that this source does not send."""
        self._tracks.forget_left()

    @property
    def on_demand(self) -> bool:
        """Whether the other server plays a file, whose times are the same whenever it is asked."""
        return self._demuxer.vod and not self._demuxer.live

    # -- tracks and clocks

    def _take_header(self) -> None:
        self.take_packets()
        self.on_tracks()
        zero_us = (self._demuxer.unix_zero_ms or 0) * 1000
        if self._timeline is None:
            self._begin(zero_us)
        announced = set(self._demuxer.announced)
        for number, info in enumerate(self._demuxer.tracks):
            if number not in announced:
                if number in self._tracks:
                    self._tracks.remove(number)
            elif number not in self._tracks:
                self._find(number, info)
            elif info != self._infos[number]:
                self._infos[number] = info
                self._tracks.change(number, info)
        if zero_us and self._timeline is not None:
            self._publisher.set_wall_clock(zero_us - self._timeline.shift_us)

    def _find(self, number: int, info: TrackInfo) -> None:
        self._infos[number] = info
        index = self._tracks.find(number, info)
        last_us = self._left_us.get(index)
        if last_us is not None and self._shift_us is not None:
            self._resume_after[index] = last_us

    def _begin(self, zero_us: int) -> None:
        """Choose how the times go on: by the wall clock where both ends have one, else behind the last packet."""
        wall_us = self._publisher.wall_clock_us
        if self._after_us is None or not (self.on_demand or (zero_us and wall_us)):
            self._timeline = Timeline(self._after_us)
            return
        shift_us = 0 if self.on_demand else zero_us - wall_us
        self._shift_us = 0 if abs(shift_us) < SAME_CLOCK_US else shift_us
        self._timeline = Timeline(None, self._shift_us)

    def _check_begin(self, dts_us: int) -> None:
        """Look at the first packet: when the clocks are too far apart, times go on behind the last packet."""
        assert self._after_us is not None and self._shift_us is not None
        placed_us = dts_us + self._shift_us
        if not self._after_us - MAX_OVERLAP_US <= placed_us <= self._after_us + JUMP_US:
            self._timeline = Timeline(self._after_us, self._shift_us)
            self._resume_after.clear()
            self._shift_us = None

    def _is_repeated(self, index: int, dts_us: int) -> bool:
        """Tell whether the stream has a packet already, from before the connection was lost."""
        assert self._shift_us is not None
        last_us = self._resume_after.get(index)
        if last_us is None:
            return False
        if dts_us + self._shift_us <= last_us:
            self._repeats.add(index)
            return True
        del self._resume_after[index]
        if index not in self._repeats and dts_us + self._shift_us - last_us > GAP_US:
            self._publisher.mark_discontinuity()
        return False

    # -- packets

    def _write(self, packet: Packet) -> None:
        assert self._timeline is not None
        if not self.packets_written and self._shift_us is not None and not self._repeats:
            self._check_begin(packet.dts_us)
        number = packet.track
        index = self._tracks.index(number)
        if self._resume_after and self._is_repeated(index, packet.dts_us):
            return
        if number not in self._looked_at:
            self._look_at(number, packet)
        if packet.keyframe and self._session.pulls and not self.on_demand and self._infos[number].type == VIDEO:
            self._check_keys(number, packet.dts_us)
        if self._infos[number].type == META:  # tracks come each at their own pace
            dts_us = self._timeline.follow(number, packet.dts_us, JUMP_US)
        else:
            dts_us = self._timeline.place(number, packet.dts_us)
        if self._timeline.jumped:
            self._publisher.mark_discontinuity()
        for report in self._timeline.take_reports():
            self._services.log.warning("%s", report)
        self._publisher.write(Packet(index, dts_us, packet.offset_us, packet.keyframe, packet.payload))
        self._services.record.set_position(dts_us)
        if not self.packets_written and self._publisher.table.status == StreamStatus.WAIT:
            self._publisher.set_status(StreamStatus.READY)
        self.packets_written += 1

    def _check_keys(self, number: int, dts_us: int) -> None:
        """Ask the sender whether a long keyframe interval is one of its own; it ends the connection where it is not."""
        doubtful_us = self._keys.setdefault(number, KeyIntervals()).doubtful(dts_us)
        if doubtful_us:
            self._session.send_check_key_duration(self._demuxer.track_id(number), doubtful_us // 1000)

    def _look_at(self, number: int, packet: Packet) -> None:
        """Learn from a track's first keyframe what its header does not say: MistServer keeps no init data of AV1 and VP9."""
        info = self._infos[number]
        if info.type == VIDEO and not packet.keyframe:
            return
        self._looked_at.add(number)
        described = info.width if info.type == VIDEO else info.sample_rate_hz
        if info.init_data or (described and info.codec not in SET_UP_CODECS):
            return
        try:
            found = complete(info, packet.payload)
        except RemoteProtocolError as error:
            self._services.log.debug("track %d says nothing of itself: %s", number, error)
            return
        if found != info:
            self._infos[number] = found
            self._tracks.change(number, found)


class Link(asyncio.Protocol):
    """The connection that header and media come by."""

    def __init__(self, services: InputServices, session: ReceivingSession, silence_s: float) -> None:
        self.intake = Intake(services, session)
        self.done: asyncio.Future[None] = services.loop.create_future()
        self._services = services
        self._session = session
        self._silence_s = silence_s
        self._transport: asyncio.Transport | None = None
        self._heard_at = time.monotonic()
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        loop = self._services.loop
        self._timers = [loop.call_later(self._silence_s, self._check_silence)]
        self._timers.append(loop.call_later(FORGET_TRACKS_SECONDS, self.intake.forget_left))
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        if self.done.done():
            return
        self._heard_at = time.monotonic()
        self._services.record.add_bytes(0, len(data))
        try:
            events = self._session.feed(data, self._heard_at)
            self.intake.take_packets()
            self._flush()
            for event in events:
                if isinstance(event, PeerFailed):
                    raise SourceEnded(event.text or "the other server ended the stream")
        except Exception as error:  # noqa: BLE001 (given to the task that waits, which raises it)
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        text = f": {error}" if error else ""
        self._fail(PeerClosed(f"the other server closed the connection{text}"))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _flush(self) -> None:
        output = self._session.take_output()
        if not output or self._transport is None:
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise WriteStalled("the other server does not read what is sent to it")
        self._transport.write(output)
        self._services.record.add_bytes(len(output), 0)

    def _check_silence(self) -> None:
        left = self._heard_at + self._silence_s - time.monotonic()
        if left <= 0:
            text = f"the other server sent nothing for {self._silence_s:g} s"
            self._fail(TransportError(text, reason="CLEAN_INACTIVE"))
            return
        self._timers[0] = self._services.loop.call_later(max(left, 0.1), self._check_silence)

    def close(self) -> None:
        """End the connection."""
        for timer in self._timers:
            timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if not self.done.done():
            self.done.cancel()


class Puller:
    """Fetches a stream for as long as somebody wants it, over one connection after the other."""

    def __init__(self, services: InputServices) -> None:
        self._services = services
        self._source = Source.parse(services.source, services.stream)
        self._patience_s = float(services.config.get("inputtimeout") or SILENCE_SECONDS)
        self._on_demand = False

    async def run(self) -> None:
        """Return at the end of a file, or when the other server has had no such stream for long.

        Raises MistError when it cannot be reached for long, or at once if it never could.
        """
        lost_at: float | None = None
        delay = FIRST_RETRY_SECONDS
        publisher = self._services.publisher
        while True:
            packets, error = await self._fetch()
            now = time.monotonic()
            if packets or lost_at is None:
                lost_at, delay = now, FIRST_RETRY_SECONDS
            if publisher.last_us() is None:
                raise error
            if self._on_demand and isinstance(error, SourceEnded):
                return
            if now - lost_at > self._patience_s:
                if isinstance(error, SourceEnded):
                    return
                raise error
            if publisher.table.status == StreamStatus.READY:
                publisher.set_status(StreamStatus.WAIT)
            self._services.log.info("The source is away, trying again: %s", error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _fetch(self) -> tuple[int, MistError]:
        """Fetch the stream over one connection; return how many packets it brought, and why it ended."""
        source = self._source
        parameters = dict(source.parameters)
        last_us = self._services.publisher.last_us()
        if self._on_demand and last_us:
            parameters["start"] = str(last_us // 1000)
        session = source.ask(parameters)
        link = Link(self._services, session, PULL_SILENCE_SECONDS)
        where = f"{source.host}:{source.port}"
        try:
            if not self._go_on_ahead(session, link):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._services.loop.create_connection(
                        lambda: link,
                        source.host,
                        source.port,
                        ssl=source.tls,
                        server_hostname=source.host if source.tls else None,
                    )
            await link.done
        except SourceEnded as error:
            return link.intake.packets_written, self._why(link, f"{where} says: {error}", error)
        except TimeoutError:
            return 0, TransportError(f"{where} does not answer")
        except MistError as error:
            return link.intake.packets_written, error
        except OSError as error:
            return 0, TransportError(f"{where} cannot be reached: {error}")
        finally:
            self._on_demand = self._on_demand or link.intake.on_demand
            link.close()
        raise AssertionError("a link ends with a reason")

    def _go_on_ahead(self, session: ReceivingSession, link: Link) -> bool:
        """Go on with the connection that was made ahead, if there is one; it has been asked for the stream."""
        ahead, self._services.ahead = self._services.ahead, None
        if ahead is None or not ahead.is_open:
            return False
        session.take_output()
        ahead.hand_to(link)
        return True

    def _why(self, link: Link, text: str, error: SourceEnded) -> MistError:
        """Return the error for viewers that wait for a stream that never began, or what it was."""
        return SourceEnded(text) if self._services.publisher.last_us() is not None else NotReady(text)


class PushConnection(PublisherConnection):
    """Takes what a pusher sends that the listener accepted."""

    _session: ReceivingSession
    _intake: Intake

    def _begin(self, state: bytes) -> None:
        self._session = ReceivingSession.restore(state)
        self._session.send_ok(f"Push of {self._services.stream} accepted")
        self._take_in(Intake(self._services, self._session))

    def _take_in(self, intake: Intake) -> None:
        self._intake = intake
        intake.on_tracks = self._state_is_due

    def _export(self) -> bytes:
        session, rest, waiting = self._session.export_state()
        fields = {"version": STATE_VERSION, "session": session, "intake": self._intake.export_state()}
        return pack_parts(json.dumps(fields, separators=(",", ":")).encode(), rest, waiting)

    def _restore(self, state: bytes) -> None:
        about, rest, waiting = split_parts(state, 3)
        try:
            fields = json.loads(about)
            if fields["version"] != STATE_VERSION:
                raise LocalProtocolError(f"a pusher's state of version {fields['version']}; this is {STATE_VERSION}")
            self._session = ReceivingSession.resume(fields["session"], rest, waiting)
            self._take_in(Intake(self._services, self._session, fields["intake"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LocalProtocolError(f"damaged state of a pusher: {error}") from error

    def _state_bytes(self) -> int:
        return self._session.demuxer.rest_bytes

    def _take_replies(self) -> bytes:
        return self._session.take_output()

    def _forget_left(self) -> None:
        self._intake.forget_left()

    def _goodbye(self, text: str) -> None:
        self._session.send_error(text)

    def _feed(self, data: memoryview) -> None:
        events = self._session.feed(data, time.monotonic())
        self._intake.take_packets()
        for event in events:
            if isinstance(event, PeerFailed):
                raise SourceEnded(event.text or "the other server ended the stream")


class _Input:
    capability = CAPABILITY

    async def begin_ahead(self, services: InputServices) -> Ahead | None:
        """Have the source send to this process, whose turn it is soon. Raises ConfigError."""
        source = Source.parse(services.source, services.stream)
        request = source.ask(source.parameters).take_output()
        return await Ahead.connect(source.host, source.port, source.tls, request)

    async def run(self, services: InputServices) -> None:
        """Serve the pusher that was handed over, or fetch the stream. Returns at the end of the stream; raises MistError else."""
        if services.fd >= 0:
            await PushConnection(services).run()
        else:
            await Puller(services).run()


INPUT: Final = _Input()
