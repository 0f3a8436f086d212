"""Fuzz target: DTSC as a file, as an index, as what a listener hears, and as what a server sends."""

from __future__ import annotations

from mist.core.demuxer import PacketList, demux
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats.dtsc import DtscDemuxer
from mist.formats.dtsc_session import ListenerSession, PlayRequested, PushRequested, ReceivingSession
from mist.formats.dtsh import parse_dtsh, serialize_dtsh

STEP = 997


def fuzz(data: bytes) -> None:
    """Demux it whole and in pieces, which must agree; read it as an index, which must come out again; talk with it."""
    whole = _demux(data, len(data) or 1)
    if whole is not None and whole != _demux(data, max(1, len(data) // 7)):
        raise RuntimeError("pieces give other packets")
    for talk in (_file, _index, _listen, _receive):
        try:
            talk(data)
        except RemoteProtocolError:
            continue


def _demux(data: bytes, step: int) -> list[Packet] | None:
    demuxer, packets = DtscDemuxer(False), PacketList()
    demuxer.attach(packets)
    try:
        for at in range(0, len(data), step):
            demuxer.feed(data[at : at + step])
        demuxer.feed(b"")
    except RemoteProtocolError:
        return None
    found = packets.take()
    if sum(len(packet.payload) for packet in found) > len(data):
        raise RuntimeError("more payload than there are bytes")
    return found


def _file(data: bytes) -> None:
    demux(DtscDemuxer(), data)


def _index(data: bytes) -> None:
    index = parse_dtsh(data)
    for track in index.tracks:
        track.parts()
    again = parse_dtsh(serialize_dtsh(index))
    if [track.part_records for track in again.tracks] != [track.part_records for track in index.tracks]:
        raise RuntimeError("the index changed")


def _listen(data: bytes) -> None:
    session = ListenerSession("", "", 0.0)
    for at in range(0, len(data), STEP):
        for event in session.feed(data[at : at + STEP], float(at)):
            if isinstance(event, PlayRequested):
                session.send_play_start(True, 0.0)
            elif isinstance(event, PushRequested):
                ReceivingSession.restore(session.export_state()).feed(data[at + STEP :], 0.0)
        if len(session.take_output()) > 100 + 10 * len(data):
            raise RuntimeError("the answers are far longer than the questions")


def _receive(data: bytes) -> None:
    session = ReceivingSession.play("a", "b", {})
    session.demuxer.attach(PacketList())
    for at in range(0, len(data), STEP):
        session.feed(data[at : at + STEP], 0.0)
