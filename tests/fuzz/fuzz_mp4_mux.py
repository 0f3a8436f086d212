"""Fuzz target: hostile packets and set-up records through the fragment muxer."""

from __future__ import annotations

import struct

from mist.core.mp4_mux import Mp4FragmentMuxer
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats.mp4_boxes import LiveMovie
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from tests.support.mp4_boxes_reader import boxes, fragments

_CODECS = ("H264", "HEVC", "AV1", "VP9", "VP8", "AAC", "MP3", "opus", "FLAC", "AC3", "EAC-3")
_HEAD = struct.Struct(">BBqqB")


def fuzz(data: bytes) -> None:
    """Read data as a codec, a set-up record and packets; what comes out is well-formed, and holds every payload."""
    if len(data) < 4:
        return
    codec = _CODECS[data[0] % len(_CODECS)]
    init_data = data[4 : 4 + data[1]]
    kind = VIDEO if data[0] % len(_CODECS) < 5 else AUDIO
    track = TrackInfo(
        kind, codec, init_data, sample_rate_hz=data[2] * 1000, channels=data[3] & 15, frame_rate_mhz=data[3] * 997
    )
    try:
        muxer = Mp4FragmentMuxer([track], LiveMovie())
    except RemoteProtocolError:
        return
    list(boxes(muxer.header()))
    at = 4 + len(init_data)
    payloads = []
    while at + _HEAD.size <= len(data):
        flags, size, dts_us, offset_us, _spare = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        at += _HEAD.size + size
        if payload:
            payloads.append(payload)
        muxer.write(Packet(0, dts_us, offset_us, bool(flags & 1), payload))
        if flags & 2:
            muxer.restore(muxer.state())
    found = fragments(muxer.take_output())
    if [fragment.payload for fragment in found] != payloads or len(muxer.state()) > 128:
        raise RuntimeError("the fragments do not hold the packets")
    list(boxes(muxer.header()))
