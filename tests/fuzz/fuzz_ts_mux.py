"""Fuzz target: payloads and set-up bytes of any kind in the transport stream muxer.

The first bytes choose tracks, the rest becomes set-up bytes and packets. Whatever they hold, the output is a correct transport
stream, and a second muxer that goes on from the first one's state makes the same bytes.
"""

from __future__ import annotations

from mist.core.packet import Packet
from mist.core.ts_mux import TsMuxer
from mist.errors import UnsupportedError
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from tests.support.ts_check import check_ts

CODECS = (
    (VIDEO, "H264"), (VIDEO, "HEVC"), (VIDEO, "AV1"), (AUDIO, "AAC"),
    (AUDIO, "opus"), (AUDIO, "AC3"), (AUDIO, "EAC-3"), (AUDIO, "MP3"),
)  # fmt: skip
MAX_PACKETS = 64


def fuzz(data: bytes) -> None:
    """Mux packets made of data; raises RuntimeError where the output is not a transport stream."""
    if len(data) < 4:
        return
    setup_size = data[1]
    setup = data[4 : 4 + setup_size]
    tracks = [
        TrackInfo(kind, codec, setup, sample_rate_hz=44100, channels=2)
        for place, (kind, codec) in enumerate(CODECS)
        if data[0] & 1 << place
    ]
    name = setup[:40].decode("latin-1")
    try:
        muxer, other = TsMuxer(tracks, name), TsMuxer(tracks, name)
        segment = TsMuxer(tracks, name, repeat_tables=False)
    except UnsupportedError:
        return
    output = b""
    for packet in _packets(data[4 + setup_size :], len(tracks), data[2]):
        state = muxer.state()
        muxer.write(packet)
        made = muxer.take_output()
        other.restore(state)
        other.write(packet)
        if other.take_output() != made:
            raise RuntimeError("equal states, different bytes")
        if len(made) > 4096 + 4 * (len(packet.payload) + setup_size) * 188 // 184:
            raise RuntimeError(f"{len(packet.payload)} bytes became {len(made)}")
        output += made
        segment.write(packet)
    segment.pad_counters()
    for media in (output, segment.take_output()):
        _check(media)


def _check(output: bytes) -> None:
    if output:
        errors = check_ts(output, pcr_gaps=False).errors
        if errors:
            raise RuntimeError(f"{len(errors)} errors, first: {errors[0]}")


def _packets(data: bytes, tracks: int, seed: int) -> list[Packet]:
    """Cut data into packets: each begins with a size, its flags and track."""
    packets: list[Packet] = []
    place = 0
    while place + 2 <= len(data) and len(packets) < MAX_PACKETS and tracks:
        size, flags = data[place] * (1 + seed % 7), data[place + 1]
        payload = data[place + 2 : place + 2 + size]
        place += 2 + size
        offset_us = (flags >> 4) * 10_000
        packets.append(Packet((flags >> 1) % tracks, len(packets) * 20_000, offset_us, bool(flags & 1), payload))
    return packets
