"""RTMP clients of the benches, on blocking sockets."""

from __future__ import annotations

import os
import socket
import time

from mist.formats.rtmp.client import ClientSession, State

READ_BYTES = 1 << 16


def started(
    port: int, stream: str, *, publish: bool, app: str = "live"
) -> tuple[socket.socket, ClientSession, list[object]]:
    """Return a socket and a session that publishes or plays, and the events so far. Raises OSError, MistError."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = ClientSession(
        app=app,
        stream=stream,
        tc_url=f"rtmp://127.0.0.1:{port}/{app}",
        publish=publish,
        entropy=os.urandom,
        now=time.monotonic(),
    )
    events: list[object] = []
    while session.state is not State.STARTED:
        sock.sendall(session.take_output())
        data = sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        events += session.feed(data, time.monotonic())
    return sock, session, events


def publishing_session(port: int, stream: str) -> tuple[socket.socket, ClientSession]:
    """Return a socket and a session that is publishing."""
    sock, session, _ = started(port, stream, publish=True)
    return sock, session
