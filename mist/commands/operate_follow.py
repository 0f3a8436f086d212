"""Following the log of a running server: the websocket `/ws` over the server's own socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mist.errors import TransportError


def follow(path: Path) -> Iterator[list[Any]]:
    """Yield the rows of the log as they come, until the server ends. Raises TransportError."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import CloseConnection, Ping, RejectConnection, Request, TextMessage

    engine = WSConnection(ConnectionType.CLIENT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
            sock.sendall(engine.send(Request(host="localhost", target="/ws?logs=0")))
            text = ""
            while True:
                data = sock.recv(65536)
                engine.receive_data(data or None)
                for event in engine.events():
                    if isinstance(event, TextMessage):
                        text += event.data
                        if event.message_finished:
                            frame, text = json.loads(text), ""
                            if frame[0] == "log":
                                yield frame[1]
                    elif isinstance(event, Ping):
                        sock.sendall(engine.send(event.response()))
                    elif isinstance(event, CloseConnection | RejectConnection):
                        return
        except OSError as error:
            raise TransportError(f"the server does not answer at {path}: {error}") from None
