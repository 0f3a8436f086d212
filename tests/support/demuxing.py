"""Demuxers driven in every way: in pieces of any size, cut anywhere, from a place in the middle."""

from __future__ import annotations

from collections.abc import Callable

from mist.core.demuxer import Demuxer, PacketList
from mist.core.muxer import Muxer
from mist.core.packet import Packet


def demux_pieces(demuxer: Demuxer, data: bytes, step: int) -> list[Packet]:
    """Return the packets of an input that arrives in pieces of step bytes."""
    packets = PacketList()
    demuxer.attach(packets)
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        demuxer.feed(data[position : position + min(count, step)])
    return packets.take()


def demux_cut(demuxer: Demuxer, data: bytes, cut: int) -> list[Packet]:
    """Return the packets of an input that arrives in two pieces."""
    packets = PacketList()
    demuxer.attach(packets)
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        end = cut if position < cut else len(data)
        demuxer.feed(data[position : min(end, position + count)])
    return packets.take()


def packet_positions(demuxer: Demuxer, data: bytes) -> list[tuple[Packet, int]]:
    """Return all packets with the position at which reading resumes for each. Feeds byte by byte, so that a packet's is the newest."""
    found: list[tuple[Packet, int]] = []
    packets = PacketList()
    demuxer.attach(packets)
    while (wanted := demuxer.want()) is not None:
        position, _ = wanted
        demuxer.feed(data[position : position + 1])
        found += [(packet, demuxer.position) for packet in packets.take()]
    return found


def mux(muxer: Muxer, packets: list[Packet], finish: bool = True) -> bytes:
    """Return header and output of a muxer for these packets."""
    data = muxer.header(packets[0].dts_us if packets else 0)
    for packet in packets:
        muxer.write(packet)
    if finish:
        muxer.finish()  # type: ignore[attr-defined]
    return data + muxer.take_output()


def patched(data: bytes, patches: list[tuple[int, bytes]]) -> bytes:
    """Return a file after its patches."""
    whole = bytearray(data)
    for position, piece in patches:
        whole[position : position + len(piece)] = piece
    assert len(whole) == len(data)
    return bytes(whole)


def same_bytes_from_every_state(make: Callable[[], Muxer], packets: list[Packet]) -> None:
    """Check that a second muxer that takes over before each packet makes the same bytes."""
    muxer, other = make(), make()
    for packet in packets:
        state = muxer.state()
        assert len(state) <= 128
        muxer.write(packet)
        made = muxer.take_output()
        other = make()
        other.restore(state)
        other.write(packet)
        assert other.take_output() == made
