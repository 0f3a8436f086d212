"""DTSC on its own port: plays streams to other servers, and hands those that push over to the input of their stream."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from mist import __version__
from mist.core.dtsc import DtscMuxer
from mist.core.muxer import Muxer
from mist.errors import MistError, PeerClosed, WriteStalled
from mist.formats import dtsc_session as d
from mist.formats.tracks import VIDEO, TrackInfo
from mist.net.tls_relay import TlsRelay, server_context
from mist.outputs.base import Choice, choose_tracks, own_pace
from mist.stream.capability import Capability, listener_options
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.push_access import KEY_SOURCE, admit
from mist.stream.reader import StreamReader
from mist.stream.services import ConnectionRecord, OutputServices

DEFAULT_PORT: Final = 4200
READ_BYTES: Final = 64 * 1024
MAX_UNSENT_BYTES: Final = 64 * 1024
REFUSED_SECONDS: Final = 2.0  # a refused peer may read why
HAND_OVER_SECONDS: Final = 60.0
SALT_BYTES: Final = 16

CAPABILITY: Final = Capability(
    name="DTSC",
    friendly="DTSC between servers",
    desc=(
        "Plays streams in MistServer's own format to other servers, and takes those that they push. With a certificate "
        "and its key, over TLS."
    ),
    codecs=((("+*",),),),
    push_urls=("dtsc://*",),
    optional={
        **listener_options(DEFAULT_PORT),
        "syncmode": {
            "name": "Sync mode",
            "help": "Whether packets of all tracks are sent in the order of their times, or as they come",
            "type": "select",
            "select": [[0, "As they come"], [1, "In the order of their times"]],
            "default": 0,
            "option": "--syncmode",
            "short": "x",
        },
        "cert": {
            "name": "Certificate",
            "help": "File with the certificate chain, PEM; with it, connections are TLS",
            "type": "str",
            "default": "",
            "option": "--cert",
            "short": "C",
        },
        "key": {
            "name": "Key",
            "help": "File with the private key, PEM; empty when the certificate's file has it",
            "type": "str",
            "default": "",
            "option": "--key",
            "short": "K",
        },
    },
    default_port=DEFAULT_PORT,
)


class DtscConnection:
    """One accepted connection, until a pusher is handed over or a player ends."""

    def __init__(self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str) -> None:
        self._services = services
        self._sync = str(options.get("syncmode") or "0") == "1"
        self._relay: TlsRelay | None = None
        if options.get("cert"):
            context = server_context(str(options["cert"]), str(options.get("key") or ""))
            self._relay = TlsRelay(services.loop, sock, context, peer)
            sock = self._relay.inner
        self._socket = sock
        self._peer = peer
        self._unsent = b""
        self._task: asyncio.Task[None] | None = None
        self._player: _Player | None = None
        self._closed = False
        self._close_at: float | None = None
        self._record: ConnectionRecord = services.open_record("DTSC", peer)
        self._session = d.ListenerSession(secrets.token_hex(SALT_BYTES), f"mist/{__version__}", time.monotonic())
        self._timer = services.loop.call_later(1.0, self._check_time)
        services.loop.add_reader(sock.fileno(), self._readable)
        services.loop.call_soon(self._guarded_flush)

    # -- reading

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise PeerClosed("the peer closed the connection")
            self._record.add_bytes(0, len(data))
            self._handle(data)
        except (BlockingIOError, InterruptedError):
            return
        except (MistError, OSError) as error:
            self._fail(error)

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, d.PushRequested):
                self._services.loop.remove_reader(self._socket.fileno())
                self._start(self._push(event))
            elif isinstance(event, d.PlayRequested):
                self._start(self._play(event))
            elif isinstance(event, d.PeerFailed):
                raise PeerClosed(f"the peer says: {event.text}")
        self._flush()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._services.loop.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of the connection; an error ends the connection."""
        try:
            await work
        except (MistError, OSError) as error:
            self._fail(error)

    def _check_time(self) -> None:
        """End a connection whose peer takes too long to say what it wants."""
        now = time.monotonic()
        try:
            if self._close_at is not None and now >= self._close_at:
                raise PeerClosed("refused")
            self._session.handle_timeout(now)
        except MistError as error:
            self._fail(error)
            return
        self._timer = self._services.loop.call_later(1.0, self._check_time)

    # -- sending

    def _guarded_flush(self) -> None:
        try:
            if not self._closed:
                self._flush()
        except (MistError, OSError) as error:
            self._fail(error)

    def _flush(self) -> None:
        output = self._session.take_output()
        if not output:
            return
        waiting = bool(self._unsent)
        self._unsent += output
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise WriteStalled("the peer does not read what is sent to it")
        if not waiting:
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        self._record.add_bytes(sent, 0)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._services.loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._services.loop.remove_writer(self._socket.fileno())

    def _writable(self) -> None:
        try:
            self._send()
        except OSError as error:
            self._fail(error)

    # -- pushing

    async def _push(self, request: d.PushRequested) -> None:
        try:
            services = self._services
            target = await admit(services.config, request.stream, request.password, self._peer, self._resolve)
            described = {"stream": target.stream, "input": "DTSC", "connector": "DTSC", "host": self._peer}
            described["name"] = request.stream
            if target.keyed:
                described["source"] = KEY_SOURCE
            self._flush()
            if self._unsent:
                raise WriteStalled("the peer does not read what is sent to it")
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await services.hand_over_publisher(self._socket.fileno(), described, self._session.export_state())
        except (MistError, TimeoutError) as error:
            self._refuse(str(error) or "Pushing failed", f"push of {request.stream}")
            return
        self._close("handed over")

    async def _resolve(self, host: str) -> list[str]:
        try:
            found = await self._services.loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            self._services.log.warning("the host %s of a push source has no address: %s", host, error)
            return []
        return [str(entry[4][0]) for entry in found]

    def _refuse(self, text: str, what: str) -> None:
        """Say why, and end the connection soon."""
        self._services.log.info("DTSC %s by %s refused: %s", what, self._peer, text)
        self._session.send_refused(text, time.monotonic())
        self._close_at = time.monotonic() + REFUSED_SECONDS
        self._flush()
        self._services.loop.add_reader(self._socket.fileno(), self._readable)

    # -- playing

    async def _play(self, request: d.PlayRequested) -> None:
        reader: StreamReader | None = None
        sync = request.parameters.get("sync", "1" if self._sync else "0") not in ("0", "")
        try:
            parameters = parse_parameters(request.parameters)
            reader = await self._services.open_stream(request.stream)
            choice = await choose_tracks(self._services, reader, parameters, CAPABILITY, "")
            pace = _pace(parameters, choice, "rate" in request.parameters)
            self._session.send_play_start(sync, time.monotonic())
            exact = request.parameters.get(d.EXACT) == "1"
            player = _Player(self._services, self._session, self._record, choice, self._peer, exact)
            self._join(player, choice, parameters, sync, pace)
        except MistError as error:
            if reader is not None:
                self._services.close_stream(reader)
            self._refuse(str(error) or "Stream not available", f"player of {request.stream}")
        except BaseException:
            if reader is not None and self._player is None:
                self._services.close_stream(reader)
            raise

    def _join(
        self, player: _Player, choice: Choice, parameters: PlaybackParameters, sync: bool, pace: Mapping[str, Any]
    ) -> None:
        """Give the socket to the fan-out. Raises MistError; the socket is still ours then."""
        loop, reader = self._services.loop, choice.reader
        self._record.set_stream(reader.name)
        self._record.set_token(parameters.token)
        head = self._unsent + self._session.take_output()
        fd = self._socket.fileno()
        loop.remove_reader(fd)
        loop.remove_writer(fd)
        player.fd = fd
        selectors = ",".join(f"{kind}={text}" for kind, text in sorted(parameters.selectors.items()))
        player.subscription = self._services.fanout.join(
            reader,
            choice.indexes,
            f"DTSC{'x' if player.exact else ''}{'s' if sync else ''}?{selectors}",
            player.make_muxer,
            fd,
            head,
            by_time=sync,
            reselect=choice.reselect,
            record=self._record,
            on_close=player.closed,
            on_readable=player.readable,
            **pace,
        )
        self._player = player
        self._socket.detach()
        self._closed = True
        self._timer.cancel()
        player.started()

    # -- the end

    def _fail(self, error: Exception) -> None:
        reason = getattr(error, "reason", "WRITE_FAILURE")
        self._services.log.info("DTSC connection of %s: %s (%s)", self._peer, error, reason)
        if not self._closed:
            try:
                self._socket.send(self._unsent + self._session.take_output())
            except OSError as problem:
                self._services.log.debug("the peer did not hear why: %s", problem)
        self._close(reason)

    def _close(self, reason: str) -> None:
        """Let go of the socket. A copy that was handed over lives on: there is no shutdown."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        loop = self._services.loop
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        if self._task is not None and self._task is not asyncio.current_task(loop):
            self._task.cancel()
        self._socket.close()
        self._record.close()

    def close(self, reason: str = "CLEAN_SIGNAL") -> None:
        """End the connection."""
        if self._player is not None and self._player.subscription is not None:
            self._player.subscription.close(reason)
        else:
            self._close(reason)
        if self._relay is not None:
            self._relay.close()


def _pace(parameters: PlaybackParameters, choice: Choice, has_rate: bool) -> dict[str, Any]:
    """Return how a player is sent the stream: from the middle of the buffer unless it says where, and as fast as it reads."""
    pace = own_pace(parameters, choice)
    if not has_rate:
        pace["rate"] = 0.0
        if "start_us" not in pace:
            keys = choice.reader.keys(_main_track(choice))
            if keys:
                pace["start_us"] = keys[len(keys) // 2].dts_us
    return pace


def _main_track(choice: Choice) -> int:
    """Return the index of the track at whose keys players begin: the first video track, else the last one."""
    kinds = {state.index: state.info.type for state in choice.reader.tracks()}
    return next((index for index in choice.indexes if kinds.get(index) == VIDEO), choice.indexes[-1])


class _Player:
    """A connection that plays: the fan-out sends, this reads what the peer says and shows that the connection lives."""

    def __init__(
        self,
        services: OutputServices,
        session: d.ListenerSession,
        record: ConnectionRecord,
        choice: Choice,
        peer: str,
        exact: bool,
    ) -> None:
        self.fd = -1
        self.exact = exact
        self.subscription: Any = None
        self._services = services
        self._session = session
        self._record = record
        self._reader = choice.reader
        self._indexes = choice.indexes
        self._peer = peer
        self._sent_bytes = 0
        self._pinged = False
        self._zero_us = choice.reader.wall_clock_offset_us
        self._timer: asyncio.TimerHandle | None = None

    def make_muxer(self, tracks: list[TrackInfo]) -> Muxer:
        """Return the muxer of a group of players."""
        reader = self._reader
        return DtscMuxer(tracks, live=reader.live, unix_zero_us=lambda: reader.wall_clock_offset_us, exact=self.exact)

    def started(self) -> None:
        """Begin to hear and to look after the connection: the fan-out has it."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        self._guarded_handle(b"")

    def _tick(self) -> None:
        """Ping a peer that was sent nothing for a second, and tell it when the stream's wall clock changed."""
        self._timer = self._services.loop.call_later(d.IDLE_PING_SECONDS, self._tick)
        zero_us = self._reader.wall_clock_offset_us
        if zero_us != self._zero_us and self.exact:
            self._zero_us = zero_us
            self._session.send_wall_clock((zero_us + 500) // 1000)
            self._guarded_handle(b"")
        sent_bytes = self.subscription.bytes_sent
        if sent_bytes == self._sent_bytes and not self._pinged:
            self._session.send_ping()
            self._guarded_handle(b"")
            self._pinged = self.subscription.bytes_sent == sent_bytes  # it does not read: one ping is enough
        elif sent_bytes != self._sent_bytes:
            self._pinged = False
        self._sent_bytes = self.subscription.bytes_sent

    def readable(self) -> None:
        """Read what the peer sent; called by the fan-out."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.subscription.close("CLEAN_REMOTE_CLOSE")
            return
        if not data:
            self.subscription.close("CLEAN_REMOTE_CLOSE")
            return
        self._record.add_bytes(0, len(data))
        self._guarded_handle(data)

    def _guarded_handle(self, data: bytes) -> None:
        try:
            self._handle(data)
        except MistError as error:
            self._services.log.info("DTSC player %s of %s: %s", self._peer, self._reader.name, error)
            self.subscription.close(error.reason)

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, d.KeyDurationAsked):
                self._check_key_duration(event)
            elif isinstance(event, d.PeerFailed):
                raise PeerClosed(f"the peer says: {event.text}")
        output = self._session.take_output()
        if output:
            self.subscription.send(output)

    def _check_key_duration(self, asked: d.KeyDurationAsked) -> None:
        place = asked.track - 1
        longest_ms = 0
        if 0 <= place < len(self._indexes):
            times = [key.dts_us for key in self._reader.keys(self._indexes[place])]
            longest_ms = max((after - before for before, after in itertools.pairwise(times)), default=0) // 1000
        if d.key_duration_fits(asked.duration_ms, longest_ms):
            self._session.send_ok("Key duration matches")
            return
        self.subscription.send(d.command_bytes("error", msg="Key duration mismatch; there are keyframes that you lost"))
        self.subscription.close("CLEAN_INTENDED_STOP")

    def closed(self, reason: str) -> None:
        """Say why when the stream is over, and count the connection out; the fan-out closes the socket."""
        if self._timer is not None:
            self._timer.cancel()
        if reason == "CLEAN_EOF":
            try:
                os.write(self.fd, d.command_bytes("error", msg="The stream has ended"))
            except OSError as error:
                self._services.log.debug("DTSC player %s did not hear the end: %s", self._peer, error)
        self._record.close()
        self._services.close_stream(self._reader)


class DtscOutput:
    """The DTSC listener."""

    capability = CAPABILITY

    def connection(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str
    ) -> DtscConnection:
        """Serve an accepted connection on the worker's loop."""
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return DtscConnection(services, options, sock, peer)


OUTPUT: Final = DtscOutput()
