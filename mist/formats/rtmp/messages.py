"""RTMP messages: their numbers, the events that sessions make of them, and the ones that both roles send.

Spec: Adobe RTMP 1.0 sections 5.4 and 7, Enhanced RTMP v2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mist.core.rtmp_chunks import ChunkWriter, Message
from mist.errors import RemoteProtocolError
from mist.formats import amf

SET_CHUNK_SIZE: Final = 1
ABORT: Final = 2
ACKNOWLEDGEMENT: Final = 3
USER_CONTROL: Final = 4
WINDOW_ACKNOWLEDGEMENT_SIZE: Final = 5
SET_PEER_BANDWIDTH: Final = 6
AUDIO: Final = 8
VIDEO: Final = 9
DATA_AMF3: Final = 15
SHARED_OBJECT_AMF3: Final = 16
COMMAND_AMF3: Final = 17
DATA_AMF0: Final = 18
SHARED_OBJECT_AMF0: Final = 19
COMMAND_AMF0: Final = 20
AGGREGATE: Final = 22

# User control events, section 7.1.7.
STREAM_BEGIN: Final = 0
STREAM_EOF: Final = 1
SET_BUFFER_LENGTH: Final = 3
STREAM_IS_RECORDED: Final = 4
PING_REQUEST: Final = 6
PING_RESPONSE: Final = 7

CONTROL_CHUNK_STREAM: Final = 2
COMMAND_CHUNK_STREAM: Final = 3
STATUS_CHUNK_STREAM: Final = 5
MEDIA_STREAM_ID: Final = 1

WINDOW_BYTES: Final = 2_500_000
MAX_AGGREGATED: Final = 4096  # tags in one aggregate message
MAX_COMMAND_BYTES: Final = 1 << 20
MAX_NAME_CHARACTERS: Final = 1024
SET_DATA_FRAME: Final = "@setDataFrame"

VIDEO_FOURCCS: Final = ("av01", "avc1", "hvc1", "vp08", "vp09")
AUDIO_FOURCCS: Final = ("ac-3", "ec-3", "Opus", ".mp3", "fLaC", "mp4a")
_FOURCCS: Final = frozenset({*VIDEO_FOURCCS, *AUDIO_FOURCCS, "*"})
FOURCC_CAN_RECEIVE: Final = 5  # decode, forward
FOURCC_CAN_ALL: Final = 7  # decode, encode, forward
CAPS_EX: Final = 15  # reconnect, multitrack, ModEx, nanosecond offset


@dataclass(frozen=True, slots=True)
class Connected:
    """The peer sent connect. enhanced: FourCCs it can receive ("*" for all), empty if it did not say any."""

    app: str
    tc_url: str
    flash_version: str
    enhanced: frozenset[str]
    multitrack: bool


@dataclass(frozen=True, slots=True)
class PublishRequested:
    """The peer wants to publish: answer with `send_publish_start` or `send_publish_refused`. name: query included."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class PlayRequested:
    """The peer wants to play: answer with `send_play_start` or `send_play_refused`.

    start, duration: as sent, seconds by RTMP 1.0 section 7.2.2.1 and milliseconds by librtmp and ffmpeg; negative for
    "live" and "all".
    """

    name: str
    start: float
    duration: float
    reset: bool


@dataclass(frozen=True, slots=True)
class Media:
    """One audio (8) or video (9) message, aggregates taken apart; out of an aggregate also data (18). time_ms: 64 bits, unwrapped."""

    type_id: int
    time_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """One data message: "onMetaData", "onTextData" … without @setDataFrame before it."""

    name: str
    values: tuple[Any, ...]
    time_ms: int


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """A player stops or goes on, at a position in milliseconds."""

    paused: bool
    time_ms: float


@dataclass(frozen=True, slots=True)
class SeekRequested:
    """A player of a recorded stream wants another position, in milliseconds: answer with `send_seek_start`."""

    time_ms: float


@dataclass(frozen=True, slots=True)
class BufferLengthSet:
    """A player says how much media it holds before it plays it, in milliseconds."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer stopped publishing or playing, by this command."""

    command: str


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """To a client: it is to connect again, to another URL of the application if that is not "".   Spec: E-RTMP v2, reconnect request."""

    tc_url: str


@dataclass(frozen=True, slots=True)
class Started:
    """To a client: publishing or playing was accepted."""

    code: str


@dataclass(frozen=True, slots=True)
class Refused:
    """To a client: connecting, publishing or playing was refused."""

    code: str
    description: str


Event = (
    Connected
    | PublishRequested
    | PlayRequested
    | Media
    | Data
    | PauseRequested
    | SeekRequested
    | BufferLengthSet
    | StreamEnded
    | ReconnectRequested
    | Started
    | Refused
)


def parse_values(message: Message | Media) -> list[Any]:
    """Return the AMF values of a command or data message.

    The AMF 3 types begin with a format byte of 0 before AMF 0 values (RTMP 1.0 sections 7.1.1 and 7.1.2); some
    encoders leave it out of data messages. Raises RemoteProtocolError.
    """
    payload = message.payload
    if len(payload) > MAX_COMMAND_BYTES:
        raise RemoteProtocolError(f"command or data message of {len(payload)} bytes", spec="RTMP 1.0 section 7.1")
    skip = 1 if message.type_id in (COMMAND_AMF3, DATA_AMF3) and payload[:1] == b"\x00" else 0
    return amf.decode_all(payload, skip)


