"""RTMP on its own port: plays streams, and hands publishers over to the input of their stream."""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

from mist.core.flv import TagMuxer
from mist.core.rtmp_chunks import RtmpPlayMuxer
from mist.errors import AccessDenied, Busy, MistError, NoSuitableTrack
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.server import ServerSession
from mist.formats.tracks import TrackInfo
from mist.net.tls_relay import TLS_OPTIONS, accept_tls
from mist.outputs.base import Choice, choose_tracks, own_pace, selection
from mist.outputs.base.beginning import settle_times
from mist.outputs.base.film_player import KIND as FILM
from mist.outputs.base.film_player import ResumedFilm
from mist.outputs.base.on_demand import Beginning, begin
from mist.outputs.base.refusal_text import refusal_text
from mist.outputs.base.resumed import pack_saved, resume_viewer, unpack_saved
from mist.outputs.base.rtmp_files import RtmpFilePlayer, asked_times
from mist.outputs.base.session_connection import SEED_BYTES, SessionConnection
from mist.stream.capability import Capability, listener_options
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.reader import StreamReader
from mist.stream.selectors import configured_sorting
from mist.stream.services import ConnectionRecord, OutputServices
from mist.stream.state import TrackState
from mist.stream.visits import Visit

DEFAULT_PORT: Final = 1935
MAX_UNSENT_BYTES: Final = 256 * 1024
PLAY_ONLY: Final = 1
PUBLISH_ONLY: Final = 2
MAX_PREFIX_CHARACTERS: Final = 5

_DATA: Final = ("JSON",)
_LEGACY_CODECS: Final = ((("H264",), ("AAC", "MP3"), _DATA),)
_ENHANCED_CODECS: Final = (
    (("H264", "HEVC", "AV1", "VP8", "VP9"), ("AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3"), _DATA),
)
_CODEC_OF_FOURCC: Final = {
    "avc1": "H264",
    "hvc1": "HEVC",
    "av01": "AV1",
    "vp08": "VP8",
    "vp09": "VP9",
    "mp4a": "AAC",
    ".mp3": "MP3",
    "Opus": "opus",
    "fLaC": "FLAC",
    "ac-3": "AC3",
    "ec-3": "EAC-3",
}

CAPABILITY: Final = Capability(
    name="RTMP",
    push_urls=("rtmp://*", "rtmps://*"),
    friendly="RTMP playback and publishing",
    desc=(
        "Plays over Adobe RTMP and enhanced RTMP, and lets encoders publish; with a certificate, over TLS. Players that "
        "do not announce enhanced RTMP get HEVC, AV1, VP9, Opus, FLAC and AC-3 only from streams that have nothing else."
    ),
    url_rel="/play/$",
    codecs=_ENHANCED_CODECS,
    methods=(
        {
            "handler": "rtmp",
            "type": "flash/10",
            "hrn": "RTMP",
            "priority": 7,
            "player_url": "/flashplayer.swf",
            "url_rel": "/play/$",
        },
    ),
    optional={
        **listener_options(DEFAULT_PORT),
        "acceptable": {
            "name": "Acceptable connections",
            "help": "Whether this port takes players, publishers or both",
            "type": "select",
            "select": [[0, "Both"], [PLAY_ONLY, "Only playback"], [PUBLISH_ONLY, "Only publishing"]],
            "default": 0,
            "option": "--acceptable",
            "short": "T",
        },
        "maxkbps": {
            "name": "Max. kbps",
            "help": "Publishers are read no faster than this, so that they are slowed down to it; 0 for no limit",
            "type": "uint",
            "unit": "kbps",
            "default": 0,
            "option": "--maxkbps",
            "short": "K",
        },
        **TLS_OPTIONS,
        "key": {**TLS_OPTIONS["key"], "short": "k"},  # the capital one is the bound's
    },
    default_port=DEFAULT_PORT,
)


def split_name(text: str) -> tuple[str, str]:
    """Return (stream name, query) of what a peer publishes or plays.

    "mp4:film" means film.mp4, as Flash clients write it. What follows a "/" is cut.
    """
    name, _, query = text.partition("?")
    name = name.strip("/").partition("/")[0]
    prefix, colon, rest = name.partition(":")
    if colon and rest and len(prefix) <= MAX_PREFIX_CHARACTERS:
        name = rest if rest.endswith(f".{prefix}") else f"{rest}.{prefix}"
    return name, query


def password_of(app: str) -> str:
    """Return the password that a publisher gave: the application's name in its URL."""
    return app.partition("?")[0].strip("/")


