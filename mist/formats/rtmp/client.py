"""The client's side of an RTMP connection, without its socket: publishes or plays one stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from mist.core.rtmp_chunks import ChunkReader, Message
from mist.errors import ConnectTimeout, LocalProtocolError, RemoteProtocolError
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.handshake import ClientHandshake, Entropy

START_SECONDS: Final = 20.0
CHUNK_SIZE: Final = 65_536  # that of the muxer of published media
_CONNECT: Final = 1.0
_CREATE_STREAM: Final = 4.0
_PUBLISH: Final = 5.0
_AUDIO_CHUNK_STREAM: Final = 4
_VIDEO_CHUNK_STREAM: Final = 6


class State(StrEnum):
    """Where a connection is."""

    HANDSHAKE = "handshake"
    CONNECTING = "connecting"
    CREATING = "creating a stream"
    STARTING = "starting"
    STARTED = "started"
    ENDED = "ended"


_TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.HANDSHAKE, "handshake done"): State.CONNECTING,
    (State.CONNECTING, "connected"): State.CREATING,
    (State.CREATING, "created"): State.STARTING,
    (State.STARTING, "started"): State.STARTED,
    (State.STARTED, "end"): State.ENDED,
}
_RECONNECT: Final = "NetConnection.Connect.ReconnectRequest"
_STARTS: Final = frozenset({"NetStream.Publish.Start", "NetStream.Play.Start"})
_ENDS: Final = frozenset(
    {"NetStream.Play.UnpublishNotify", "NetStream.Play.Stop", "NetStream.Play.Complete", "NetStream.Unpublish.Success"}
)


class ClientSession:
    """Bytes of a server in, events out.

    app, stream: as in rtmp://HOST/APP/STREAM. publish: else plays. tc_url: the URL without the stream. entropy(n):
    n random bytes. digest_scheme: 0 or 1 for the digest handshake. enhanced: E-RTMP FourCCs to announce.
    """

    def __init__(
        self,
        *,
        app: str,
        stream: str,
        tc_url: str,
        publish: bool,
        entropy: Entropy,
        now: float,
        digest_scheme: int | None = None,
        enhanced: tuple[str, ...] = m.VIDEO_FOURCCS + m.AUDIO_FOURCCS,
        connect_values: Mapping[str, Any] | None = None,
    ) -> None:
        self.state = State.HANDSHAKE
        self._app = app
        self._stream = stream
        self._tc_url = tc_url
        self._publish = publish
        self._enhanced = enhanced
        self._connect_values = dict(connect_values or {})
        self._handshake: ClientHandshake | None = ClientHandshake(entropy, digest_scheme)
        self._reader = ChunkReader()
        self._send = m.MessageSender()
        self._head = self._handshake.take_output()
        self._receipts = m.Receipts()
        self._since = now
        self._stream_id = m.MEDIA_STREAM_ID

    def feed(self, data: bytes, now: float) -> list[m.Event]:
        """Take bytes from the server and return the events they complete. Raises RemoteProtocolError."""
        events: list[m.Event] = []
        acknowledgement = self._receipts.count(len(data), now)
        if self._handshake is not None:
            data = self._handshake.feed(data)
            self._head += self._handshake.take_output()
            if self._handshake.done:
                self._handshake = None
                self._advance("handshake done")
                self._send_connect()
        if acknowledgement is not None and self._handshake is None:
            self._send.control(m.ACKNOWLEDGEMENT, acknowledgement)
        for message in self._reader.feed(data) if data else []:
            self._handle(message, events)
        return events

    def _advance(self, what: str) -> None:
        target = _TRANSITIONS.get((self.state, what))
        if target is None:
            raise RemoteProtocolError(f"server says {what} while {self.state}", spec="RTMP 1.0 section 7.2")
        self.state = target

    def _handle(self, message: Message, events: list[m.Event]) -> None:
        kind = message.type_id
        if kind in (m.AUDIO, m.VIDEO):
            events.append(m.Media(kind, message.time_ms, message.payload))
        elif kind == m.AGGREGATE:
            events.extend(m.split_aggregate(message))
        elif kind in (m.COMMAND_AMF0, m.COMMAND_AMF3):
            self._handle_command(m.parse_values(message), events)
        elif kind in (m.DATA_AMF0, m.DATA_AMF3):
            values = m.parse_values(message)
            if values and isinstance(values[0], str):
                events.append(m.Data(m.text(values[0]), tuple(values[1:]), message.time_ms))
        elif kind == m.WINDOW_ACKNOWLEDGEMENT_SIZE:
            self._receipts.set_window(message.payload)
        elif kind == m.USER_CONTROL and message.payload[:2] == b"\x00\x06":
            self._send.control(m.USER_CONTROL, b"\x00\x07" + message.payload[2:6])

    def _handle_command(self, values: list[Any], events: list[m.Event]) -> None:
        name = values[0] if values else None
        transaction = m.number(values[1]) if len(values) > 1 else 0.0
        if name == "_result" and transaction == _CONNECT:
            self._advance("connected")
            self._send_create()
        elif name == "_result" and transaction == _CREATE_STREAM:
            self._advance("created")
            self._stream_id = int(m.number(values[3], 1.0)) if len(values) > 3 else 1
            self._send_start()
        elif name in ("onStatus", "_error"):
            info = values[3] if len(values) > 3 and isinstance(values[3], dict) else {}
            self._handle_status(name == "_error", transaction, info, events)

    def _handle_status(self, error: bool, transaction: float, info: dict[str, Any], events: list[m.Event]) -> None:
        code, description = m.text(info.get("code")), m.text(info.get("description"))
        if error and transaction not in (_CONNECT, _CREATE_STREAM, _PUBLISH):
            return  # servers need not know releaseStream and FCPublish
        if error or info.get("level") == "error":
            events.append(m.Refused(code, description))
        elif code == _RECONNECT:
            events.append(m.ReconnectRequested(m.text(info.get("tcUrl"))))
        elif code in _STARTS and self.state is State.STARTING:
            self._advance("started")
            events.append(m.Started(code))
        elif code in _ENDS and self.state is State.STARTED:
            self._advance("end")
            events.append(m.StreamEnded(code))

    # -- what we send

    def _send_connect(self) -> None:
        self._send.writer.write_chunk_size(CHUNK_SIZE)
        values: dict[str, Any] = {
            "app": self._app,
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; mist)" if self._publish else "LNX 9,0,124,2",
            "tcUrl": self._tc_url,
        }
        if not self._publish:
            values.update({"fpad": False, "capabilities": 15, "audioCodecs": 4071, "videoCodecs": 252})
        if self._enhanced:
            values.update({"capsEx": m.CAPS_EX, "fourCcList": list(self._enhanced)})
        values.update(self._connect_values)
        self._send.command("connect", _CONNECT, values)

    def _send_create(self) -> None:
        if self._publish:
            self._send.command("releaseStream", 2.0, None, self._stream)
            self._send.command("FCPublish", 3.0, None, self._stream)
        else:
            self._send.control(m.WINDOW_ACKNOWLEDGEMENT_SIZE, m.WINDOW_BYTES.to_bytes(4, "big"))
        self._send.command("createStream", _CREATE_STREAM, None)

    def _send_start(self) -> None:
        if self._publish:
            self._send.command("publish", _PUBLISH, None, self._stream, "live", stream_id=self._stream_id)
            return
        self._send.command("play", _PUBLISH, None, self._stream, -2000.0, stream_id=self._stream_id)
        self._send.control(m.USER_CONTROL, m.user_control(m.SET_BUFFER_LENGTH, self._stream_id, 1000))

    @property
    def stream_id(self) -> int:
        """The message stream that the server gave to the stream."""
        return self._stream_id

    def send_media(self, type_id: int, time_ms: int, payload: bytes) -> None:
        """Queue an audio or video message. Raises LocalProtocolError before publishing has started."""
        if self.state is not State.STARTED:
            raise LocalProtocolError(f"media while {self.state}")
        chunk_stream = _AUDIO_CHUNK_STREAM if type_id == m.AUDIO else _VIDEO_CHUNK_STREAM
        self._send.writer.write(chunk_stream, type_id, self._stream_id, time_ms, payload)

    def send_metadata(self, values: Mapping[str, Any], time_ms: int = 0) -> None:
        """Queue onMetaData."""
        self._send.data("@setDataFrame", "onMetaData", dict(values), stream_id=self._stream_id, time_ms=time_ms)

    def close(self) -> None:
        """Queue a polite end."""
        if self._publish:
            self._send.command("FCUnpublish", 6.0, None, self._stream)
        self._send.command("deleteStream", 7.0, None, float(self._stream_id))

    def take_output(self) -> bytes:
        """Return everything queued, and forget it."""
        head, self._head = self._head, b""
        return head + self._send.writer.take_output()

    # -- another process

    def export_state(self) -> bytes:
        """Return the session, for `restore` in another process. Call it between events, once the server has begun, after `take_output`."""
        fields = {
            "state": str(self.state),
            "app": self._app,
            "stream": self._stream,
            "publish": self._publish,
            "stream_id": self._stream_id,
            "window": self._receipts.window_bytes,
            "received": self._receipts.received,
        }
        return json.dumps(fields).encode() + b"\n" + self._reader.export_state()

    @classmethod
    def restore(cls, state: bytes, now: float) -> ClientSession:
        """Return the session that `export_state` described. Raises LocalProtocolError."""
        head, _, rest = state.partition(b"\n")
        try:
            fields = json.loads(head)
            session = cls(
                app=fields["app"],
                stream=fields["stream"],
                tc_url="",
                publish=fields["publish"],
                entropy=bytes,
                now=now,
            )
            session.state = State(fields["state"])
            session._stream_id = fields["stream_id"]
            session._receipts = m.Receipts(fields["window"], fields["received"])
        except (ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError(f"damaged session state: {error}") from error
        session._handshake, session._head = None, b""
        session._send.writer.write_chunk_size(CHUNK_SIZE)
        session._send.writer.take_output()
        session._reader.restore(rest)
        return session

    def deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called, or None."""
        return None if self.state in (State.STARTED, State.ENDED) else self._since + START_SECONDS

    def handle_timeout(self, now: float) -> None:
        """Raise ConnectTimeout when the server takes too long to accept."""
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            raise ConnectTimeout(f"RTMP server does nothing while {self.state}")
