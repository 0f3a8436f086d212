"""A plain DTSC client that shares no code with mist, to say what players and pushers say, and what they should not."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

END = b"\0\0\xee"


def write_value(value: Any) -> bytes:
    """Return a value in DTSC's typed form."""
    if isinstance(value, int):
        return b"\x01" + struct.pack(">q", value)
    if isinstance(value, (bytes, str)):
        data = value.encode() if isinstance(value, str) else value
        return b"\x02" + struct.pack(">I", len(data)) + data
    if value is None:
        return b"\x03"
    if isinstance(value, list):
        return b"\x0a" + b"".join(map(write_value, value)) + END
    if isinstance(value, Mapping):
        members = (struct.pack(">H", len(name)) + name.encode() + write_value(one) for name, one in value.items())
        return b"\xe0" + b"".join(members) + END
    raise TypeError(type(value).__name__)


def read_value(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Return the value at a place and the place behind it."""
    kind, at = data[at], at + 1
    if kind == 1:
        return struct.unpack_from(">q", data, at)[0], at + 8
    if kind == 2:
        end = at + 4 + struct.unpack_from(">I", data, at)[0]
        return data[at + 4 : end], end
    if kind == 3:
        return None, at
    if kind == 10:
        items = []
        while data[at : at + 2] != b"\0\0":
            item, at = read_value(data, at)
            items.append(item)
        return items, at + 3
    if kind == 0xE0:
        found = {}
        while data[at : at + 2] != b"\0\0":
            end = at + 2 + struct.unpack_from(">H", data, at)[0]
            found[data[at + 2 : end].decode()], at = read_value(data, end)
            # Each name is there once in what servers send.
        return found, at + 3
    raise ValueError(f"DTSC type {kind}")


def packet(magic: bytes, body: bytes) -> bytes:
    return magic + struct.pack(">I", len(body)) + body


def command(name: str, **members: Any) -> bytes:
    return packet(b"DTCM", write_value({"cmd": name, **members}))


def media(track: int, time_ms: int, payload: bytes, *, offset_ms: int = 0, key: bool = False, **more: Any) -> bytes:
    members: dict[str, Any] = {"offset": offset_ms} if offset_ms else {}
    members |= {"keyframe": 1} if key else {}
    members |= {"data": payload, **more}
    return packet(b"DTP2", struct.pack(">IQ", track, time_ms) + write_value(members))


@dataclass(slots=True)
class Heard:
    """One packet from the server. kind: its magic as text. track, time_ms: of media. at: monotonic seconds."""

    kind: str
    members: dict[str, Any]
    track: int = 0
    time_ms: int = 0
    at: float = 0.0

    @property
    def data(self) -> bytes:
        return bytes(self.members.get("data", b""))


class DtscPeer:
    """A connection to a DTSC server. Use it as a context manager."""

    def __init__(self, port: int, *, timeout_s: float = 10, tls: ssl.SSLContext | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self._received = bytearray()

    def __enter__(self) -> DtscPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def play(self, stream: str = "live", **members: Any) -> None:
        self.send(command("play", stream=stream, version="test", **members))

    def push(self, stream: str = "live", **members: Any) -> None:
        self.send(command("push", stream=stream, version="test", **members))

    def packets(self) -> Iterator[Heard]:
        """Yield what the server says, to the end of the connection."""
        while True:
            while len(self._received) >= 8:
                size = 8 + struct.unpack_from(">I", self._received, 4)[0]
                if len(self._received) < size:
                    break
                one = bytes(self._received[:size])
                del self._received[:size]
                yield self._read(one)
            data = self.socket.recv(1 << 18)
            if not data:
                return
            self._received += data

    def _read(self, one: bytes) -> Heard:
        kind = one[:4].decode("latin-1")
        if kind != "DTP2":
            return Heard(kind, read_value(one, 8)[0], at=time.monotonic())
        track, time_ms = struct.unpack_from(">IQ", one, 8)
        members, end = read_value(one, 20)
        assert end == len(one), "bytes after a packet's object"
        return Heard(kind, members, track, time_ms, time.monotonic())

    def until(self, kind: str, command_name: str = "") -> Heard:
        """Return the next packet of a kind, or command of a name. Raises EOFError."""
        for heard in self.packets():
            if heard.kind == kind and (not command_name or heard.members.get("cmd") == command_name.encode()):
                return heard
        raise EOFError(f"the connection ended before {kind} {command_name}")

    def media(self, count: int) -> list[Heard]:
        """Return the next packets of media."""
        found: list[Heard] = []
        for heard in self.packets():
            if heard.kind == "DTP2":
                found.append(heard)
                if len(found) >= count:
                    break
        return found
