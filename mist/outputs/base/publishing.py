"""Streams sent to another server that takes them: the fan-out sends, this hears what the server says.

Another process can go on with such a connection, as with a viewer's: the guardian holds a duplicate of its socket and of its group's
memory, and the record has what the session needs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed
from mist.formats.tracks import TrackInfo
from mist.net.dial import Dialled, Session, hear_out
from mist.net.tls_relay import TlsRelay
from mist.outputs.base import Choice, beginning, own_pace
from mist.outputs.base.resumed import pack_saved, resume_viewer, unpack_saved
from mist.stream.parameters import PlaybackParameters
from mist.stream.push import LeftConnection, PushStatus
from mist.stream.reader import StreamReader
from mist.stream.selectors import ANY_MASK, PUSHES_MASK
from mist.stream.services import OutputServices
from mist.stream.state import TrackState

PLAYBACK: Final = frozenset(
    ("audio", "video", "subtitle", "meta", "start", "stop", "duration", "rate", "buffer", "waittrackcount", "startunix", "stopunix")
    + ("mintrackkeys", "mintrackms", "maxtrackms", "maxwaittrackms", "unmask", "pushdelay", "realtime", "waitkey")
)  # fmt: skip
MAX_DELAY_S: Final = 3600.0
FAREWELL_SECONDS: Final = 1.0
HANG_UP_SECONDS: Final = 2.0  # for a server that was told the end
STOPPED: Final = "CLEAN_CONTROLLER_REQ"
LOST: Final = "The connection cannot be continued: %s"

SomeSession = TypeVar("SomeSession", bound=Session)


def tracks_mask(given: Mapping[str, str]) -> int:
    """Return which tracks a push may see: those that pushes are to see, or all with `unmask`."""
    return ANY_MASK if "unmask" in given else PUSHES_MASK


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
        if "rate" in pace and "realtime" in given:
            pace.setdefault("ahead_us", 0)  # what is sent ahead would make the distance smaller
        return pace
    reader, main = choice.reader, choice.indexes[0]
    await beginning.wait_until(
        services,
        reader,
        lambda: (state := reader.track(main)).last_us - state.first_us >= delay_us,
        "it was as long as the delay of the push",
    )
    state = reader.track(main)
    pace = own_pace(parameters, choice)
    return {"ahead_us": 0, **pace, "start_us": max(state.last_us - delay_us, state.first_us), "rate": 1.0}


async def wait_fresh_key(services: OutputServices, given: Mapping[str, str], choice: Choice) -> None:
    """Wait for a keyframe that is not there yet, if that is asked for (`waitkey`). Raises NoSuitableTrack when the stream ends."""
    if "waitkey" in given:
        await beginning.wait_fresh_key(services, choice)


def take_left(
    services: OutputServices, status: PushStatus, restore: Callable[[bytes], SomeSession]
) -> tuple[LeftConnection, dict[str, Any], SomeSession] | None:
    """Return a connection that the process before this one had, what that had saved, and its session.

    None when there is none, or none that can be continued: that one is closed. restore(state): makes the session; raises MistError.
    """
    left, status.left_connection = status.left_connection, None
    if left is None:
        return None
    try:
        saved, state = unpack_saved(left.record.progress()[3])
        return left, saved, restore(state)
    except MistError as error:
        services.log.warning(LOST, error)
        let_go(left)
        return None


def let_go(left: LeftConnection) -> None:
    """Close a connection that nobody goes on with."""
    left.record.close()
    os.close(left.fd)


@dataclass(frozen=True, slots=True)
class Destination:
    """A server that waits for media. heard: looks at an event of the session; raises MistError when the server does not want more.

    farewell: returns the last bytes.
    """

    protocol: str
    session: Session
    heard: Callable[[Any], None]
    farewell: Callable[[], bytes]


class Publishing:
    """A connection on which a server waits for media."""

    def __init__(
        self,
        services: OutputServices,
        destination: Destination,
        status: PushStatus,
        saved: Mapping[str, Any],
    ) -> None:
        """saved: what the next process needs besides, as JSON has it."""
        self._services = services
        self._destination = destination
        self._session = destination.session
        self._status = status
        self._saved = {**saved, "began": status.began}
        self._relay: TlsRelay | None = None
        self._told = False  # the server, that this is the end
        self._parting = -1  # another descriptor of the connection, from then on
        self._ended: asyncio.Future[str] = services.loop.create_future()
        self._failure: MistError | None = None
        self._fd = -1
        self._sent_before = 0  # by other processes

    async def run(
        self,
        dialled: Dialled,
        choice: Choice,
        key: str,
        make_muxer: Callable[[list[TrackInfo]], Muxer],
        record: Any,
        **options: Any,
    ) -> None:
        """Send until the stream ends. key, make_muxer, options: as of `Fanout.join`. Raises MistError."""
        head = self._session.take_output()
        self._relay = dialled.relay
        self._fd = dialled.sock.detach()
        self._saved |= {"stream": choice.reader.name, "key": key, "indexes": list(choice.indexes)}
        if self._relay is None:  # the keys of TLS are in this process alone
            self._status.keep_connection(record, self._fd)
        self._viewer = self._services.fanout.join(
            choice.reader,
            choice.indexes,
            key,
            make_muxer,
            self._fd,
            head,
            reselect=choice.reselect,
            record=record,
            state=self._state(),
            on_close=self._closed,
            on_readable=self._readable,
            **options,
        )
        await self._until_the_end(choice.reader)

    async def go_on(
        self,
        left: LeftConnection,
        saved: Mapping[str, Any],
        make_muxer: Callable[[StreamReader | None, list[TrackInfo]], Muxer],
        reselect: Callable[[StreamReader, list[TrackState]], list[int]],
    ) -> bool:
        """Go on with a connection of another process until the stream ends; False when that cannot be. Raises MistError.

        saved: of `take_left`. make_muxer, reselect: as of `resume_viewer`.
        """
        status = self._status
        try:
            sock = socket.socket(fileno=left.fd)
        except OSError as error:  # reset: the kernel no longer says what kind of socket it is
            let_go(left)
            raise PeerClosed(f"the connection broke: {error}") from None
        self._fd, self._saved = left.fd, dict(saved)
        status.began, status.tracks, status.first_ms = saved["began"], list(saved["indexes"]), saved.get("first_ms")
        self._sent_before = left.record.down_bytes
        try:
            self._viewer, reader = resume_viewer(
                self._services,
                sock,
                left.record,
                saved,
                make_muxer,
                reselect,
                on_close=self._closed,
                on_readable=self._readable,
            )
        except (MistError, OSError) as error:
            self._services.log.warning(LOST, error)
            sock.close()
            left.record.close()
            return False
        status.keep_connection(left.record, self._fd)
        try:
            await self._until_the_end(reader)
        finally:
            left.record.close()
        return True

    async def _until_the_end(self, reader: StreamReader | None) -> None:
        fanout, viewer = self._services.fanout, self._viewer

        def follow() -> None:
            if reader is not None:
                self._follow(reader)

        watch = fanout.watch(reader, follow) if reader is not None else None
        self._status.leave = lambda: viewer.finish(STOPPED)
        try:
            reason = await self._ended
        except asyncio.CancelledError:
            self._say_goodbye()
            viewer.close(STOPPED)
            raise
        finally:
            self._status.leave = None
            if watch is not None:
                fanout.unwatch(watch, follow)
            if self._relay is not None:
                await self._relay.wait_sent(FAREWELL_SECONDS)
                self._relay.close()
            elif self._parting >= 0:
                await hear_out(self._parting, HANG_UP_SECONDS)
        if self._failure is not None:
            raise self._failure
        if reason == "CLEAN_REMOTE_CLOSE":
            raise PeerClosed("the server closed the connection")

    def _state(self) -> bytes:
        return pack_saved(self._saved, self._session.export_state())

    def _follow(self, reader: StreamReader) -> None:
        """Keep the figures of the status."""
        status = self._status
        status.bytes = self._sent_before + self._viewer.bytes_sent
        newest = reader.track(status.tracks[0]).last_us // 1000
        if status.first_ms is None:
            status.first_ms = self._saved["first_ms"] = newest
            self._viewer.set_state(self._state())
        status.last_ms = newest

    def _readable(self) -> None:
        try:
            self._viewer.receive(self._received)
        except MistError as error:
            self._failure = error
            self._viewer.close(error.reason)
        except OSError as error:
            self._failure = PeerClosed(f"the connection broke: {error}")
            self._viewer.close("CLEAN_REMOTE_CLOSE")

    def _received(self, data: bytes) -> bytes:
        for event in self._session.feed(data, time.monotonic()):
            self._destination.heard(event)
        if output := self._session.take_output():
            self._viewer.send(output)
        return self._state()

    def _say_goodbye(self) -> None:
        """Tell the server of the end, once: a push that is cancelled is also closed."""
        if self._told:
            return
        self._told = True
        words = self._destination.farewell()
        try:
            if words:
                os.write(self._fd, words)
            if self._relay is None:
                self._parting = os.dup(self._fd)
        except OSError as error:
            self._services.log.debug("The server did not hear the end: %s", error)

    def _closed(self, reason: str) -> None:
        if reason in ("CLEAN_EOF", STOPPED):
            self._say_goodbye()
        if not self._ended.done():
            self._ended.set_result(reason)
