"""An RTMP server that asks for user and password as Adobe's Flash Media Server did: ffmpeg and others know how to answer."""

from __future__ import annotations

import os
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from typing import Any
from urllib.parse import parse_qsl

from mist.core.rtmp_chunks import ChunkReader, Message
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.handshake import ServerHandshake

USER, PASSWORD = "operator", "secret word"
SALT, CHALLENGE, OPAQUE = "PQHo4Q==", "8ACAAA==", "rA+cAA=="
MOVES_AFTER = 60
REJECT = "[ AccessManager.Reject ] : [ "


def refusal(app: str) -> str:
    """Return why a connection to an application is refused, "" where it is not."""
    given = dict(parse_qsl(app.partition("?")[2].replace("+", "%2B")))
    if given.get("authmod") != "adobe":
        return f"{REJECT}code=403 need auth; authmod=adobe ] : "
    if given.get("user") != USER:
        return f"{REJECT}authmod=adobe ] : ?reason=nosuchuser&opaque={OPAQUE}"
    if "response" not in given:
        return (
            f"{REJECT}authmod=adobe ] : ?reason=needauth&user={USER}&salt={SALT}&challenge={CHALLENGE}&opaque={OPAQUE}"
        )
    first = b64encode(md5(f"{USER}{SALT}{PASSWORD}".encode()).digest()).decode()
    wanted = b64encode(md5(f"{first}{OPAQUE}{given['challenge']}".encode()).digest()).decode()
    return "" if given["response"] == wanted else f"{REJECT}authmod=adobe ] : ?reason=authfailed&opaque={OPAQUE}"


class AdobeServer:
    """Takes one connection at a time. applications: the names that were asked for. media: how many messages of it came.

    open_to_all: nobody is asked who they are. moves_to: URL that a publisher is told to connect to after MOVES_AFTER messages.
    """

    def __init__(self, *, open_to_all: bool = False, moves_to: str = "") -> None:
        self._open = open_to_all
        self._moves_to = moves_to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.applications: list[str] = []
        self.media = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(20)
                try:
                    self._talk(sock)
                except (OSError, TimeoutError):
                    continue

    def _talk(self, sock: socket.socket) -> None:
        handshake, reader, send = ServerHandshake(os.urandom), ChunkReader(), m.MessageSender()
        while data := sock.recv(65536):
            if not handshake.done:
                data = handshake.feed(data)
                sock.sendall(handshake.take_output())
            for message in reader.feed(data) if data else []:
                if not self._handle(message, send):
                    sock.sendall(send.writer.take_output())
                    return
            sock.sendall(send.writer.take_output())

    def _handle(self, message: Message, send: m.MessageSender) -> bool:
        self.media += message.type_id in (m.AUDIO, m.VIDEO)
        if self._moves_to and self.media == MOVES_AFTER:
            info = {"level": "status", "code": "NetConnection.Connect.ReconnectRequest", "tcUrl": self._moves_to}
            send.command("onStatus", 0.0, None, info)
        if message.type_id != m.COMMAND_AMF0:
            return True
        values: list[Any] = m.parse_values(message)
        if values[0] == "connect":
            self.applications.append(values[2]["app"])
            why = "" if self._open else refusal(values[2]["app"])
            code = "NetConnection.Connect.Rejected" if why else "NetConnection.Connect.Success"
            status = {"level": "error" if why else "status", "code": code, "description": why}
            send.command("_error" if why else "_result", values[1], None, status)
            return not why
        if values[0] == "createStream":
            send.command("_result", values[1], None, 1.0)
        elif values[0] == "publish":
            send.command("onStatus", 0.0, None, {"level": "status", "code": "NetStream.Publish.Start"}, stream_id=1)
        return True


@contextmanager
def adobe_server(*, open_to_all: bool = False, moves_to: str = "") -> Iterator[AdobeServer]:
    server = AdobeServer(open_to_all=open_to_all, moves_to=moves_to)
    try:
        yield server
    finally:
        server.close()