def split_aggregate(message: Message) -> Iterator[Media]:
    """Return the audio, video and data messages in an aggregate message.

    Times count from the aggregate's own; the first tag's time is the base.   Spec: RTMP 1.0 section 7.1.6.
    """
    payload = message.payload
    at = 0
    base: int | None = None
    for _ in range(MAX_AGGREGATED):
        if at + 11 > len(payload):
            return
        type_id = payload[at] & 0x1F
        size = int.from_bytes(payload[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(payload[at + 4 : at + 7], "big") | payload[at + 7] << 24
        if at + 11 + size > len(payload):
            raise RemoteProtocolError("tag longer than its aggregate", offset=at, spec="RTMP 1.0 section 7.1.6")
        base = time_ms if base is None else base
        if type_id in (AUDIO, VIDEO, DATA_AMF0):
            # 32-bit difference: the tags of one aggregate may lie on both sides of the wrap
            delta = (time_ms - base + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            yield Media(type_id, message.time_ms + delta, payload[at + 11 : at + 11 + size])
        at += 11 + size + 4
    raise RemoteProtocolError(f"more than {MAX_AGGREGATED} tags in an aggregate", spec="RTMP 1.0 section 7.1.6")


def received_fourccs(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the FourCCs that a peer's connect object says it can receive, of those that mean something here.

    Spec: E-RTMP v2, connect command.
    """
    found: set[str] = set()
    listed = values.get("fourCcList")
    if isinstance(listed, list):
        found.update(item for item in listed if isinstance(item, str))
    for name in ("videoFourCcInfoMap", "audioFourCcInfoMap"):
        entries = values.get(name)
        if isinstance(entries, dict):
            found.update(key for key, mask in entries.items() if int(number(mask)) & FOURCC_CAN_RECEIVE)
    return frozenset(found & _FOURCCS)


def number(value: object, default: float = 0.0) -> float:
    """Return an AMF number, or default for anything else and for what is not finite."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    return default


def text(value: object) -> str:
    """Return an AMF string cut to a sane length, or "" for anything else."""
    return str(value)[:MAX_NAME_CHARACTERS] if isinstance(value, str) else ""


def user_control(event: int, *values: int) -> bytes:
    """Return the payload of a user control message with 32-bit values."""
    return struct.pack(f">H{len(values)}I", event, *values)


class MessageSender:
    """What both roles send, over one chunk writer."""

    def __init__(self) -> None:
        self.writer = ChunkWriter()

    def control(self, type_id: int, payload: bytes) -> None:
        """Queue a protocol control or user control message."""
        self.writer.write(CONTROL_CHUNK_STREAM, type_id, 0, 0, payload)

    def command(self, *values: Any, stream_id: int = 0, amf3: bool = False) -> None:
        """Queue a command. amf3: in the message type of peers that speak AMF 3; the values are AMF 0 all the same."""
        chunk_stream = STATUS_CHUNK_STREAM if stream_id else COMMAND_CHUNK_STREAM
        if amf3:
            self.writer.write(chunk_stream, COMMAND_AMF3, stream_id, 0, b"\x00" + amf.encode(*values))
        else:
            self.writer.write(chunk_stream, COMMAND_AMF0, stream_id, 0, amf.encode(*values))

    def data(self, *values: Any, stream_id: int = MEDIA_STREAM_ID, time_ms: int = 0) -> None:
        """Queue a data message."""
        self.writer.write(STATUS_CHUNK_STREAM, DATA_AMF0, stream_id, time_ms, amf.encode(*values))


class Receipts:
    """Counts bytes for the acknowledgements of one direction.   Spec: RTMP 1.0 sections 5.4.3 to 5.4.5.

    Some encoders count the window in messages or never announce one; a receipt each quarter window, and for a slow
    peer each 15 s, satisfies all that were met.
    """

    INTERVAL_S: Final = 15.0

    def __init__(self, window_bytes: int = WINDOW_BYTES, received: int = 0) -> None:
        self.window_bytes = window_bytes
        self.received = received
        self.acknowledged = received
        self.acknowledged_at: float | None = None

    def count(self, size: int, now: float) -> bytes | None:
        """Note received bytes; return the payload of the acknowledgement that is due, or None."""
        self.received += size
        if self.acknowledged_at is None:
            self.acknowledged_at = now
        news = self.received - self.acknowledged
        if not news or (news < self.window_bytes // 4 and now - self.acknowledged_at < self.INTERVAL_S):
            return None
        self.acknowledged = self.received
        self.acknowledged_at = now
        return (self.received & 0xFFFFFFFF).to_bytes(4, "big")

    def set_window(self, payload: bytes) -> None:
        """Take the peer's window acknowledgement size; nonsense leaves the old one."""
        if len(payload) >= 4:
            self.window_bytes = max(2048, min(1 << 30, int.from_bytes(payload[:4], "big")))
