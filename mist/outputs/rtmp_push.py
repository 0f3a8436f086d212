"""RTMP and RTMPS pushed to another server."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mist.core.rtmp_chunks import RtmpPublishMuxer
from mist.errors import AccessDenied, MistError, NoSuitableTrack, PeerClosed
from mist.formats.rtmp import messages as m
from mist.formats.tracks import TrackInfo
from mist.net.rtmp_client import RtmpAddress, RtmpPublishing, publish
from mist.outputs.base import Capability, Choice, choose_tracks, own_pace
from mist.stream.parameters import parse_parameters
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.services import OutputServices

READ_BYTES: Final = 64 * 1024
FAREWELL_SECONDS: Final = 0.5
_OWN: Final = frozenset({"host", "app", "stream", "graceless", "keepts", "verify", "vidmap", "audmap"})
_PLAYBACK: Final = frozenset(
    (
        "audio",
        "video",
        "subtitle",
        "meta",
        "start",
        "stop",
        "duration",
        "rate",
        "waittrackcount",
        "startunix",
        "stopunix",
    )
    + ("mintrackkeys", "mintrackms", "maxtrackms", "maxwaittrackms", "unmask", "pushdelay", "realtime")
)
_CODECS: Final = Capability(
    name="RTMP push",
    friendly="",
    desc="",
    codecs=(
        (("H264",), ("AAC", "MP3")),
        (("H264", "HEVC", "AV1", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3")),
    ),
)


def parse_target(target: str) -> tuple[RtmpAddress, dict[str, str]]:
    """Return where a target is and the parameters of playing. What is no parameter of ours stays in the name of the stream there.

    Raises ConfigError.
    """
    url, given = split_target(target)
    theirs = [f"{quote(name)}={quote(value)}" for name, value in given.items() if name not in _OWN | _PLAYBACK]
    if theirs:
        url += ("&" if urlsplit(url).query else "?") + "&".join(theirs)
    address = RtmpAddress.parse(
        url, app=given.get("app", ""), stream=given.get("stream", ""), verify=given.get("verify", "1") != "0"
    )
    parameters = {name: value for name, value in given.items() if name in _PLAYBACK}
    parameters["graceless"] = "1" if "graceless" in given else ""
    parameters["keepts"] = "1" if "keepts" in given else ""
    return address, parameters


class RtmpPush:
    """Pushes to `rtmp://` and `rtmps://` targets."""

    connector = "RTMP"

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Publish the stream there until it ends. Raises MistError: refused, unreachable, no track fits, the server went away."""
        address, given = parse_target(plan.target)
        reader = await services.open_stream(plan.stream)
        record = services.open_record("OUTPUT:RTMP", address.host)
        record.set_stream(reader.name)
        try:
            if not reader.live:
                raise NoSuitableTrack(f"{reader.name} is played on demand: pushes are of live streams")
            parameters = parse_parameters(given)
            choice = await choose_tracks(services, reader, parameters, _CODECS, "")
            status.tracks = list(choice.indexes)
            connection = await publish(address)
            await _Publishing(services, connection, choice, status, given).run(own_pace(parameters, choice), record)
        finally:
            record.close()
            services.close_stream(reader)


class _Publishing:
    """A connection that publishes: the fan-out sends, this listens to the server."""

    def __init__(
        self,
        services: OutputServices,
        connection: RtmpPublishing,
        choice: Choice,
        status: PushStatus,
        given: dict[str, str],
    ) -> None:
        self._services = services
        self._connection = connection
        self._session = connection.session
        self._choice = choice
        self._status = status
        self._keep_times = bool(given["keepts"])
        self._graceless = bool(given["graceless"])
        self._ended: asyncio.Future[str] = services.loop.create_future()
        self._failure: MistError | None = None
        self._fd = -1

    async def run(self, pace: dict[str, Any], record: Any) -> None:
        """Send until the stream ends. Raises MistError."""
        output = self._session.take_output()
        self._fd = self._connection.sock.detach()
        reader = self._choice.reader
        viewer = self._services.fanout.join(
            reader,
            self._choice.indexes,
            f"RTMP push {self._session.stream_id}",
            self._make_muxer,
            self._fd,
            output,
            reselect=self._choice.reselect,
            record=record,
            on_close=self._closed,
            on_readable=self._readable,
            **pace,
        )
        self._viewer = viewer
        watch = self._services.fanout.watch(reader, self._follow)
        try:
            reason = await self._ended
        except asyncio.CancelledError:
            self._say_goodbye()
            viewer.close("CLEAN_CONTROLLER_REQ")
            raise
        finally:
            self._services.fanout.unwatch(watch, self._follow)
            if self._connection.relay is not None:
                self._connection.relay.close()
        if self._failure is not None:
            raise self._failure
        if reason == "CLEAN_REMOTE_CLOSE":
            raise PeerClosed("the server closed the connection")

    def _make_muxer(self, tracks: list[TrackInfo]) -> RtmpPublishMuxer:
        return RtmpPublishMuxer(tracks, message_stream=self._session.stream_id, keep_times=self._keep_times)

    def _follow(self) -> None:
        """Keep the figures of the status."""
        status = self._status
        status.bytes = self._viewer.bytes_sent
        newest = self._choice.reader.track(self._choice.indexes[0]).last_us // 1000
        status.first_ms = newest if status.first_ms is None else status.first_ms
        status.last_ms = newest

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
            if not data:
                raise PeerClosed("the server closed the connection")
            for event in self._session.feed(data, time.monotonic()):
                if isinstance(event, m.Refused):
                    raise AccessDenied(event.description or event.code)
                if isinstance(event, m.StreamEnded):
                    raise PeerClosed("the server ended the stream")
            if output := self._session.take_output():
                self._viewer.send(output)
        except (BlockingIOError, InterruptedError):
            return
        except MistError as error:
            self._failure = error
            self._viewer.close(error.reason)
        except OSError as error:
            self._failure = PeerClosed(f"the connection broke: {error}")
            self._viewer.close("CLEAN_REMOTE_CLOSE")

    def _say_goodbye(self) -> None:
        if self._graceless:
            return
        self._session.close()
        try:
            os.write(self._fd, self._session.take_output())
        except OSError as error:
            self._services.log.debug("The server did not hear the end: %s", error)

    def _closed(self, reason: str) -> None:
        if reason == "CLEAN_EOF":
            self._say_goodbye()
        if not self._ended.done():
            self._ended.set_result(reason)


PUSH: Final = RtmpPush()
