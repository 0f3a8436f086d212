"""A plain RTMP client that shares no code with mist, to say what encoders and players say, and what they should not.

It blocks, checks little and keeps to RTMP 1.0 with AMF0; what it sends can be bent byte by byte.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

AUDIO, VIDEO, DATA, COMMAND = 8, 9, 18, 20
SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL, WINDOW_SIZE, PEER_BANDWIDTH = 1, 2, 3, 4, 5, 6
HANDSHAKE_BYTES = 1536
OUT_CHUNK_BYTES = 60_000
ACKNOWLEDGE_EVERY_BYTES = 500_000

# A baseline 1280x720 stream's parameter sets, 30 frames a second, and AAC-LC 48 kHz stereo: enough to be taken for media.
SPS = bytes.fromhex("6742c01fd9005005bb0110000003001000000303c0f1832480")
PPS = bytes.fromhex("68cb83cb20")
AVC_HEADER = (
    b"\x17\x00\0\0\0" + b"\x01" + SPS[1:4] + b"\xff\xe1" + struct.pack(">H", len(SPS)) + SPS + b"\x01\x00\x04" + PPS
)
AAC_HEADER = b"\xaf\x00\x11\x90"


class Refused(Exception):
    """The server answered a command with an error."""


def amf_write(value: Any) -> bytes:
    """Return a value in AMF0."""
    if isinstance(value, bool):
        return b"\x01" + bytes([value])
    if isinstance(value, (int, float)):
        return b"\x00" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return b"\x02" + struct.pack(">H", len(data)) + data
    if value is None:
        return b"\x05"
    if isinstance(value, list):
        return b"\x0a" + struct.pack(">I", len(value)) + b"".join(map(amf_write, value))
    if isinstance(value, Mapping):
        body = b"".join(struct.pack(">H", len(key)) + key.encode() + amf_write(one) for key, one in value.items())
        return b"\x03" + body + b"\0\0\x09"
    raise TypeError(type(value).__name__)


def amf_read(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return the AMF0 value at a place and the place behind it."""
    kind, at = data[at], at + 1
    if kind == 0:
        return struct.unpack_from(">d", data, at)[0], at + 8
    if kind == 1:
        return bool(data[at]), at + 1
    if kind == 2:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        return data[at + 2 : end].decode(), end
    if kind in (5, 6):
        return None, at
    if kind == 10:
        count, at, items = int.from_bytes(data[at : at + 4], "big"), at + 4, []
        for _ in range(count):
            item, at = amf_read(data, at)
            items.append(item)
        return items, at
    if kind in (3, 8):
        at, found = at + (4 if kind == 8 else 0), {}
        while data[at : at + 3] != b"\0\0\x09":
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            name = data[at + 2 : end].decode()
            found[name], at = amf_read(data, end)
        return found, at + 3
    raise ValueError(f"AMF0 type {kind}")


def amf_read_all(data: bytes) -> list[Any]:
    """Return all AMF0 values of a message."""
    at, values = 0, []
    while at < len(data):
        value, at = amf_read(data, at)
        values.append(value)
    return values


@dataclass(slots=True)
class Message:
    """One RTMP message as received: type, timestamp in milliseconds (32 bits), message stream id, payload."""

    kind: int
    timestamp_ms: int
    stream_id: int
    payload: bytes

    @property
    def values(self) -> list[Any]:
        return amf_read_all(self.payload)


@dataclass(slots=True)
class _ChunkStream:
    timestamp: int = 0
    delta: int = 0
    length: int = 0
    kind: int = 0
    stream_id: int = 0
    extended: bool = False
    body: bytearray = field(default_factory=bytearray)


def _is_end(message: Message) -> bool:
    values = message.values
    codes = ("NetStream.Play.UnpublishNotify", "NetStream.Play.Stop")
    return values[0] == "onStatus" and values[3].get("code") in codes


