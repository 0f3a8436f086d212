"""DTSC connections without their sockets: the listener's end, and the end that receives media.

The listener greets and hears what the peer wants. A player gets media from the fan-out, and this session goes on hearing its
commands. A pusher is handed to the input of its stream with everything that was received and not yet looked at; there, and where
we pull, a `ReceivingSession` takes header and media.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from mist.core.dtsc import MAX_COMMAND_BYTES, packet_bytes
from mist.core.dtsc_objects import parse_object, serialize_object
from mist.errors import ConnectTimeout, LimitExceededError, LocalProtocolError, RemoteProtocolError
from mist.formats.dtsc import DtscDemuxer, number, text
from mist.formats.tracks import TrackInfo

HEAD_BYTES: Final = 8
FIRST_WORD_SECONDS: Final = 10.0
IDLE_PING_SECONDS: Final = 1.0
MAX_NETWORK_HEADER_BYTES: Final = 8 << 20
MAX_NETWORK_PACKET_BYTES: Final = 33 << 20
MAX_TEXT_CHARACTERS: Final = 500
MAX_PARAMETERS: Final = 64
MAX_PARAMETER_CHARACTERS: Final = 4096
KEY_DURATION_TOLERANCE: Final = 1.2
PACK_METHOD: Final = 2
EXACT: Final = "exact"  # parameter of `play` with which one mist asks another for the microseconds of times
_EXPORT_MAGIC: Final = b"mDS1"
_OWN_MEMBERS: Final = frozenset({"cmd", "stream", "version", "password", "salt", "pack_method"})


@dataclass(frozen=True, slots=True)
class PlayRequested:
    """A peer wants a stream. parameters: every other member of the command, as text."""

    stream: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PushRequested:
    """A peer wants to publish. Nothing after it was looked at."""

    stream: str
    password: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeyDurationAsked:
    """A player has seen a keyframe interval of this length and wonders. track: id on the wire."""

    track: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The peer says that all is well."""

    text: str


@dataclass(frozen=True, slots=True)
class PeerFailed:
    """The peer says why it ends the connection."""

    text: str


@dataclass(frozen=True, slots=True)
class ResetAsked:
    """A player wants its tracks chosen again; from the sender of media: the next header replaces all tracks."""


@dataclass(frozen=True, slots=True)
class SyncChanged:
    """Packets from here on are in the order of their times, or not."""

    sync: bool


@dataclass(frozen=True, slots=True)
class Greeted:
    """The listener's greeting."""

    version: str


Event: TypeAlias = (
    PlayRequested | PushRequested | KeyDurationAsked | Acknowledged | PeerFailed | ResetAsked | SyncChanged | Greeted
)


def command_bytes(command: str, **members: str | int) -> bytes:
    """Return a command packet; members in ascending order of their names."""
    return packet_bytes(b"DTCM", serialize_object(dict(sorted({**members, "cmd": command}.items()))))


def _shown(members: Mapping[str, Any], name: str) -> str:
    return text(members, name)[:MAX_TEXT_CHARACTERS]


def _parameters(members: Mapping[str, Any]) -> dict[str, str]:
    """Return the members that are playback parameters."""
    found = {name: text(members, name)[:MAX_PARAMETER_CHARACTERS] for name in members if name not in _OWN_MEMBERS}
    if len(found) > MAX_PARAMETERS:
        raise LimitExceededError(f"{len(found)} parameters; the limit is {MAX_PARAMETERS}", spec="DTSC")
    return found


class State(StrEnum):
    """Where a listener's connection is."""

    OPEN = "open"
    PLAY_REQUESTED = "play requested"
    PLAYING = "playing"
    PUSH_REQUESTED = "push requested"
    REFUSED = "refused"


_TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.OPEN, "play"): State.PLAY_REQUESTED,
    (State.OPEN, "push"): State.PUSH_REQUESTED,
    (State.PLAY_REQUESTED, "accept"): State.PLAYING,
    (State.PLAY_REQUESTED, "refuse"): State.REFUSED,
    (State.PLAYING, "refuse"): State.REFUSED,
    (State.PUSH_REQUESTED, "refuse"): State.REFUSED,
}


