"""Fuzz target: a WAV file of any kind, read whole and in pieces, and written again."""

from __future__ import annotations

from mist.core.demuxer import demux
from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats import riff
from tests.support.demuxing import demux_pieces, mux, patched


def fuzz(data: bytes) -> None:
    """Demux data; raises RuntimeError where pieces give other samples or our own file is not read back."""
    demuxer = riff.make_demuxer()
    try:
        packets = demux(demuxer, data)
    except RemoteProtocolError:
        return
    if demux_pieces(riff.make_demuxer(), data, 1 + len(data) // 50) != packets:
        raise RuntimeError("pieces give other packets")
    samples = b"".join(packet.payload for packet in packets)
    if len(samples) > len(data):
        raise RuntimeError("more samples than input")
    try:
        muxer = riff.make_muxer(demuxer.tracks)
    except UnsupportedError:
        raise RuntimeError("a format that is read and not written") from None
    output = mux(muxer, packets)
    for file in (output, patched(output, muxer.patches())):
        if (
            samples
            and b"".join(packet.payload for packet in demux(riff.make_demuxer(), file))[: len(samples)] != samples
        ):
            raise RuntimeError("our own file is not read back")
