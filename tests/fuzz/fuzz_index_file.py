"""Fuzz target: indexes of files on disk, and the packed times and sizes in them."""

from __future__ import annotations

from mist.core.packet_log import PacketLog, packed_log
from mist.errors import RemoteProtocolError
from mist.stream.index_file import parse_index


def fuzz(data: bytes) -> None:
    """Read it as an index, and as packed packets, which must come out again."""
    for read in (_index, _packets):
        try:
            read(data)
        except RemoteProtocolError:
            continue


def _index(data: bytes) -> None:
    parse_index(data, 1 << 20)


def _packets(data: bytes) -> None:
    log = _unpacked(data)
    if log.count * 4 > len(data):
        raise RuntimeError("more packets than there are bytes")
    again = _unpacked(log.pack())
    if log.whole and (again.count != log.count or again.pack() != log.pack()):
        raise RuntimeError("the packets changed")


def _unpacked(data: bytes) -> PacketLog:
    log = packed_log(data)
    log.unpack()
    return log