def enhanced_codecs(fourccs: Iterable[str]) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Return the codec matrix for a player that announced these FourCCs."""
    known = set(fourccs)
    if "*" in known:
        return _ENHANCED_CODECS
    codecs = {_CODEC_OF_FOURCC[fourcc] for fourcc in known if fourcc in _CODEC_OF_FOURCC} | {
        "H264",
        "AAC",
        "MP3",
        *_DATA,
    }
    return tuple(
        tuple(tuple(c for c in slot if c in codecs) for slot in combination) for combination in _ENHANCED_CODECS
    )


def played_capability(enhanced: Iterable[str], *, any_codec: bool) -> Capability:
    """Return what a player can be sent that announced these FourCCs. any_codec: what it said counts for nothing."""
    if any_codec:
        return CAPABILITY
    fourccs = frozenset(enhanced)
    return replace(CAPABILITY, codecs=enhanced_codecs(fourccs) if fourccs else _LEGACY_CODECS)


class RtmpConnection(SessionConnection[ServerSession]):
    """One accepted connection, until a publisher is handed over or a viewer ends."""

    connector = "RTMP"
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
        seed = seed or secrets.token_hex(SEED_BYTES)
        session = ServerSession(random.Random(seed).randbytes, time.monotonic())
        super().__init__(services, sock, peer, session, seed, record)
        self._acceptable = int(options.get("acceptable") or 0)
        self._max_kbps = int(options.get("maxkbps") or 0)
        self._connected = m.Connected("", "", "", frozenset(), False)
        self._viewer: _Viewer | None = None
        self._player: RtmpFilePlayer | None = None
        self._any_codec = False

    def _handle(self, data: bytes) -> None:
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, m.Connected):
                self._connected = event
            elif isinstance(event, m.PublishRequested):
                self._wire.pause_reading()
                self._start(self._publish(event))
            elif isinstance(event, m.PlayRequested):
                self._start(self._play(event))
        self._flush()

    # -- publishing

    async def _publish(self, request: m.PublishRequested) -> None:
        name, query = split_name(request.name)
        try:
            if self._acceptable == PLAY_ONLY:
                raise Busy("Publishing is switched off on this port")
            app = self._connected.app
            if self._visit is not None:
                name, query, app = await self._rewritten(self._visit, name, query, app)
            await self._hand_over(name, password_of(app), self._url(app, name, query), query=query, **self._limits())
        except (MistError, TimeoutError) as error:
            text = str(error) or "Publishing failed"
            self._services.log.info("RTMP publisher %s to %s refused: %s", self._peer, name, text)
            code = "NetStream.Publish.BadName" if isinstance(error, Busy) else "NetStream.Publish.Rejected"
            told = refusal_text(error, "Publishing failed")
            self._session.send_publish_refused(code, told, time.monotonic())
            self._refused()
            return
        self._close("handed over")

    async def _rewritten(self, visit: Visit, name: str, query: str, app: str) -> tuple[str, str, str]:
        """Return (name, query, application) that the handlers make of where somebody publishes. Raises AccessDenied."""
        url = self._url(app, name, query)
        replaced = (await visit.rewrite("RTMP_PUSH_REWRITE", [url, self._peer], url)).strip()
        if not replaced:
            raise AccessDenied("Publishing was refused")
        if replaced == url:
            return name, query, app
        front, _, last = replaced.partition("?")[0].rpartition("/")
        _, _, app = front.partition("://")[2].partition("/")
        return last, replaced.partition("?")[2], app

    def _limits(self) -> dict[str, str]:
        """Return what the input is told of the bounds of this port."""
        return {"maxkbps": str(self._max_kbps)} if self._max_kbps else {}

    def _url(self, app: str, name: str, query: str) -> str:
        front = self._connected.tc_url.partition("?")[0]
        host = front.partition("://")[2].partition("/")[0]
        scheme = "rtmp" if self._relay is None else "rtmps"
        return f"{scheme}://{host}/{app.strip('/')}/{name}{'?' if query else ''}{query}"

    # -- playing

    async def _play(self, request: m.PlayRequested) -> None:
        name, query = split_name(request.name)
        reader: StreamReader | None = None
        try:
            if self._acceptable == PUBLISH_ONLY:
                raise Busy("Playback is switched off on this port")
            parameters = parse_parameters(dict(parse_qsl(query, keep_blank_values=True)))
            url = self._url(self._connected.app, name, query)
            reader = await self._open_stream(name, parameters, url)
            choice = await self._choose(reader, parameters)
            if not reader.live:
                await self._send_file(choice, asked_times(parameters, request), request, query)
                return
            parameters = await settle_times(self._services, choice, parameters)
            self._viewer = _Viewer(self._services, self._session, self._record, reader, reader.name, self._peer)
            self._session.send_play_start(name, request.reset, time.monotonic())
            self._join(self._viewer, choice, parameters, query)
        except MistError as error:
            if reader is not None:
                self._services.close_stream(reader)
            self._viewer = None
            text = str(error) or "Stream not available"
            self._services.log.info("RTMP viewer %s of %s refused: %s", self._peer, name, text)
            code = (
                "NetStream.Play.Failed"
                if isinstance(error, NoSuitableTrack | Busy)
                else "NetStream.Play.StreamNotFound"
            )
            self._session.send_play_refused(code, refusal_text(error, "Stream not available"), time.monotonic())
            self._refused()
        except BaseException:
            if reader is not None and self._viewer is None and self._player is None:
                self._services.close_stream(reader)
            raise

    async def _choose(self, reader: StreamReader, parameters: PlaybackParameters) -> Choice:
        """Choose tracks in codecs that the player knows; in any codec when it did not say and there are no others."""
        agent = self._connected.flash_version
        enhanced = self._connected.enhanced
        capability = played_capability(enhanced, any_codec=False)
        try:
            choice = await choose_tracks(self._services, reader, parameters, capability, agent)
        except NoSuitableTrack:
            if enhanced:
                raise
            self._any_codec = True
            capability = played_capability(enhanced, any_codec=True)
            choice = await choose_tracks(self._services, reader, parameters, capability, agent)
        return choice if enhanced else _single_tracks(choice)

    def _join(self, viewer: _Viewer, choice: Choice, parameters: PlaybackParameters, query: str) -> None:
        """Give the socket to the fan-out. Raises MistError; the socket is still ours then."""
        # A player that understands no enhanced RTMP never gets a track that needs it, or has to live with it.
        selectors = ",".join(f"{kind}={text}" for kind, text in sorted(parameters.selectors.items()))
        fourccs = ",".join(sorted(self._connected.enhanced))
        key = f"RTMP?{selectors}&{fourccs}"
        viewer.saved = {
            "kind": "play",
            "stream": choice.reader.name,
            "key": key,
            "indexes": choice.indexes,
            "query": query,
            "enhanced": sorted(self._connected.enhanced),
            "agent": self._connected.flash_version,
            "any_codec": self._any_codec,
        }
        fd, head = self._let_go(choice.reader, parameters)
        viewer.fd = fd
        viewer.subscription = self._services.fanout.join(
            choice.reader,
            choice.indexes,
            key,
            make_muxer,
            fd,
            head,
            reselect=choice.reselect,
            record=self._record,
            state=viewer.state(),
            on_close=viewer.closed,
            on_readable=viewer.readable,
            **own_pace(parameters, choice),
        )
        self._given_away()
        viewer.handle(b"")

    async def _send_file(
        self, choice: Choice, parameters: PlaybackParameters, request: m.PlayRequested, query: str
    ) -> None:
        """Send an on-demand stream. Raises MistError; the socket is still ours then."""
        services, reader = self._services, choice.reader
        media = services.on_demand(reader)
        beginning = await begin(media, choice.indexes, parameters, time.time_ns() // 1000)
        player = RtmpFilePlayer(services, self._session, media, choice.indexes, beginning, parameters)
        self._session.send_play_start(reader.name, request.reset, time.monotonic(), recorded=True)
        fd, head = self._let_go(reader, parameters)
        player.saved = {"query": query}
        self._player = player
        self._given_away()

        def closed() -> None:
            self._record.close()
            services.close_stream(reader)

        player.start(services, fd, head, self._record, closed, chunked=False, saver=player.state)

    # -- the end

    def close(self, reason: str = "CLEAN_SIGNAL") -> None:
        """End the connection."""
        if self._player is not None:
            self._player.close(reason)
        elif self._viewer is not None and self._viewer.subscription is not None:
            self._viewer.subscription.close(reason)
        else:
            self._close(reason)
        if self._relay is not None:
            self._relay.close()


class _Viewer:
    """A playing connection: the fan-out sends, this reads what the player says."""

    def __init__(
        self,
        services: OutputServices,
        session: ServerSession,
        record: ConnectionRecord,
        reader: StreamReader | None,
        name: str,
        peer: str,
    ) -> None:
        """reader: given back at the end; None when somebody else does that."""
        self.fd = -1
        self.subscription: Any = None
        self.saved: dict[str, Any] = {}
        self._name = name
        self._services = services
        self._session = session
        self._record = record
        self._reader = reader
        self._peer = peer

    def readable(self) -> None:
        """Read what the player sent; called by the fan-out."""
        try:
            self.subscription.receive(self._received)
        except (MistError, OSError) as error:
            reason = getattr(error, "reason", "CLEAN_REMOTE_CLOSE")
            self._services.log.info("RTMP viewer %s of %s: %s (%s)", self._peer, self._name, error, reason)
            self.subscription.close(reason)

    def state(self) -> bytes:
        """Return what another process needs to hear the player."""
        return pack_saved(self.saved, self._session.export_state())

    def _received(self, data: bytes) -> bytes:
        self._record.add_bytes(0, len(data))
        self.handle(data)
        return self.state()

    def handle(self, data: bytes) -> None:
        """Take bytes from the player."""
        for event in self._session.feed(data, time.monotonic()):
            if isinstance(event, m.PauseRequested):
                self.subscription.pause(event.paused)
            elif isinstance(event, m.StreamEnded):
                self.subscription.close("CLEAN_REMOTE_CLOSE")
                break
        output = self._session.take_output()
        if output:
            self.subscription.send(output)

    def closed(self, reason: str) -> None:
        """Say goodbye when the stream is over, and count the connection out; the fan-out closes the socket."""
        if reason == "CLEAN_EOF":
            self._session.send_play_stop(self._name)
            try:
                os.write(self.fd, self._session.take_output())
            except OSError as error:
                self._services.log.debug("RTMP viewer %s did not hear the end: %s", self._peer, error)
        self._record.close()
        if self._reader is not None:
            self._services.close_stream(self._reader)

    def close(self, reason: str) -> None:
        """End the connection."""
        self.subscription.close(reason)


def make_muxer(tracks: list[TrackInfo]) -> TagMuxer:
    """Return the muxer of a group of viewers."""
    return RtmpPlayMuxer(tracks)


def _first_of_each(states: list[Any], indexes: list[int]) -> list[int]:
    """Return the first track of each type, for players that know no multitrack."""
    kinds = {state.index: state.info.type for state in states}
    seen: set[str] = set()
    return [i for i in indexes if i in kinds and not (kinds[i] in seen or seen.add(kinds[i]))]  # type: ignore[func-returns-value]


def _single_tracks(choice: Choice) -> Choice:
    """Return a choice cut to the first track of each type."""
    return Choice(
        choice.reader,
        _first_of_each(choice.reader.tracks(), choice.indexes),
        lambda states: _first_of_each(states, choice.reselect(states)),
    )


def _resume_play(
    services: OutputServices, sock: socket.socket, peer: str, record: Any, saved: dict[str, Any], state: bytes
) -> _Viewer:
    """Go on with a player of another process. Raises MistError, OSError."""
    session = ServerSession.restore(state, time.monotonic())
    viewer = _Viewer(services, session, record, None, str(saved["stream"]), peer)
    viewer.saved = saved
    viewer.fd = sock.fileno()
    capability = played_capability(saved["enhanced"], any_codec=saved["any_codec"])
    parameters = parse_parameters(dict(parse_qsl(saved["query"], keep_blank_values=True)))
    sorting = configured_sorting(services.config, capability.name)

    def reselect(reader: StreamReader, states: list[TrackState]) -> list[int]:
        indexes = selection(reader, parameters, capability, saved["agent"], sorting=sorting)(states)
        return indexes if saved["enhanced"] else _first_of_each(states, indexes)

    viewer.subscription, _ = resume_viewer(
        services,
        sock,
        record,
        saved,
        lambda _reader, tracks: make_muxer(tracks),
        reselect,
        on_close=viewer.closed,
        on_readable=viewer.readable,
    )
    return viewer


def _resume_film(
    services: OutputServices, sock: socket.socket, record: Any, saved: dict[str, Any], state: bytes
) -> ResumedFilm:
    """Go on with an on-demand stream that another process had begun to send. Raises MistError."""
    session = ServerSession.restore(state, time.monotonic())
    parameters = parse_parameters(dict(parse_qsl(saved["query"], keep_blank_values=True)))

    def make(media: OnDemandReader, beginning: Beginning) -> RtmpFilePlayer:
        player = RtmpFilePlayer(services, session, media, list(saved["indexes"]), beginning, parameters)
        player.saved = {"query": saved["query"]}
        return player

    return ResumedFilm(services, sock, record, saved, make)


class RtmpOutput:
    """The RTMP listener."""

    capability = CAPABILITY

    def connection(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str
    ) -> RtmpConnection:
        """Serve an accepted connection on the worker's loop."""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return RtmpConnection(services, options, sock, peer)

    def resume(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str, record: Any
    ) -> RtmpConnection | _Viewer | ResumedFilm:
        """Go on with a connection of another process. Raises MistError, OSError."""
        saved, rest = unpack_saved(record.progress()[3])
        if saved["kind"] == "play":
            return _resume_play(services, sock, peer, record, saved, rest)
        if saved["kind"] == FILM:
            return _resume_film(services, sock, record, saved, rest)
        connection = RtmpConnection(services, options, sock, peer, saved["seed"], record)
        connection.resume(saved, rest)
        return connection


OUTPUT: Final = RtmpOutput()
