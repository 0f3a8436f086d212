"""Fuzz target: an Ogg stream of any kind, read whole and in pieces, and written again."""

from __future__ import annotations

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.errors import MistError, RemoteProtocolError
from mist.formats import ogg
from mist.formats.tracks import AUDIO
from tests.support.demuxing import demux_pieces, mux


def fuzz(data: bytes) -> None:
    """Demux data; raises RuntimeError where pieces give other packets, times do not rise, or our own stream is not read back."""
    demuxer = ogg.make_demuxer()
    try:
        packets = demux(demuxer, data)
    except RemoteProtocolError as error:
        _expect_error(data, error)
        return
    if demux_pieces(ogg.make_demuxer(), data, 1 + len(data) // 50) != packets:
        raise RuntimeError("pieces give other packets")
    _check_times(packets)
    if sum(len(packet.payload) for packet in packets) > len(data):
        raise RuntimeError("more media than input")
    for page_us in (0, 100_000):
        output = mux(ogg.make_muxer(demuxer.tracks, page_us), packets)
        again = ogg.make_demuxer()
        found = demux(again, output)
        _check_times(found)
        video_first = sorted(range(len(demuxer.tracks)), key=lambda track: demuxer.tracks[track].type == AUDIO)
        for place, track in enumerate(video_first):
            before = [packet.payload for packet in packets if packet.track == track]
            if before and [packet.payload for packet in found if packet.track == place] != before:
                raise RuntimeError("our own stream is not read back")


def _expect_error(data: bytes, error: RemoteProtocolError) -> None:
    try:
        demux_pieces(ogg.make_demuxer(), data, 1 + len(data) // 50)
    except MistError as other:
        if type(other) is type(error):
            return
    raise RuntimeError("an error only in one piece") from error


def _check_times(packets: list[Packet]) -> None:
    last: dict[int, int] = {}
    for packet in packets:
        if packet.dts_us <= last.get(packet.track, packet.dts_us - 1):
            raise RuntimeError("times do not rise")
        last[packet.track] = packet.dts_us
