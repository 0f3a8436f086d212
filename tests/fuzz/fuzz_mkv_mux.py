"""Fuzz target: payloads and times of any kind in the Matroska muxer.

The first bytes choose tracks and times, the rest becomes packets. Whatever they hold, a second muxer that goes on from the first
one's state makes the same bytes, and our demuxer finds the payloads in them again, and in a file with an index.
"""

from __future__ import annotations

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.errors import UnsupportedError
from mist.formats.matroska.reading import demuxer
from mist.formats.matroska.writing import muxer
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo

OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
TRACKS = (
    TrackInfo(VIDEO, "VP8", width=64, height=64),
    TrackInfo(VIDEO, "MPEG2", width=64, height=64, frame_rate_mhz=25000),
    TrackInfo(AUDIO, "opus", OPUS_HEAD, sample_rate_hz=48000, channels=2),
    TrackInfo(AUDIO, "MP3", sample_rate_hz=44100, channels=2),
    TrackInfo(META, "subtitle", language="nld"),
    TrackInfo(AUDIO, "PCM", sample_rate_hz=48000, channels=1, sample_bits=16),
)
MAX_PACKETS = 64


def fuzz(data: bytes) -> None:
    """Mux packets made of data; raises RuntimeError where the output is wrong."""
    if len(data) < 4:
        return
    tracks = [track for place, track in enumerate(TRACKS) if data[0] & 1 << place]
    if not tracks:
        return
    engine, other, recorder = muxer(tracks), muxer(tracks), muxer(tracks, indexed=True)
    output, recorded = b"", b""
    kept = []
    for packet in _packets(data, len(tracks)):
        state = engine.state()
        try:
            engine.write(packet)
        except UnsupportedError:
            continue
        made = engine.take_output()
        other.restore(state)
        other.write(packet)
        if other.take_output() != made:
            raise RuntimeError("equal states, different bytes")
        recorder.write(packet)
        recorded += recorder.take_output()
        if made:
            kept.append((packet.track, packet.payload))
        output += made
    recorder.finish()
    file = bytearray(recorder.header() + recorded + recorder.take_output())
    for position, patch in recorder.patches():
        if position + len(patch) > len(file):
            raise RuntimeError("a patch behind the end")
        file[position : position + len(patch)] = patch
    for whole in (bytes(file), engine.header() + output):
        _check(whole, tracks, kept)


def _check(file: bytes, tracks: list[TrackInfo], kept: list[tuple[int, bytes]]) -> None:
    found = demux(demuxer(), file)
    for place in range(len(tracks)):
        wanted = [payload for track, payload in kept if track == place and payload]
        # An empty one takes a text away.
        got = [packet.payload for packet in found if packet.track == place and packet.payload]
        if got != wanted:
            raise RuntimeError(f"other payloads in track {place}")


def _packets(data: bytes, tracks: int) -> list[Packet]:
    """Cut data into packets: each begins with a size, its flags and track, and the step of its time."""
    packets: list[Packet] = []
    place, time_us = 4, int.from_bytes(data[1:3], "big", signed=True) * 1000
    while place + 3 <= len(data) and len(packets) < MAX_PACKETS:
        size, flags, step = data[place], data[place + 1], data[place + 2]
        payload = data[place + 3 : place + 3 + size]
        place += 3 + size
        time_us += (step - 16) * 997 << (data[3] & 15)
        packets.append(Packet((flags >> 1) % tracks, time_us, (flags >> 4) * 10_000, bool(flags & 1), payload))
    return packets
