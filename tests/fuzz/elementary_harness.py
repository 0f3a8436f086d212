"""What the fuzz targets of elementary streams share: pieces of any size must give what the whole gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from mist.core.demuxer import Demuxer
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats.tracks import TrackInfo
from tests.support.elementary import feed_pieces

# A NAL unit's start code of three bytes becomes a length of four, and ADTS headers go: payload grows by little.
GROWTH = 2

Seen = tuple[list[TrackInfo], list[Packet]]


def demux_or_refuse(make: Callable[[], Demuxer], data: bytes, step: int) -> Seen | None:
    """Return tracks and packets, or None where the input is refused."""
    demuxer = make()
    try:
        packets = feed_pieces(demuxer, data, step)
    except RemoteProtocolError:
        return None
    return demuxer.tracks, packets


def check_pieces(make: Callable[[], Demuxer], data: bytes) -> Seen | None:
    """Demux whole and in pieces. Raises RuntimeError where the two differ, or the packets make no sense."""
    whole = demux_or_refuse(make, data, max(1, len(data)))
    for step in (max(1, len(data) // 7), 13):
        if demux_or_refuse(make, data, step) != whole:
            raise RuntimeError(f"pieces of {step} bytes give something else")
    if whole is not None:
        packets = whole[1]
        if sum(len(packet.payload) for packet in packets) > len(data) * GROWTH:
            raise RuntimeError("more payload than there are bytes")
        if any(b.dts_us < a.dts_us for a, b in pairwise(packets)):
            raise RuntimeError("decode times go back")
        if any(packet.offset_us < 0 for packet in packets):
            raise RuntimeError("a packet is presented before it is decoded")
    return whole
