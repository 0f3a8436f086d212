"""Fuzz target: FLV streams, and audio and video tag bodies as RTMP messages carry them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mist.core.demuxer import PacketList
from mist.core.flv import parse_audio_body, parse_video_body
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats import amf
from mist.formats.flv import FlvDemuxer
from mist.formats.rtmp.media import MediaEvent, TrackAssembler

SCRIPT = 18
TAG_TYPES = (8, 9, SCRIPT)
HEAD = 11


def fuzz(data: bytes) -> None:
    """Demux it as a stream, whole and in pieces, which must agree; parse it as bodies."""
    whole = _demux(data, len(data) or 1)
    if whole is not None and whole != _demux(data, max(1, len(data) // 7)):
        raise RuntimeError("pieces give other packets")
    if whole is not None and [packet.payload for packet in whole] != _assembled(data):
        raise RuntimeError("the quick way gives other packets")
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


def _demux(data: bytes, step: int) -> list[Packet] | None:
    demuxer, packets = FlvDemuxer(), PacketList()
    demuxer.attach(packets)
    try:
        for at in range(0, len(data), step):
            demuxer.feed(data[at : at + step])
        demuxer.feed(b"")
    except RemoteProtocolError:
        return None
    return packets.take()


def _assembled(data: bytes) -> list[bytes]:
    """Return the payloads that the engine for publishers makes of the same tags."""
    assembler = TrackAssembler()
    events: list[MediaEvent] = []
    for kind, time_ms, body in _tags(data):
        if kind == SCRIPT:
            events += assembler.feed_data(_values(body), time_ms)
        else:
            events += assembler.feed(kind, time_ms, body)
    events += assembler.release_data()
    return [event.payload for event in events if isinstance(event, Packet)]


def _tags(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, time and body of the tags of a file, passing over what is none."""
    at = int.from_bytes(data[5:9], "big") + 4
    while at + HEAD <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        if data[at] not in TAG_TYPES:
            at += 1
            while at + HEAD <= len(data) and (
                data[at] not in TAG_TYPES or not any(data[at + 1 : at + 4]) or any(data[at + 8 : at + 11])
            ):
                at += 1
        elif at + HEAD + size > len(data):
            return
        else:
            time_ms = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
            yield data[at], time_ms, data[at + HEAD : at + HEAD + size]
            at += HEAD + size + 4


def _values(body: bytes) -> list[Any]:
    try:
        return amf.decode_all(body)
    except RemoteProtocolError:
        return []
