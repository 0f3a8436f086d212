"""The server's side of an RTMP connection, without its socket.

One session serves one peer that publishes or plays one stream. It can be exported at any moment and restored in another
process, with everything that was received and not yet handled.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from mist.core.rtmp_chunks import PLAY_CHUNK_SIZE, ChunkReader, Message
from mist.errors import ConnectTimeout, LocalProtocolError, RemoteProtocolError
from mist.formats import amf
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.handshake import Entropy, ServerHandshake

CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
QUIET_MEMORY_BYTES: Final = 4 << 20  # of incomplete messages, for a peer that may not publish (yet)
PUBLISH_MEMORY_BYTES: Final = 48 << 20
MAX_BACKLOG: Final = 100_000
_EXPORT_MAGIC: Final = b"mRS1"


class State(StrEnum):
    """Where a connection is."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CONNECTED = "connected"
    PUBLISH_REQUESTED = "publish requested"
    PUBLISHING = "publishing"
    PLAY_REQUESTED = "play requested"
    PLAYING = "playing"
    ENDED = "ended"


# What may happen in which state, and what state it leads to. A stream that ended may be followed by another one.
_TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.HANDSHAKE, "handshake done"): State.OPEN,
    (State.OPEN, "connect"): State.CONNECTED,
    (State.CONNECTED, "publish"): State.PUBLISH_REQUESTED,
    (State.CONNECTED, "play"): State.PLAY_REQUESTED,
    (State.PUBLISH_REQUESTED, "accept"): State.PUBLISHING,
    (State.PUBLISH_REQUESTED, "refuse"): State.CONNECTED,
    (State.PLAY_REQUESTED, "accept"): State.PLAYING,
    (State.PLAY_REQUESTED, "refuse"): State.CONNECTED,
    (State.PUBLISHING, "end"): State.ENDED,
    (State.PLAYING, "end"): State.ENDED,
    (State.ENDED, "publish"): State.PUBLISH_REQUESTED,
    (State.ENDED, "play"): State.PLAY_REQUESTED,
}
_WAITING: Final = frozenset({State.PUBLISH_REQUESTED, State.PLAY_REQUESTED})


