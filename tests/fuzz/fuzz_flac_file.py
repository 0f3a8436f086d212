"""Fuzz target: a FLAC file of any kind, read whole and in pieces, and written again."""

from __future__ import annotations

import itertools

from mist.core.demuxer import demux
from mist.core.flac_frames import crc16
from mist.errors import RemoteProtocolError
from mist.formats import flac_file
from tests.support.demuxing import demux_pieces, mux, patched


def fuzz(data: bytes) -> None:
    """Demux data; raises RuntimeError where pieces give other frames, a frame is damaged, or our own file is not read back."""
    demuxer = flac_file.make_demuxer()
    try:
        packets = demux(demuxer, data)
    except RemoteProtocolError:
        return
    if demux_pieces(flac_file.make_demuxer(), data, 1 + len(data) // 50) != packets:
        raise RuntimeError("pieces give other packets")
    if any(crc16(packet.payload) for packet in packets):
        raise RuntimeError("a damaged frame")
    if any(after.dts_us <= before.dts_us for before, after in itertools.pairwise(packets)):
        raise RuntimeError("times do not rise")
    muxer = flac_file.make_muxer(demuxer.tracks)
    output = mux(muxer, packets)
    for file in (output, patched(output, muxer.patches())):
        found = demux(flac_file.make_demuxer(), file)
        if [packet.payload for packet in found] != [packet.payload for packet in packets]:
            raise RuntimeError("our own file is not read back")