class ListenerSession:
    """The end that was connected to."""

    def __init__(self, salt: str, version: str, now: float) -> None:
        """Greet a new connection. salt: 32 hexadecimal digits by chance. version: what the peer is told. now: monotonic seconds."""
        self.state = State.OPEN
        self._since = now
        self._received = bytearray()
        self._out = bytearray(command_bytes("hi", pack_method=PACK_METHOD, salt=salt, version=version))

    def feed(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the peer and return the events they complete.

        After a request to push nothing is looked at any more: `export_state` has the rest. What a refused peer says is dropped.
        Raises RemoteProtocolError after queueing words for the peer.
        """
        if self.state is State.REFUSED:
            self._received.clear()
            return []
        self._received += data
        events: list[Event] = []
        at = 0
        while self.state is not State.PUSH_REQUESTED and len(self._received) - at >= HEAD_BYTES:
            size = self._command_size(at)
            if len(self._received) - at < size:
                break
            self._handle(bytes(self._received[at : at + size]), now, events)
            at += size
        del self._received[:at]
        return events

    def _command_size(self, at: int) -> int:
        """Return the size of the command that begins here. Raises RemoteProtocolError for anything else."""
        magic = bytes(self._received[at : at + 4])
        if magic != b"DTCM":
            if magic in (b"DTSC", b"DTP2", b"DTPD"):
                self.send_error("You are not pushing to this server")
                raise RemoteProtocolError("media before a request to push", spec="DTSC")
            raise RemoteProtocolError(f"{magic!r} where a packet must begin", spec="DTSC")
        size = HEAD_BYTES + int.from_bytes(self._received[at + 4 : at + 8], "big")
        if size > MAX_COMMAND_BYTES:
            raise LimitExceededError(f"a command of {size} bytes; the limit is {MAX_COMMAND_BYTES}", spec="DTSC")
        return size

    def _handle(self, packet: bytes, now: float, events: list[Event]) -> None:
        members = parse_object(packet, HEAD_BYTES)
        command = text(members, "cmd")
        if command in ("play", "push"):
            self._advance(command, now)
            stream = text(members, "stream")[:MAX_PARAMETER_CHARACTERS]
            if command == "play":
                events.append(PlayRequested(stream, _parameters(members)))
            else:
                events.append(PushRequested(stream, _shown(members, "password"), _parameters(members)))
        elif command == "ping":
            self.send_ok("Pong!")
        elif command == "check_key_duration":
            events.append(KeyDurationAsked(number(members, "id"), number(members, "duration")))
        elif command == "reset":
            events.append(ResetAsked())
        elif command == "ok":
            events.append(Acknowledged(_shown(members, "msg")))
        elif command == "error":
            events.append(PeerFailed(_shown(members, "msg")))
        # `hi` and `sync` tell a listener nothing that it needs; later commands are not ours to know.

    def _advance(self, what: str, now: float) -> None:
        target = _TRANSITIONS.get((self.state, what))
        if target is None:
            self.send_error(f"There is no {what} after that")
            raise RemoteProtocolError(f"{what} while {self.state}", spec="DTSC")
        self.state = target
        self._since = now

    # -- answers

    def send_play_start(self, sync: bool, now: float) -> None:
        """Accept the request to play. Header and media follow from elsewhere."""
        self._answer("accept", now)
        if sync:
            self._out += command_bytes("sync", sync=1)

    def send_refused(self, reason: str, now: float) -> None:
        """Refuse the request to play or push."""
        self._answer("refuse", now)
        self.send_error(reason)

    def _answer(self, what: str, now: float) -> None:
        if (self.state, what) not in _TRANSITIONS:
            raise LocalProtocolError(f"nothing to {what} while {self.state}")
        self._advance(what, now)

    def send_ok(self, message: str) -> None:
        self._out += command_bytes("ok", msg=message)

    def send_error(self, message: str) -> None:
        """Say why the connection ends."""
        self._out += command_bytes("error", msg=message)

    def send_ping(self) -> None:
        """Show that the connection lives."""
        self._out += command_bytes("ping")

    def send_wall_clock(self, unix_zero_ms: int) -> None:
        """Tell another mist that the unix time at media time 0 has changed: it keeps the tracks that a header does not name."""
        members = {"live": 1, "unixzero": unix_zero_ms, "tracks": {}}
        self._out += packet_bytes(b"DTSC", serialize_object(members))

    def take_output(self) -> bytes:
        """Return everything queued, and forget it."""
        output = bytes(self._out)
        self._out.clear()
        return output

    # -- time

    def deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called, monotonic seconds, or None."""
        return self._since + FIRST_WORD_SECONDS if self.state is State.OPEN else None

    def handle_timeout(self, now: float) -> None:
        """Raise ConnectTimeout when a peer takes too long to say what it wants."""
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            raise ConnectTimeout("the DTSC peer does not say what it wants", reason="CLEAN_INACTIVE")

    # -- another process

    def export_state(self) -> bytes:
        """Return what `ReceivingSession.restore` needs to go on with a pusher. Call it after `take_output`."""
        if self.state is not State.PUSH_REQUESTED:
            raise LocalProtocolError(f"no pusher to hand over while {self.state}")
        return _EXPORT_MAGIC + bytes(self._received)

    def export_playing(self) -> bytes:
        """Return what `resume_playing` needs to go on with a player. Call it after `take_output`."""
        return _EXPORT_MAGIC + bytes(self._received)

    @classmethod
    def resume_playing(cls, state: bytes, now: float) -> ListenerSession:
        """Return a session with a player that another process had. Raises LocalProtocolError."""
        if state[:4] != _EXPORT_MAGIC:
            raise LocalProtocolError("not a session state of this version")
        session = cls("", "", now)
        session._out.clear()
        session._received += state[4:]
        session.state = State.PLAYING
        return session


class ReceivingSession:
    """The end that receives header and media: of a stream that we pull, or of a pusher.

    Packets go from `demuxer` into its sink while `feed` runs; the events that `feed` returns are about everything else.
    """

    def __init__(self) -> None:
        self.demuxer = DtscDemuxer(False, MAX_NETWORK_PACKET_BYTES, MAX_NETWORK_HEADER_BYTES)
        self.demuxer.on_command = self._command
        self.demuxer.on_header = self._header
        self.on_header: Callable[[], None] = lambda: None
        self._acknowledges = False
        self._waiting = b""
        self._events: list[Event] = []
        self._out = bytearray()

    @classmethod
    def play(cls, stream: str, version: str, parameters: Mapping[str, str]) -> ReceivingSession:
        """Return a session that asks a server for a stream. parameters: `sync`, and those of playback."""
        session = cls()
        asked: dict[str, str | int] = {name: value for name, value in parameters.items() if name not in _OWN_MEMBERS}
        for name in ("sync", EXACT):
            if asked.get(name) in ("0", "1"):
                asked[name] = int(asked[name])
        session._out += command_bytes("play", **{**asked, "stream": stream, "version": version})
        return session

    @classmethod
    def restore(cls, state: bytes) -> ReceivingSession:
        """Return a session that goes on with a pusher; the first `feed` also handles what came before. Raises LocalProtocolError."""
        if state[:4] != _EXPORT_MAGIC:
            raise LocalProtocolError("not a session state of this version")
        session = cls()
        session._acknowledges = True
        session._waiting = state[4:]
        return session

    def export_state(self) -> tuple[dict[str, Any], bytes, bytes]:
        """Return the session, as JSON has it, and two strings of bytes, for `resume` in another process."""
        state, rest = self.demuxer.export_state()
        return {"acknowledges": self._acknowledges, "demuxer": state}, rest, self._waiting

    @classmethod
    def resume(cls, state: Mapping[str, Any], rest: bytes, waiting: bytes) -> ReceivingSession:
        """Return the session that `export_state` described. Raises LocalProtocolError."""
        session = cls()
        try:
            tracks = [TrackInfo.restore(fields) for fields in state["demuxer"]["tracks"]]
            session._acknowledges = bool(state["acknowledges"])
            session.demuxer.restore(state["demuxer"], tracks, rest)
        except (ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError(f"damaged session state: {error}") from error
        session._waiting = waiting
        return session

    @property
    def pulls(self) -> bool:
        """Whether we asked for the stream; a pusher is not asked anything."""
        return not self._acknowledges

    def feed(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Take bytes from the peer; header and media go where the demuxer's owner sends them.

        Returns the other events. Raises RemoteProtocolError (the session is unusable afterwards), and what the sink raises.
        """
        for piece in (self._waiting, data):
            if piece:
                self.demuxer.feed(piece)
        self._waiting = b""
        events, self._events = self._events, []
        return events

    def _header(self, _members: Mapping[str, Any]) -> None:
        if self._acknowledges:
            self.send_ok("Header received")
        self.on_header()

    def _command(self, members: Mapping[str, Any]) -> None:
        command = text(members, "cmd")
        if command == "ping":
            self.send_ok("Pong!")
        elif command == "sync":
            self._add(SyncChanged(bool(number(members, "sync"))))
        elif command == "reset":
            self._add(ResetAsked())
        elif command == "error":
            self._add(PeerFailed(_shown(members, "msg")))
        elif command == "ok":
            self._add(Acknowledged(_shown(members, "msg")))
        elif command == "hi":
            self._add(Greeted(_shown(members, "version")))

    def _add(self, event: Event) -> None:
        if len(self._events) >= MAX_COMMAND_BYTES:
            raise LimitExceededError(f"more than {MAX_COMMAND_BYTES} commands at once", spec="DTSC")
        self._events.append(event)

    def send_ok(self, message: str) -> None:
        self._out += command_bytes("ok", msg=message)

    def send_error(self, message: str) -> None:
        """Say why the connection ends."""
        self._out += command_bytes("error", msg=message)

    def send_check_key_duration(self, track_id: int, duration_ms: int) -> None:
        """Ask whether a keyframe interval of this length is right; the peer ends the connection if not."""
        self._out += command_bytes("check_key_duration", id=track_id, duration=duration_ms)

    def take_output(self) -> bytes:
        """Return everything queued, and forget it."""
        output = bytes(self._out)
        self._out.clear()
        return output


class PushingSession:
    """The end that publishes to a server. What is received are events; after `Acknowledged` a muxer sends header and media."""

    def __init__(self, stream: str, version: str, password: str, sync: bool) -> None:
        """Ask to publish. version: what the server is told. sync: packets will be in the order of their times."""
        members: dict[str, str | int] = {"stream": stream, "version": version}
        if password:
            members["password"] = password
        if sync:
            members["sync"] = 1
        self._receiving = ReceivingSession()
        self._out = bytearray(command_bytes("push", **members))

    def feed(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the server and return the events they complete. Raises RemoteProtocolError."""
        events = self._receiving.feed(data, now)
        self._out += self._receiving.take_output()
        return events

    def take_output(self) -> bytes:
        """Return everything queued, and forget it."""
        output = bytes(self._out)
        self._out.clear()
        return output

    def export_state(self) -> bytes:
        """Return the session, for `restore` in another process. Call it after `take_output`."""
        state, rest, waiting = self._receiving.export_state()
        return json.dumps({"receiving": state, "rest": len(rest)}).encode() + b"\n" + rest + waiting

    @classmethod
    def restore(cls, state: bytes) -> PushingSession:
        """Return the session that `export_state` described. Raises LocalProtocolError."""
        head, _, data = state.partition(b"\n")
        session = cls("", "", "", sync=False)
        session._out.clear()
        try:
            fields = json.loads(head)
            size = int(fields["rest"])
            session._receiving = ReceivingSession.resume(fields["receiving"], data[:size], data[size:])
        except (ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError(f"damaged session state: {error}") from error
        return session


def key_duration_fits(asked_ms: int, longest_ms: int) -> bool:
    """Tell whether a keyframe interval that a player saw is one of ours, or so long that it must have lost keyframes."""
    return asked_ms <= longest_ms * KEY_DURATION_TOLERANCE


__all__ = ["Event", "ListenerSession", "PushingSession", "ReceivingSession", "State", "key_duration_fits"]