class RtmpPeer:
    """A connection to an RTMP server. Use it as a context manager; `publish` or `play` first, then send or iterate."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout_s: float = 10) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._in_chunk_bytes = 128
        self._in: dict[int, _ChunkStream] = {}
        self._transaction = 0
        self._received_bytes = 0
        self._acknowledged_bytes = 0
        self.stream_id = 0
        self.others: list[Message] = []  # what arrived while a reply was waited for

    def __enter__(self) -> RtmpPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # -- talking -----------------------------------------------------------------------------------------------------

    def handshake(self) -> None:
        """Do the simple handshake (RTMP 1.0, section 5.2)."""
        c1 = bytes(8) + os.urandom(HANDSHAKE_BYTES - 8)
        self.socket.sendall(b"\x03" + c1)
        reply = self._take(1 + 2 * HANDSHAKE_BYTES)
        self.socket.sendall(reply[1 : 1 + HANDSHAKE_BYTES])

    def connect(self, app: str = "live", *, enhanced: bool = False) -> None:
        """Shake hands, choose a large chunk size and connect to an application.

        enhanced: say that every codec of enhanced RTMP is welcome.
        """
        self.handshake()
        self.send(SET_CHUNK_SIZE, 0, struct.pack(">I", OUT_CHUNK_BYTES), stream_id=0)
        command: dict[str, Any] = {
            "app": app,
            "type": "nonprivate",
            "flashVer": "FMLE/3.0",
            "tcUrl": f"rtmp://127.0.0.1/{app}",
        }
        if enhanced:
            command |= {
                "fourCcList": ["*"],
                "capsEx": 15,
                "videoFourCcInfoMap": {"*": 7},
                "audioFourCcInfoMap": {"*": 7},
            }
        self.call("connect", command)

    def publish(self, stream: str, app: str = "live") -> None:
        """Become the publisher of a stream. Raises Refused."""
        self.connect(app)
        self.command("releaseStream", None, stream)
        self.command("FCPublish", None, stream)
        self.stream_id = int(self.call("createStream", None)[1])
        self.command("publish", None, stream, app, stream_id=self.stream_id)
        self.wait_status("NetStream.Publish.Start")

    def play(self, stream: str, app: str = "play", *, enhanced: bool = False) -> None:
        """Ask for a stream; its messages follow. Raises Refused."""
        self.connect(app, enhanced=enhanced)
        self.play_connected(stream)

    def play_connected(self, stream: str) -> None:
        """Ask for a stream after `connect`. Raises Refused."""
        self.stream_id = int(self.call("createStream", None)[1])
        self.command("play", None, stream, -2000, stream_id=self.stream_id)
        self.wait_status("NetStream.Play.Start")

    def command(self, name: str, *arguments: Any, stream_id: int = 0) -> int:
        """Send a command and return its transaction number."""
        self._transaction += 1
        body = amf_write(name) + amf_write(self._transaction) + b"".join(map(amf_write, arguments))
        self.send(COMMAND, 0, body, stream_id=stream_id)
        return self._transaction

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """Send a command and return the values of its result after the transaction number. Raises Refused."""
        number = self.command(name, *arguments)
        for message in self.messages():
            if message.kind == COMMAND:
                values = message.values
                if values[1] == number and values[0] in ("_result", "_error"):
                    if values[0] == "_error":
                        raise Refused(str(values[2:]))
                    return values[2:]
            self.others.append(message)
        raise Refused(f"connection closed before the answer to {name}")

    def wait_status(self, code: str) -> None:
        """Wait for an onStatus with the code. Raises Refused for one of level error, or when the connection ends."""
        for message in self.messages():
            if message.kind == COMMAND:
                values = message.values
                if values[0] == "onStatus":
                    if values[3].get("code") == code:
                        return
                    if values[3].get("level") == "error":
                        raise Refused(values[3].get("code", "") + ": " + values[3].get("description", ""))
                    continue
                if values[0] == "_error":
                    raise Refused(str(values))
            self.others.append(message)
        raise Refused(f"connection closed before {code}")

    def send(self, kind: int, timestamp_ms: int, payload: bytes, *, stream_id: int | None = None) -> None:
        """Send one message, all its chunks with full headers (type 0) first and type 3 after."""
        self.socket.sendall(self.chunks(kind, timestamp_ms, payload, stream_id=stream_id))

    def chunks(self, kind: int, timestamp_ms: int, payload: bytes, *, stream_id: int | None = None) -> bytes:
        """Return the bytes of one message (RTMP 1.0, section 5.3.1)."""
        chunk_stream = {AUDIO: 4, VIDEO: 6, DATA: 5, COMMAND: 3}.get(kind, 2)
        stream_id = self.stream_id if stream_id is None else stream_id
        timestamp_ms &= 0xFFFFFFFF
        extended = struct.pack(">I", timestamp_ms) if timestamp_ms >= 0xFFFFFF else b""
        head = bytes([chunk_stream]) + min(timestamp_ms, 0xFFFFFF).to_bytes(3, "big") + len(payload).to_bytes(3, "big")
        head += bytes([kind]) + struct.pack("<I", stream_id) + extended
        size = 128 if kind == SET_CHUNK_SIZE else OUT_CHUNK_BYTES
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        return head + (bytes([0xC0 | chunk_stream]) + extended).join(pieces)

    # -- media of our own --------------------------------------------------------------------------------------------

    def send_headers(self, timestamp_ms: int = 0, *, video: bool = True, audio: bool = True) -> None:
        """Send the codec headers of the built-in H.264 and AAC descriptions."""
        if video:
            self.send(VIDEO, timestamp_ms, AVC_HEADER)
        if audio:
            self.send(AUDIO, timestamp_ms, AAC_HEADER)

    def send_video(self, timestamp_ms: int, payload: bytes, *, key: bool, offset_ms: int = 0) -> None:
        """Send one H.264 picture made of a single NAL unit with this content (its header byte is added)."""
        nal = (b"\x65" if key else b"\x41") + payload
        head = bytes([0x17 if key else 0x27, 1]) + offset_ms.to_bytes(3, "big", signed=True)
        self.send(VIDEO, timestamp_ms, head + struct.pack(">I", len(nal)) + nal)

    def send_audio(self, timestamp_ms: int, payload: bytes) -> None:
        """Send one raw AAC frame."""
        self.send(AUDIO, timestamp_ms, b"\xaf\x01" + payload)

    # -- listening ---------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[Message]:
        """Yield messages as they come, until the server closes. Raises TimeoutError when it is silent too long."""
        while True:
            try:
                message = self._message()
            except (EOFError, ConnectionResetError, BrokenPipeError):
                return
            if message is not None:
                yield message

    def record(self, target: BinaryIO, *, until_ms: int | None = None) -> int:
        """Write the media messages that come as an FLV file; return how many.

        Ends when the server closes or says that the stream ended, or at a media time of until_ms.
        """
        target.write(b"FLV\x01\x05\0\0\0\x09" + bytes(4))
        count = 0
        waiting, self.others = self.others, []
        for message in itertools.chain(waiting, self.messages()):
            if message.kind in (AUDIO, VIDEO, DATA):
                stamp = message.timestamp_ms
                head = bytes([message.kind]) + len(message.payload).to_bytes(3, "big")
                head += (stamp & 0xFFFFFF).to_bytes(3, "big") + bytes([stamp >> 24]) + bytes(3)
                target.write(head + message.payload + struct.pack(">I", len(head) + len(message.payload)))
                count += 1
                if until_ms is not None and message.kind != DATA and stamp >= until_ms:
                    break
            elif message.kind == COMMAND and _is_end(message):
                break
        return count

    def _message(self) -> Message | None:
        first = self._take(1)[0]
        number = first & 0x3F
        if number == 0:
            number = 64 + self._take(1)[0]
        elif number == 1:
            number = 64 + int.from_bytes(self._take(2), "little")
        state = self._in.setdefault(number, _ChunkStream())
        self._read_header(state, first >> 6)
        state.body += self._take(min(self._in_chunk_bytes, state.length - len(state.body)))
        if len(state.body) < state.length:
            return None
        payload, state.body = bytes(state.body), bytearray()
        if state.kind == SET_CHUNK_SIZE:
            self._in_chunk_bytes = int.from_bytes(payload, "big") & 0x7FFFFFFF
        return Message(state.kind, state.timestamp, state.stream_id, payload)

    def _read_header(self, state: _ChunkStream, form: int) -> None:
        header = self._take((11, 7, 3, 0)[form])
        if form < 3:
            state.delta = int.from_bytes(header[:3], "big")
            state.extended = state.delta == 0xFFFFFF
        if form < 2:
            state.length, state.kind = int.from_bytes(header[3:6], "big"), header[6]
        if form == 0:
            state.stream_id = int.from_bytes(header[7:11], "little")
        value = int.from_bytes(self._take(4), "big") if state.extended else state.delta
        if state.body:
            return
        state.timestamp = value if form == 0 else (state.timestamp + value) & 0xFFFFFFFF
        if form == 0:
            state.delta = 0 if not state.extended else state.delta

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._received += data
            self._received_bytes += len(data)
            if self._received_bytes - self._acknowledged_bytes > ACKNOWLEDGE_EVERY_BYTES:
                self._acknowledged_bytes = self._received_bytes
                self.send(ACKNOWLEDGEMENT, 0, struct.pack(">I", self._received_bytes & 0xFFFFFFFF), stream_id=0)
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken
