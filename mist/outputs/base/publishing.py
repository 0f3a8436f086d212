"""Streams sent to another server that takes them: the fan-out sends, this hears what the server says."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.errors import MistError, NoSuitableTrack, PeerClosed
from mist.formats.tracks import TrackInfo
from mist.net.dial import READ_BYTES, Dialled, Session
from mist.outputs.base import UNPLAYABLE, Choice, own_pace
from mist.stream.parameters import PlaybackParameters
from mist.stream.push import PushStatus
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices

PLAYBACK: Final = frozenset(
    ("audio", "video", "subtitle", "meta", "start", "stop", "duration", "rate", "buffer", "waittrackcount", "startunix", "stopunix")
    + ("mintrackkeys", "mintrackms", "maxtrackms", "maxwaittrackms", "unmask", "pushdelay", "realtime")
)  # fmt: skip
MAX_DELAY_S: Final = 3600.0
FAREWELL_SECONDS: Final = 1.0
STOPPED: Final = "CLEAN_CONTROLLER_REQ"


def refuse_files(reader: StreamReader) -> None:
    """Raise NoSuitableTrack for a stream that is not live."""
    if not reader.live:
        raise NoSuitableTrack(f"{reader.name} is played on demand: pushes are of live streams")


def _delay_us(given: Mapping[str, str]) -> int:
    """Return by how much a push is to be behind."""
    try:
        return round(min(max(float(given.get("pushdelay") or 0), 0.0), MAX_DELAY_S) * 1e6)
    except ValueError:
        return 0


async def push_pace(
    services: OutputServices,
    parameters: PlaybackParameters,
    given: Mapping[str, str],
    choice: Choice,
    catch_up_rate: float = 1.0,
) -> dict[str, Any]:
    """Return what `Fanout.join` needs for a push, after waiting until the stream is as long as the push is to be delayed.

    catch_up_rate: speed of a push that begins in the past, unless `rate` or `realtime` says another.
    """
    delay_us = _delay_us(given)
    if not delay_us:
        pace = own_pace(parameters, choice)
        if "rate" in pace and not parameters.rate_given and "realtime" not in given:
            pace["rate"] = catch_up_rate
        return pace
    reader, main = choice.reader, choice.indexes[0]
    changed = asyncio.Event()
    watch = services.fanout.watch(reader, changed.set)
    try:
        while (state := reader.track(main)).last_us - state.first_us < delay_us:
            if reader.status() in UNPLAYABLE:
                raise NoSuitableTrack(f"The stream {reader.name} ended before it was as long as the delay of the push")
            changed.clear()
            await changed.wait()
    finally:
        services.fanout.unwatch(watch, changed.set)
    pace = own_pace(parameters, choice)
    return {**pace, "start_us": max(state.last_us - delay_us, state.first_us), "rate": 1.0}


class Publishing:
    """A connection on which a server waits for media."""

    def __init__(
        self,
        services: OutputServices,
        dialled: Dialled,
        session: Session,
        choice: Choice,
        status: PushStatus,
        *,
        heard: Callable[[Any], None],
        farewell: Callable[[], bytes],
    ) -> None:
        """heard: looks at an event of the session; raises MistError when the server does not want more. farewell: the last bytes."""
        self._services = services
        self._dialled = dialled
        self._session = session
        self._choice = choice
        self._status = status
        self._heard = heard
        self._farewell = farewell
        self._ended: asyncio.Future[str] = services.loop.create_future()
        self._failure: MistError | None = None
        self._fd = -1

    async def run(self, key: str, make_muxer: Callable[[list[TrackInfo]], Muxer], record: Any, **options: Any) -> None:
        """Send until the stream ends. key, make_muxer, options: as of `Fanout.join`. Raises MistError."""
        head = self._session.take_output()
        self._fd = self._dialled.sock.detach()
        reader = self._choice.reader
        fanout = self._services.fanout
        self._viewer = viewer = fanout.join(
            reader,
            self._choice.indexes,
            key,
            make_muxer,
            self._fd,
            head,
            reselect=self._choice.reselect,
            record=record,
            on_close=self._closed,
            on_readable=self._readable,
            **options,
        )
        watch = fanout.watch(reader, self._follow)
        self._status.leave = lambda: viewer.finish(STOPPED)
        try:
            reason = await self._ended
        except asyncio.CancelledError:
            self._say_goodbye()
            viewer.close(STOPPED)
            raise
        finally:
            self._status.leave = None
            fanout.unwatch(watch, self._follow)
            if self._dialled.relay is not None:
                await self._dialled.relay.wait_sent(FAREWELL_SECONDS)
                self._dialled.relay.close()
        if self._failure is not None:
            raise self._failure
        if reason == "CLEAN_REMOTE_CLOSE":
            raise PeerClosed("the server closed the connection")

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
                self._heard(event)
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
        words = self._farewell()
        if not words:
            return
        try:
            os.write(self._fd, words)
        except OSError as error:
            self._services.log.debug("The server did not hear the end: %s", error)

    def _closed(self, reason: str) -> None:
        if reason in ("CLEAN_EOF", STOPPED):
            self._say_goodbye()
        if not self._ended.done():
            self._ended.set_result(reason)
