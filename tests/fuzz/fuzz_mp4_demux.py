"""Fuzz target: hostile MP4 files, read from front to back, by jumps, by an index and after seeking."""

from __future__ import annotations

import contextlib

from mist.core.demuxer import PacketList
from mist.core.mp4_demux import Mp4Demuxer
from mist.core.muxer import Muxer
from mist.errors import RemoteProtocolError
from mist.formats.mp4_movie import make_demuxer

MAX_READS = 3000
CORPORA = ("mp4_demux",)


def fuzz(data: bytes) -> None:
    """Read data as a file; returns or raises RemoteProtocolError."""
    demuxer = make_demuxer()
    packets = PacketList()
    demuxer.attach(packets)
    drive(demuxer, data)
    for packet in packets.take():
        if not packet.payload:
            raise RuntimeError("a packet without payload")
    if not demuxer.ready:
        return
    demuxer.keys(0, 100_000)
    with contextlib.suppress(RemoteProtocolError):
        drive(demuxer.share(), data, seek_us=len(data) * 1000)
    with contextlib.suppress(RemoteProtocolError):
        drive(demuxer.share(), data, index=True)


def drive(demuxer: Mp4Demuxer, data: bytes, *, seek_us: int | None = None, index: bool = False) -> None:
    """Feed what is wanted; a sink that does nothing takes the packets where none is attached."""
    if seek_us is not None:
        demuxer.attach(PacketList())
        demuxer.seek(seek_us, 0)
    if index:
        demuxer.index_into(Sink())
    for _ in range(MAX_READS):
        wanted = demuxer.want()
        if wanted is None:
            return
        position, count = wanted
        if position < 0 or count <= 0:
            raise RuntimeError(f"{count} bytes wanted at {position}")
        demuxer.feed(data[position : position + count])
    raise RuntimeError("the demuxer wants and wants")


Sink: type[Muxer] = PacketList
