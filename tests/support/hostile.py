"""Peers that mean no good, or are broken: each does one thing to a port and tells what came of it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

HANDSHAKE = b"\x03" + bytes(1536)
RTMP_CONNECTED = HANDSHAKE + bytes(1536)


def send_and_wait(port: int, data: bytes, *, end: bool = False, timeout_s: float = 5) -> bytes:
    """Send bytes, end our side if asked, and return what comes until the server closes or is silent for the time."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
        received = b""
        with suppress(OSError):
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            while more := sock.recv(1 << 16):
                received += more
        return received


def is_closed(sock: socket.socket, timeout_s: float) -> bool:
    """Tell whether the server closes the connection within the time, whatever it says before."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            if not sock.recv(1 << 16):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def flood(port: int, start: bytes, piece: Callable[[], bytes], total_bytes: int, timeout_s: float = 10) -> int:
    """Send without end, up to a bound; returns how many bytes went before the server cut it off or stopped taking them."""
    sent = 0
    deadline = time.monotonic() + timeout_s
    with socket.create_connection(("127.0.0.1", port), timeout=2) as sock, suppress(OSError):
        sock.sendall(start)
        while sent < total_bytes and time.monotonic() < deadline:
            data = piece()
            sock.sendall(data)
            sent += len(data)
    return sent


def rtmp_chunk(kind: int, payload: bytes, *, length: int | None = None, chunk_stream: int = 3) -> bytes:
    """Return a message as one chunk with a full header; length may lie."""
    size = len(payload) if length is None else length
    return bytes([chunk_stream]) + bytes(3) + size.to_bytes(3, "big") + bytes([kind]) + bytes(4) + payload


def nested_amf(depth: int) -> bytes:
    """Return a command whose argument is objects in objects."""
    return b"\x02\x00\x07connect" + b"\x00" + bytes(8) + b"\x03\x00\x01a" * depth


RTMP_ATTACKS: dict[str, bytes] = {
    "nothing": b"",
    "noise": os.urandom(4096),
    "http on the rtmp port": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(4000),
    "handshake cut": HANDSHAKE[:700],
    "noise after the handshake": RTMP_CONNECTED + bytes(range(256)) * 64,
    "huge message": RTMP_CONNECTED + rtmp_chunk(20, b"x" * 128, length=0xFFFFFF),
    "huge chunk size": RTMP_CONNECTED
    + rtmp_chunk(1, struct.pack(">I", 0x7FFFFFFF))
    + rtmp_chunk(9, b"", length=0xFFFFFF),
    "chunk size zero": RTMP_CONNECTED + rtmp_chunk(1, bytes(4)),
    "continuation of nothing": RTMP_CONNECTED + bytes([0xC5]) * 100,
    "many chunk streams": RTMP_CONNECTED
    + b"".join(bytes([1]) + struct.pack("<H", n) + rtmp_chunk(9, b"x" * 128, length=4000)[1:] for n in range(3000)),
    "nested amf": RTMP_CONNECTED + rtmp_chunk(1, struct.pack(">I", 60000)) + rtmp_chunk(20, nested_amf(10_000)),
    "amf array of a billion": RTMP_CONNECTED
    + rtmp_chunk(20, b"\x02\x00\x07connect\x00" + bytes(8) + b"\x0a\x3b\x9a\xca\x00"),
    "amf string too long": RTMP_CONNECTED + rtmp_chunk(20, b"\x0c\xff\xff\xff\xffconnect"),
    "aggregate that lies": RTMP_CONNECTED + rtmp_chunk(22, b"\x09\xff\xff\xff" + bytes(60)),
    "command before connect": RTMP_CONNECTED
    + rtmp_chunk(20, b"\x02\x00\x07publish\x00" + bytes(8) + b"\x05\x02\x00\x04live"),
}

HTTP_ATTACKS: dict[str, bytes] = {
    "nothing": b"",
    "noise": os.urandom(4096),
    "no header end": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "request line too long": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "header too long": b"GET / HTTP/1.1\r\nX: " + b"a" * 500_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"\r\n",
    "bad version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "bad method": b"\x00\x01\x02 / HTTP/1.1\r\n\r\n",
    "bad length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "length of terabytes": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n" + b"x" * 100_000,
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "chunk that lies": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx",
    "path out of the tree": b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad percent": b"GET /%zz%00%ff.flv HTTP/1.1\r\nHost: x\r\n\r\n",
    "name with slashes": b"GET /%2e%2e%2flive.flv HTTP/1.1\r\nHost: x\r\n\r\n",
    "name too long": b"GET /" + b"n" * 3000 + b".flv HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "pipelined": b"GET /json_x.js HTTP/1.1\r\nHost: x\r\n\r\n" * 2000,
    "numbers out of range": b"GET /hls/live/99999999999999999999_1/1_2.ts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "selector of a mile": b"GET /live.flv?video="
    + b"!|1," * 10_000
    + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}
