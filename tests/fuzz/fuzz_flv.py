"""Fuzz target: FLV streams, and audio and video tag bodies as RTMP messages carry them."""

from __future__ import annotations

from mist.core.flv import parse_audio_body, parse_video_body
from mist.errors import RemoteProtocolError
from mist.formats.flv import FlvDemuxer
from mist.formats.rtmp.media import MediaEvent, TrackAssembler


def fuzz(data: bytes) -> None:
    """Demux it as a stream, whole and in pieces, which must agree; parse it as bodies."""
    whole = _demux(data, len(data) or 1)
    if whole is not None and whole != _demux(data, max(1, len(data) // 7)):
        raise RuntimeError("pieces give other events")
    for parse in (parse_audio_body, parse_video_body):
        try:
            parts = parse(data)
        except RemoteProtocolError:
            continue
        if sum(len(part.payload) for part in parts) > len(data):
            raise RuntimeError("more payload than there are bytes")
    assembler = TrackAssembler()
    try:
        for at in range(0, len(data), 64):
            assembler.feed(8 + at // 64 % 2, at, data[at : at + 64])
    except RemoteProtocolError:
        return


def _demux(data: bytes, step: int) -> list[MediaEvent] | None:
    demuxer = FlvDemuxer()
    events: list[MediaEvent] = []
    try:
        for at in range(0, len(data), step):
            events += demuxer.feed(data[at : at + step])
        events += demuxer.end_of_input()
    except RemoteProtocolError:
        return None
    return events
