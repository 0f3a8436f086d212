"""Fuzz target: what an RTMP server hears after the handshake, and in its place."""

from __future__ import annotations

from mist.errors import RemoteProtocolError
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.rtmp.handshake import ClientHandshake
from mist.formats.rtmp.media import TrackAssembler
from mist.formats.rtmp.server import ServerSession

STEP = 997


def fuzz(data: bytes) -> None:
    """Be a server and a client to it; every request is granted, and the session handed over after each piece."""
    for talk in (_serve, _ask):
        try:
            talk(data)
        except RemoteProtocolError:
            continue


def _zeros(count: int) -> bytes:
    return bytes(count)


def _serve(data: bytes) -> None:
    session = ServerSession(_zeros, 0.0)
    assembler = TrackAssembler()
    if data[:1] != b"\x03":
        hands = ClientHandshake(_zeros)
        session.feed(hands.take_output(), 0.0)
        hands.feed(session.take_output())
        session.feed(hands.take_output(), 0.0)
    for at in range(0, len(data), STEP):
        events = session.feed(data[at : at + STEP], float(at))
        while events:
            for event in events:
                _answer(session, assembler, event)
            events = session.feed(b"", float(at))
        if len(session.take_output()) > (1 << 20) + 4000 * len(data):
            raise RuntimeError("the answers are far longer than the questions")
        if data[:1] != b"\x03":
            session = ServerSession.restore(session.export_state(), float(at))


def _answer(session: ServerSession, assembler: TrackAssembler, event: m.Event) -> None:
    if isinstance(event, m.PublishRequested):
        session.send_publish_start(event.name, 0.0)
    elif isinstance(event, m.PlayRequested):
        session.send_play_start(event.name, event.reset, 0.0)
    elif isinstance(event, m.Media):
        assembler.feed(event.type_id, event.time_ms, event.payload)
    elif isinstance(event, m.Data):
        assembler.feed_data((event.name, *event.values), event.time_ms)


def _ask(data: bytes) -> None:
    session = ClientSession(app="a", stream="b", tc_url="c", publish=True, entropy=_zeros, now=0.0)
    server = ServerSession(_zeros, 0.0)
    server.feed(session.take_output(), 0.0)
    session.feed(server.take_output(), 0.0)
    for at in range(0, len(data), STEP):
        session.feed(data[at : at + STEP], 0.0)