class ServerSession:
    """Bytes of a peer in, events out; replies to what needs no decision by itself."""

    def __init__(self, entropy: Entropy, now: float) -> None:
        """Begin with a new connection. entropy(n): n random bytes. now: monotonic seconds."""
        self.state = State.HANDSHAKE
        self.app = ""
        self._handshake: ServerHandshake | None = ServerHandshake(entropy)
        self._reader = ChunkReader(max_memory_bytes=QUIET_MEMORY_BYTES)
        self._send = m.MessageSender()
        self._receipt = m.MessageSender()
        self._head = b""
        self._receipts = m.Receipts()
        self._backlog: deque[Message] = deque()
        self._since = now
        self._amf3 = False
        self._transaction = 0.0
        self._stream_id = m.MEDIA_STREAM_ID
        self._recorded = False  # what is played is a recorded stream

    # -- bytes in

    def feed(self, data: bytes | memoryview, now: float) -> list[m.Event]:
        """Take bytes from the peer and return the events they complete, in wire order.

        data: any split, may be empty. now: monotonic seconds. While a publish or play request waits for its answer
        nothing after it is looked at: feed(b"", now) after the answer goes on.
        Raises RemoteProtocolError (the session is unusable afterwards).   Spec: RTMP 1.0.
        """
        acknowledgement = self._receipts.count(len(data), now)
        if self._handshake is not None:
            data = self._feed_handshake(bytes(data), now)
        if data:
            self._backlog.extend(self._reader.feed(data))
        if acknowledgement is not None and self.state is not State.HANDSHAKE:
            self._receipt.control(m.ACKNOWLEDGEMENT, acknowledgement)
        if len(self._backlog) > MAX_BACKLOG:
            raise RemoteProtocolError(f"{len(self._backlog)} messages before an answer")
        events: list[m.Event] = []
        while self._backlog and self.state not in _WAITING:
            self._handle(self._backlog.popleft(), now, events)
        return events

    def _feed_handshake(self, data: bytes, now: float) -> bytes:
        assert self._handshake is not None
        rest = self._handshake.feed(data)
        self._head += self._handshake.take_output()
        if self._handshake.done:
            self._handshake = None
            self._advance("handshake done", now)
        return rest

    def _advance(self, what: str, now: float) -> None:
        target = _TRANSITIONS.get((self.state, what))
        if target is None:
            raise RemoteProtocolError(f"{what} while {self.state}", spec="RTMP 1.0 section 7.2")
        self.state = target
        self._since = now

    def _handle(self, message: Message, now: float, events: list[m.Event]) -> None:
        kind = message.type_id
        if kind in (m.AUDIO, m.VIDEO):
            if self.state is State.PUBLISHING:
                events.append(m.Media(kind, message.time_ms, message.payload))
        elif kind in (m.COMMAND_AMF0, m.COMMAND_AMF3):
            self._handle_command(message, now, events)
        elif kind == m.AGGREGATE:
            if self.state is State.PUBLISHING:
                for one in m.split_aggregate(message):
                    if one.type_id == m.DATA_AMF0:
                        self._handle_data(one, events)
                    else:
                        events.append(one)
        elif kind in (m.DATA_AMF0, m.DATA_AMF3):
            if self.state is State.PUBLISHING:
                self._handle_data(message, events)
        elif kind == m.WINDOW_ACKNOWLEDGEMENT_SIZE:
            self._receipts.set_window(message.payload)
        elif kind == m.USER_CONTROL:
            self._handle_user_control(message.payload, events)
        # Chunk size and abort are the reader's; bandwidth and acknowledgements tell us nothing that TCP does not.

    def _handle_user_control(self, payload: bytes, events: list[m.Event]) -> None:
        kind = int.from_bytes(payload[:2], "big")
        if len(payload) >= 10 and kind == m.SET_BUFFER_LENGTH:
            events.append(m.BufferLengthSet(int.from_bytes(payload[6:10], "big")))
        elif len(payload) >= 6 and kind == m.PING_REQUEST:
            self._send.control(m.USER_CONTROL, m.user_control(m.PING_RESPONSE, int.from_bytes(payload[2:6], "big")))

    def _handle_data(self, message: Message | m.Media, events: list[m.Event]) -> None:
        try:
            values = m.parse_values(message)
        except RemoteProtocolError:
            return  # the chunks around it are whole, and the media can do without it
        if values and values[0] == m.SET_DATA_FRAME:
            del values[0]
        if values and isinstance(values[0], str):
            events.append(m.Data(m.text(values[0]), tuple(values[1:]), message.time_ms))

    # -- commands

    def _handle_command(self, message: Message, now: float, events: list[m.Event]) -> None:
        values = m.parse_values(message)
        if not values or not isinstance(values[0], str):
            raise RemoteProtocolError("command without a name", spec="RTMP 1.0 section 7.1.1")
        name = values[0]
        self._amf3 = message.type_id == m.COMMAND_AMF3
        self._transaction = m.number(values[1]) if len(values) > 1 else 0.0
        if self.state is State.OPEN and name != "connect":
            raise RemoteProtocolError(f"{m.text(name)!r} before connect", spec="RTMP 1.0 section 7.2.1")
        handler = _COMMANDS.get(name)
        if handler is not None:
            handler(self, name, values[2:], message, now, events)
        elif name not in ("_result", "_error", "onStatus"):
            self._reply("_error", None, _status("error", "NetConnection.Call.Failed", f"No such command: {name[:64]}"))

    def _reply(self, kind: str, *values: Any) -> None:
        """Answer the command in hand; transaction 0 wants no answer."""
        if self._transaction or kind == "_error":
            self._send.command(kind, self._transaction, *values, amf3=self._amf3)

    def _status(self, code: str, description: str, level: str = "status") -> None:
        info = _status(level, code, description)
        self._send.command("onStatus", 0.0, None, info, stream_id=self._stream_id, amf3=self._amf3)

    def _on_connect(self, _name: str, values: list[Any], _message: Message, now: float, events: list[m.Event]) -> None:
        self._advance("connect", now)
        asked: dict[str, Any] = values[0] if values and isinstance(values[0], dict) else {}
        self.app = m.text(asked.get("app"))
        self._send.control(m.WINDOW_ACKNOWLEDGEMENT_SIZE, m.WINDOW_BYTES.to_bytes(4, "big"))
        self._send.control(m.SET_PEER_BANDWIDTH, m.WINDOW_BYTES.to_bytes(4, "big") + b"\x02")
        self._send.writer.write_chunk_size(PLAY_CHUNK_SIZE)
        self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_BEGIN, 0))
        properties: dict[str, Any] = {"fmsVer": "FMS/3,5,5,2004", "capabilities": 31, "mode": 1}
        info = _status("status", "NetConnection.Connect.Success", "Connection succeeded.")
        info["objectEncoding"] = 3 if m.number(asked.get("objectEncoding")) == 3 else 0
        info["clientid"] = 1337
        info.update(_enhanced_reply(asked))
        self._reply("_result", properties, info)
        events.append(
            m.Connected(
                self.app,
                m.text(asked.get("tcUrl")),
                m.text(asked.get("flashVer")),
                m.received_fourccs(asked),
                bool(int(m.number(asked.get("capsEx"))) & 2),
            )
        )

    def _on_create_stream(self, *_arguments: Any) -> None:
        self._reply("_result", None, m.MEDIA_STREAM_ID)

    def _on_publish(self, _name: str, values: list[Any], message: Message, now: float, events: list[m.Event]) -> None:
        self._advance("publish", now)
        self._stream_id = message.message_stream or m.MEDIA_STREAM_ID
        name = m.text(values[1]) if len(values) > 1 else ""
        kind = m.text(values[2]) if len(values) > 2 else ""
        events.append(m.PublishRequested(name, kind or "live"))

    def _on_play(self, _name: str, values: list[Any], message: Message, now: float, events: list[m.Event]) -> None:
        if self.state is State.PLAYING:
            self._advance("end", now)
            events.append(m.StreamEnded("play"))
        self._advance("play", now)
        self._stream_id = message.message_stream or m.MEDIA_STREAM_ID
        start, duration, reset = ((values[2:5]) + [None] * 3)[:3]
        events.append(
            m.PlayRequested(
                m.text(values[1]) if len(values) > 1 else "",
                m.number(start, -2),
                m.number(duration, -1),
                bool(reset) if isinstance(reset, bool) else m.number(reset, 1.0) != 0,
            )
        )

    def _on_play2(self, name: str, values: list[Any], message: Message, now: float, events: list[m.Event]) -> None:
        asked = values[1] if len(values) > 1 and isinstance(values[1], dict) else {}
        names = [None, asked.get("streamName"), asked.get("start"), asked.get("len")]
        self._on_play(name, names, message, now, events)

    def _on_release(self, *_arguments: Any) -> None:
        self._reply("_result", None, amf.UNDEFINED)

    def _on_fc_publish(self, _name: str, values: list[Any], *_arguments: Any) -> None:
        self._reply("_result", None, amf.UNDEFINED)
        info = _status("status", "NetStream.Publish.Start", m.text(values[1]) if len(values) > 1 else "")
        self._send.command("onFCPublish", 0.0, None, info, amf3=self._amf3)

    def _on_fc_subscribe(self, _name: str, values: list[Any], *_arguments: Any) -> None:
        self._reply("_result", None, amf.UNDEFINED)
        info = _status("status", "NetStream.Play.Start", m.text(values[1]) if len(values) > 1 else "")
        self._send.command("onFCSubscribe", 0.0, None, info, amf3=self._amf3)

    def _on_length(self, *_arguments: Any) -> None:
        self._reply("_result", None, 0.0)

    def _on_bandwidth(self, *_arguments: Any) -> None:
        self._reply("_result", None, amf.UNDEFINED)

    def _on_end(self, name: str, _values: list[Any], _message: Message, now: float, events: list[m.Event]) -> None:
        if name == "FCUnpublish":
            self._send.command("onFCUnpublish", 0.0, None, _status("status", "NetStream.Unpublish.Success", ""))
        if self.state not in (State.PUBLISHING, State.PLAYING):
            return  # closing what was never opened, or a second time
        if self.state is State.PUBLISHING:
            self._status("NetStream.Unpublish.Success", "Stream is now unpublished.")
        self._advance("end", now)
        events.append(m.StreamEnded(name))

    def _on_pause(self, _name: str, values: list[Any], _message: Message, _now: float, events: list[m.Event]) -> None:
        paused = bool(values[1]) if len(values) > 1 else True
        events.append(m.PauseRequested(paused, m.number(values[2]) if len(values) > 2 else 0.0))
        code = "NetStream.Pause.Notify" if paused else "NetStream.Unpause.Notify"
        self._status(code, "Paused." if paused else "Going on.")

    def _on_seek(self, _name: str, values: list[Any], _message: Message, _now: float, events: list[m.Event]) -> None:
        time_ms = m.number(values[1]) if len(values) > 1 else 0.0
        if self._recorded and self.state is State.PLAYING:
            events.append(m.SeekRequested(time_ms))
        else:
            self._status("NetStream.Seek.Failed", "A live stream has no other position.", "error")

    def _on_nothing(self, *_arguments: Any) -> None:
        self._reply("_result", None, amf.UNDEFINED)

    # -- answers

    def send_publish_start(self, name: str, now: float) -> None:
        """Accept the publish request."""
        self._answer("accept", State.PUBLISHING, now)
        self._reader.set_limits(PUBLISH_MEMORY_BYTES)
        self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_BEGIN, self._stream_id))
        self._status("NetStream.Publish.Start", f"{name} is now published.")

    def send_publish_refused(self, code: str, description: str, now: float) -> None:
        """Refuse the publish request. code: NetStream.Publish.BadName, NetStream.Publish.Rejected …"""
        self._answer("refuse", State.CONNECTED, now)
        self._status(code, description, "error")

    def send_play_start(self, name: str, reset: bool, now: float, *, recorded: bool = False) -> None:
        """Accept the play request: everything that comes before the media. recorded: the stream has an end, and other positions."""
        self._answer("accept", State.PLAYING, now)
        self._recorded = recorded
        if reset:
            self._status("NetStream.Play.Reset", f"Playing and resetting {name}.")
        self._begin(name)

    def _begin(self, name: str) -> None:
        if self._recorded:
            self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_IS_RECORDED, self._stream_id))
        self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_BEGIN, self._stream_id))
        self._status("NetStream.Play.Start", f"Started playing {name}.")
        self._send.data("|RtmpSampleAccess", True, True, stream_id=self._stream_id)

    def send_seek_start(self, name: str, time_ms: int) -> None:
        """Tell a player that what follows is from another position on: everything that comes before the media."""
        self._status("NetStream.Seek.Notify", f"Seeking {time_ms} ms in {name}.")
        self._begin(name)

    def send_seek_failed(self, description: str) -> None:
        """Tell a player that it stays where it is."""
        self._status("NetStream.Seek.Failed", description, "error")

    def send_play_complete(self, name: str, duration_us: int, sent_bytes: int) -> None:
        """Tell a player that a recorded stream has come to its end; it may seek back."""
        info = {**_status("status", "NetStream.Play.Complete", ""), "duration": duration_us / 1e6, "bytes": sent_bytes}
        self._send.data("onPlayStatus", info, stream_id=self._stream_id)
        self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_EOF, self._stream_id))
        self._status("NetStream.Play.Stop", f"Stopped playing {name}.")

    def send_play_refused(self, code: str, description: str, now: float) -> None:
        """Refuse the play request. code: NetStream.Play.StreamNotFound, NetStream.Play.Failed …"""
        self._answer("refuse", State.CONNECTED, now)
        self._status(code, description, "error")

    def send_play_stop(self, name: str) -> None:
        """Tell a player that the stream is over."""
        self._send.control(m.USER_CONTROL, m.user_control(m.STREAM_EOF, self._stream_id))
        self._status("NetStream.Play.Stop", f"Stopped playing {name}.")
        self._status("NetStream.Play.UnpublishNotify", f"{name} is now unpublished.")

    def send_unpublished(self, description: str) -> None:
        """Tell a publisher that its stream was ended from this side."""
        self._status("NetStream.Publish.Rejected", description, "error")

    def _answer(self, what: str, wanted: State, now: float) -> None:
        if _TRANSITIONS.get((self.state, what)) is not wanted:
            raise LocalProtocolError(f"nothing to {what} while {self.state}")
        self._advance(what, now)

    def take_output(self) -> bytes:
        """Return everything queued, and forget it."""
        return self.take_replies() + self.take_receipts()

    def take_replies(self) -> bytes:
        """Return what is queued but receipts: the same for the same bytes of the peer, whenever and in whatever pieces they come."""
        head, self._head = self._head, b""
        return head + self._send.writer.take_output()

    def take_receipts(self) -> bytes:
        """Return the acknowledgements that are due, and forget them."""
        return self._receipt.writer.take_output()

    # -- time

    def deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called, monotonic seconds, or None."""
        if self.state in (State.HANDSHAKE, State.OPEN):
            return self._since + CONNECT_SECONDS
        if self.state in (State.CONNECTED, State.ENDED):
            return self._since + IDLE_SECONDS
        return None

    def handle_timeout(self, now: float) -> None:
        """Raise ConnectTimeout when a peer takes too long to say what it wants."""
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            raise ConnectTimeout(f"RTMP peer does nothing while {self.state}", reason="CLEAN_INACTIVE")

    # -- another process

    @property
    def memory_bytes(self) -> int:
        """Memory held for incomplete messages, which `export_state` copies."""
        return self._reader.memory_bytes

    def export_state(self) -> bytes:
        """Return the whole session, for `restore` in another process. Call it between events, after `take_output`."""
        if self._handshake is not None:
            raise LocalProtocolError("a session cannot be exported during its handshake")
        fields = {
            "state": str(self.state),
            "app": self.app,
            "amf3": self._amf3,
            "transaction": self._transaction,
            "stream_id": self._stream_id,
            "recorded": self._recorded,
            "chunk_size": self._send.writer.chunk_size,
            "window": self._receipts.window_bytes,
            "received": self._receipts.received,
        }
        parts = [json.dumps(fields).encode(), self._reader.export_state()]
        for message in self._backlog:
            head = struct.pack("<IBIq", message.chunk_stream, message.type_id, message.message_stream, message.time_ms)
            parts.append(head + message.payload)
        return _EXPORT_MAGIC + b"".join(struct.pack("<I", len(part)) + part for part in parts)

    @classmethod
    def restore(cls, state: bytes, now: float) -> ServerSession:
        """Return the session that `export_state` described. Raises LocalProtocolError."""
        parts = _split_parts(state)
        session = cls(bytes, now)
        session._handshake = None
        try:
            fields = json.loads(parts[0])
            session.state = State(fields["state"])
            session.app = fields["app"]
            session._amf3 = fields["amf3"]
            session._transaction = fields["transaction"]
            session._stream_id = fields["stream_id"]
            session._recorded = bool(fields.get("recorded"))
            session._receipts = m.Receipts(fields["window"], fields["received"])
            session._send.writer.write_chunk_size(fields["chunk_size"])
            session._send.writer.take_output()
            if session.state is State.PUBLISHING:
                session._reader.set_limits(PUBLISH_MEMORY_BYTES)
            session._reader.restore(parts[1])
            size = struct.calcsize("<IBIq")
            for part in parts[2:]:
                chunk_stream, type_id, message_stream, time_ms = struct.unpack_from("<IBIq", part)
                session._backlog.append(Message(chunk_stream, type_id, message_stream, time_ms, part[size:]))
        except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
            raise LocalProtocolError(f"damaged session state: {error}") from error
        return session


def _split_parts(state: bytes) -> list[bytes]:
    if state[:4] != _EXPORT_MAGIC:
        raise LocalProtocolError("not a session state of this version")
    parts = []
    at = 4
    while at < len(state):
        if at + 4 > len(state):
            raise LocalProtocolError("damaged session state")
        (size,) = struct.unpack_from("<I", state, at)
        parts.append(state[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(state) or len(parts) < 2:
        raise LocalProtocolError("damaged session state")
    return parts


def _status(level: str, code: str, description: str) -> dict[str, Any]:
    return {"level": level, "code": code, "description": description}


def _enhanced_reply(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the E-RTMP fields of the connect reply: only those that the peer sent itself."""
    ours: dict[str, Any] = {
        "capsEx": m.CAPS_EX,
        "fourCcList": list(m.VIDEO_FOURCCS + m.AUDIO_FOURCCS),
        "videoFourCcInfoMap": dict.fromkeys(m.VIDEO_FOURCCS, m.FOURCC_CAN_ALL),
        "audioFourCcInfoMap": dict.fromkeys(m.AUDIO_FOURCCS, m.FOURCC_CAN_ALL),
    }
    return {name: value for name, value in ours.items() if name in asked}


