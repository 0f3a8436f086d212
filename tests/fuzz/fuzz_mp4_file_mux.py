"""Fuzz target: hostile packets and set-up records through the muxer of whole MP4 files and the layout."""

from __future__ import annotations

import struct

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats import mp4_file
from mist.formats.mp4_movie import make_demuxer
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo

_HEAD = struct.Struct(">BBqqB")
_KINDS = {**dict.fromkeys(("H264", "HEVC", "AV1", "VP8", "VP9", "MPEG2", "JPEG"), VIDEO), "subtitle": META}
_CODECS = sorted(mp4_file.CODECS)


def fuzz(data: bytes) -> None:
    """Read data as a codec, a set-up record and packets; the file and the layout hold every payload."""
    if len(data) < 4:
        return
    codec = _CODECS[data[0] % len(_CODECS)]
    kind = _KINDS.get(codec, AUDIO)
    track = TrackInfo(
        kind, codec, data[4 : 4 + data[1]],
        sample_rate_hz=data[2] * 1000, channels=data[3] & 15, sample_bits=(data[3] >> 4) * 8, frame_rate_mhz=data[3] * 997,
    )  # fmt: skip
    try:
        muxer, layout = mp4_file.make_muxer([track]), mp4_file.make_layout([track])
    except RemoteProtocolError:
        return
    whole = bytearray(muxer.header())
    stored = b""
    try:
        for packet in _packets(data, 4 + data[1]):
            layout.write(packet)
            muxer.write(packet)
            stored += layout.stored(0, packet.payload)
            if layout.packets % 7 == 0:
                muxer.set_tracks([track.changed(language="eng" if layout.packets % 2 else "deu")])
    except RemoteProtocolError:  # a pause that is too long
        return
    muxer.finish()
    layout.finish()
    whole += muxer.take_output()
    for position, piece in muxer.patches():
        whole[position : position + len(piece)] = piece
    if len(stored) != layout.total_bytes - layout.header_bytes or len(whole) < len(stored):
        raise RuntimeError("the file does not hold the packets")
    for made in (bytes(whole), layout.header() + stored):
        try:
            demux(make_demuxer(), made)
        except RemoteProtocolError:
            continue


def _packets(data: bytes, at: int) -> list[Packet]:
    packets = []
    while at + _HEAD.size <= len(data):
        flags, size, dts_us, offset_us, _spare = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        at += _HEAD.size + size
        packets.append(Packet(0, dts_us, offset_us, bool(flags & 1), payload))
    return packets
