"""Fuzz target: transport streams as they stand, and payloads of streams of every kind in packets that are right."""

from __future__ import annotations

from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats.ts import EVERY_PROGRAM, TsDemuxer
from tests.support.ts_build import PMT_PID, StreamBuilder, descriptor, pat, pes, pmt

MAX_PES_PACKETS = 64
STREAMS = (
    (0x1B, b""), (0x24, b""), (0x02, b""), (0x0F, b""), (0x11, b""), (0x03, b""), (0x81, b""), (0x87, b""), (0x82, b""),
    (0x06, descriptor(5, b"Opus") + descriptor(0x7F, b"\x80\2")), (0x06, descriptor(5, b"AV01")),
    (0x06, descriptor(5, b"JSON")), (0x06, descriptor(5, b"KLVA")), (0x06, descriptor(0x59, b"")), (0x15, b""), (0x86, b""),
)  # fmt: skip


def fuzz(data: bytes) -> None:
    """Demux it, whole and in pieces, which must agree; then as the payload of each kind of stream."""
    for program in (0, EVERY_PROGRAM):
        whole = _demux(data, len(data) or 1, program)
        if whole is not None and whole != _demux(data, max(1, len(data) // 7), program):
            raise RuntimeError("pieces give other packets")
    if len(data) < 4:
        return
    for at, (kind, descriptors) in enumerate(STREAMS):
        if (data[1] << 8 | data[2]) >> at % 16 & 1:
            _payload(data, kind, descriptors)


def _payload(data: bytes, kind: int, descriptors: bytes) -> None:
    build = StreamBuilder()
    build.add_section(0, pat({1: PMT_PID}))
    build.add_section(PMT_PID, pmt([(kind, 0x100, descriptors)]))
    size = data[0] * 8 + 1
    pieces = [data[at : at + size] for at in range(3, len(data), size)][:MAX_PES_PACKETS]
    for number, piece in enumerate(pieces):
        stamped = not piece[0] & 1
        ticks = number * 3600 + piece[0] * 1000 if stamped else None
        build.add(0x100, pes(piece, ticks, bounded=bool(data[0] & 1), aligned=bool(data[0] & 2)))
    whole = _demux(build.data, len(build.data), 0)
    if whole is None:
        raise RuntimeError("packets that are right are refused")
    if whole != _demux(build.data, 100, 0):
        raise RuntimeError("pieces give other packets")
    if sum(len(packet.payload) for packet in whole) > 4 * len(data) + 4096:
        raise RuntimeError("more payload than there are bytes")


def _demux(data: bytes, step: int, program: int) -> list[Packet] | None:
    demuxer, packets = TsDemuxer(program), PacketList()
    demuxer.attach(packets)
    try:
        for at in range(0, len(data), step):
            demuxer.feed(data[at : at + step])
        demuxer.feed(b"")
    except RemoteProtocolError:
        return None
    found = packets.take()
    for track in range(len(demuxer.tracks)):
        times = [packet.dts_us for packet in found if packet.track == track]
        if times != sorted(set(times)):
            raise RuntimeError("times that do not increase")
    return found