_Handler = Callable[[ServerSession, str, list[Any], Message, float, list[m.Event]], None]

_COMMANDS: Final[dict[str, _Handler]] = {
    "connect": ServerSession._on_connect,
    "createStream": ServerSession._on_create_stream,
    "releaseStream": ServerSession._on_release,
    "FCPublish": ServerSession._on_fc_publish,
    "FCSubscribe": ServerSession._on_fc_subscribe,
    "publish": ServerSession._on_publish,
    "play": ServerSession._on_play,
    "play2": ServerSession._on_play2,
    "getStreamLength": ServerSession._on_length,
    "getMovLen": ServerSession._on_length,
    "checkBandwidth": ServerSession._on_bandwidth,
    "_checkbw": ServerSession._on_bandwidth,
    "xsbwtest": ServerSession._on_bandwidth,
    "ping": ServerSession._on_nothing,
    "deleteStream": ServerSession._on_end,
    "closeStream": ServerSession._on_end,
    "FCUnpublish": ServerSession._on_end,
    "pause": ServerSession._on_pause,
    "pauseRaw": ServerSession._on_pause,
    "seek": ServerSession._on_seek,
    "receiveAudio": ServerSession._on_nothing,
    "receiveVideo": ServerSession._on_nothing,
    "setDataFrame": ServerSession._on_nothing,
}

__all__ = ["ServerSession", "State"]
