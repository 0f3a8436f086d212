"""The connections of the DTSC listener: what they are before they play, and those that push."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from mist import __version__
from mist.errors import MistError, PeerClosed
from mist.formats import dtsc_session as d
from mist.formats.tracks import VIDEO
from mist.net.tls_relay import TLS_OPTIONS, accept_tls
from mist.outputs.base import Choice, choose_tracks, own_pace
from mist.outputs.base.film_player import KIND as FILM
from mist.outputs.base.film_player import ResumedFilm
from mist.outputs.base.on_demand import begin
from mist.outputs.base.refusal_text import refusal_text
from mist.outputs.base.resumed import unpack_saved
from mist.outputs.base.session_connection import SessionConnection
from mist.outputs.dtsc.players import FilePlayer, LivePlayer, Player, resume_film, resume_play
from mist.stream.capability import Capability, listener_options
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.reader import StreamReader
from mist.stream.services import ConnectionRecord, OutputServices

DEFAULT_PORT: Final = 4200
MAX_UNSENT_BYTES: Final = 64 * 1024
SALT_BYTES: Final = 16

CAPABILITY: Final = Capability(
    name="DTSC",
    friendly="DTSC between servers",
    desc=(
        "Plays streams in MistServer's own format to other servers, and takes those that they push. With a certificate "
        "and its key, over TLS."
    ),
    codecs=((("+*",),),),
    push_urls=("dtsc://*", "dtscs://*", "/*.dtsc"),
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
        **TLS_OPTIONS,
    },
    default_port=DEFAULT_PORT,
)


class DtscConnection(SessionConnection[d.ListenerSession]):
    """One accepted connection, until a pusher is handed over or a player ends."""

    connector = "DTSC"
    max_unsent_bytes = MAX_UNSENT_BYTES

    def __init__(
        self,
        services: OutputServices,
        options: Mapping[str, Any],
        sock: socket.socket,
        peer: str,
        seed: str = "",
        record: ConnectionRecord | None = None,
    ) -> None:
        self._relay = accept_tls(services.loop, sock, options, peer) if record is None else None
        if self._relay is not None:
            sock = self._relay.inner
        fresh = not seed
        seed = seed or json.dumps([secrets.token_hex(SALT_BYTES), f"mist/{__version__}"])
        salt, version = json.loads(seed)
        session = d.ListenerSession(salt, version, time.monotonic())
        super().__init__(services, sock, peer, session, seed, record)
        self._sync = str(options.get("syncmode") or "0") == "1"
        self._player: Player | None = None
        if fresh:
            services.loop.call_soon(self._guarded_flush)

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, d.PushRequested):
                self._wire.pause_reading()
                self._start(self._push(event))
            elif isinstance(event, d.PlayRequested):
                self._start(self._play(event))
            elif isinstance(event, d.PeerFailed):
                raise PeerClosed(f"the peer says: {event.text}")
        self._flush()

    def _guarded_flush(self) -> None:
        try:
            if not self._closed:
                self._flush()
        except (MistError, OSError) as error:
            self._fail(error)

    # -- pushing

    async def _push(self, request: d.PushRequested) -> None:
        try:
            await self._hand_over(request.stream, request.password, self._url(request.stream))
        except (MistError, TimeoutError) as error:
            self._refuse(error, "Pushing failed", f"push of {request.stream}")
            return
        self._close("handed over")

    def _url(self, stream: str) -> str:
        host, port = self._socket.getsockname()[:2] if self._relay is None else ("", 0)
        return f"dtsc://{host}:{port}/{stream}" if port else f"dtsc://{stream}"

    def _refuse(self, error: BaseException, otherwise: str, what: str) -> None:
        """Say why, and end the connection soon."""
        self._services.log.info("DTSC %s by %s refused: %s", what, self._peer, str(error) or otherwise)
        self._session.send_refused(refusal_text(error, otherwise), time.monotonic())
        self._refused()

    # -- playing

    async def _play(self, request: d.PlayRequested) -> None:
        reader: StreamReader | None = None
        try:
            parameters = parse_parameters(request.parameters)
            url = self._url(request.stream)
            reader = await self._open_stream(request.stream, parameters, url)
            choice = await choose_tracks(self._services, reader, parameters, CAPABILITY, "")
            if reader.live:
                self._join(choice, parameters, request.parameters)
            else:
                await self._send_file(choice, parameters, request.parameters)
        except MistError as error:
            if reader is not None:
                self._services.close_stream(reader)
            self._refuse(error, "Stream not available", f"player of {request.stream}")
        except BaseException:
            if reader is not None and self._player is None:
                self._services.close_stream(reader)
            raise

    def _join(self, choice: Choice, parameters: PlaybackParameters, asked: Mapping[str, str]) -> None:
        """Give the socket to the fan-out. Raises MistError; the socket is still ours then."""
        services, reader = self._services, choice.reader
        sync = asked.get("sync", "1" if self._sync else "0") not in ("0", "")
        exact = asked.get(d.EXACT) == "1"
        pace = player_pace(parameters, choice)
        self._session.send_play_start(sync, time.monotonic())
        player = LivePlayer(services, self._session, self._record, reader, choice.indexes, self._peer, exact)
        fd, head = self._let_go(reader, parameters)
        player.fd = fd
        selectors = ",".join(f"{kind}={text}" for kind, text in sorted(parameters.selectors.items()))
        key = f"DTSC{'x' if exact else ''}{'s' if sync else ''}?{selectors}"
        player.saved = {
            "kind": "play",
            "stream": reader.name,
            "key": key,
            "indexes": choice.indexes,
            "asked": dict(asked),
            "exact": exact,
        }
        player.subscription = services.fanout.join(
            reader,
            choice.indexes,
            key,
            player.make_muxer,
            fd,
            head,
            by_time=sync,
            reselect=choice.reselect,
            record=self._record,
            state=player.state(),
            on_close=player.closed,
            on_readable=player.readable,
            **pace,
        )
        self._given_to(player)

    async def _send_file(self, choice: Choice, parameters: PlaybackParameters, asked: Mapping[str, str]) -> None:
        """Send an on-demand stream. Raises MistError; the socket is still ours then."""
        services, reader = self._services, choice.reader
        media = services.on_demand(reader)
        beginning = await begin(media, choice.indexes, parameters, time.time_ns() // 1000)
        player = FilePlayer(services, self._session, media, choice.indexes, beginning, asked)
        self._session.send_play_start(True, time.monotonic())
        fd, head = self._let_go(reader, parameters)
        self._given_to(player)

        def closed() -> None:
            self._record.close()
            services.close_stream(reader)

        player.start(services, fd, head, self._record, closed, chunked=False, saver=player.state)

    def _given_to(self, player: Player) -> None:
        """Take note that somebody else has the socket now."""
        self._player = player
        self._given_away()
        player.started()

    # -- the end

    def _fail(self, error: Exception) -> None:
        """End the connection, with what it can still be told."""
        if not self._closed:
            try:
                self._wire.write(self._session.take_output())
                self._wire.flush()
            except OSError as problem:
                self._services.log.debug("the peer did not hear why: %s", problem)
        super()._fail(error)

    def close(self, reason: str = "CLEAN_SIGNAL") -> None:
        """End the connection."""
        if self._player is not None:
            self._player.close(reason)
        else:
            self._close(reason)
        if self._relay is not None:
            self._relay.close()


def player_pace(parameters: PlaybackParameters, choice: Choice) -> dict[str, Any]:
    """Return how a player is sent the stream: from the middle of the buffer unless it says where, and as fast as it reads."""
    pace = own_pace(parameters, choice)
    if not parameters.rate_given:
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

    def resume(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str, record: Any
    ) -> DtscConnection | LivePlayer | ResumedFilm:
        """Go on with a connection of another process. Raises MistError, OSError."""
        saved, rest = unpack_saved(record.progress()[3])
        if saved["kind"] == "play":
            return resume_play(services, CAPABILITY, sock, peer, record, saved, rest)
        if saved["kind"] == FILM:
            return resume_film(services, sock, record, saved, rest)
        connection = DtscConnection(services, options, sock, peer, saved["seed"], record)
        connection.resume(saved, rest)
        return connection


OUTPUT: Final = DtscOutput()
