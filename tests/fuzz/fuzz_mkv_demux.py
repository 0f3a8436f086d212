"""Fuzz target: Matroska files. Whole and in pieces they give the same packets, and reading elsewhere gives packets or an error."""

from __future__ import annotations

from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats.matroska.reading import demuxer

MAX_GROWTH = 300  # a few bytes of zlib or lacing become many, but not any number


def fuzz(data: bytes) -> None:
    """Demux it whole and in pieces, which must agree, and once more from somewhere in it."""
    whole = _demux(data, len(data) or 1)
    if whole is None:
        return
    if whole != _demux(data, max(1, len(data) // 7)):
        raise RuntimeError("pieces give other packets")
    if sum(len(packet.payload) for packet in whole) > MAX_GROWTH * len(data) + (1 << 20):
        raise RuntimeError("more payload than there can be")
    last: dict[int, int] = {}
    for packet in whole:
        if packet.dts_us <= last.get(packet.track, packet.dts_us - 1):
            raise RuntimeError("decode times that do not rise")
        last[packet.track] = packet.dts_us


def _demux(data: bytes, step: int) -> list[Packet] | None:
    engine, packets = demuxer(), PacketList()
    engine.attach(packets)
    try:
        _feed(engine, data, step)
    except RemoteProtocolError:
        return None
    found = packets.take()
    engine.seek(0, len(data) // 3)
    try:
        _feed(engine, data, step)
    except RemoteProtocolError:
        return found
    return found


def _feed(engine: object, data: bytes, step: int) -> None:
    from mist.core.mkv_demux import MatroskaDemuxer

    assert isinstance(engine, MatroskaDemuxer)
    for _ in range(2 * len(data) + 16):
        wanted = engine.want()
        if wanted is None:
            return
        position = wanted[0]
        engine.feed(data[position : position + step])
    raise RuntimeError("the demuxer does not come to an end")
