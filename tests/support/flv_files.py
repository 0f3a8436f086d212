"""FLV files made of packets given one by one, in any order in which a muxer may have put them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mist.core.flv import FlvMuxer
from mist.core.packet import Packet
from mist.formats.h264 import build_avcc
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo

SPS = bytes.fromhex("6764000cacd941419f9f011000000300100000030320f142996001")
PPS = bytes.fromhex("68ef8fcb")
VIDEO_TRACK = TrackInfo(VIDEO, H264, build_avcc([SPS], [PPS]), track_id=1)
AUDIO_TRACK = TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=2, sample_rate_hz=48000, channels=2)
FRAME_MS = 40
AUDIO_MS = 20


def video(number: int, gop: int = 25, *, size: int = 200, shift_ms: int = 0) -> Packet:
    """Return frame `number` of 25 a second, of track 0."""
    nal = b"\x65" if number % gop == 0 else b"\x41"
    body = nal + number.to_bytes(4, "big") * (size // 4)
    return Packet(0, (number * FRAME_MS + shift_ms) * 1000, 0, number % gop == 0, len(body).to_bytes(4, "big") + body)


def audio(number: int, *, track: int = 1, shift_ms: int = 0) -> Packet:
    """Return audio frame `number` of 50 a second."""
    return Packet(track, (number * AUDIO_MS + shift_ms) * 1000, 0, True, b"\x21" + number.to_bytes(4, "big") * 10)


def interleaved(seconds: float, gop: int = 25, *, audio_lead_ms: int = 0) -> list[Packet]:
    """Return frames and sound in the order of a file. audio_lead_ms: how much earlier in the file sound comes than pictures."""
    frames = [(number * FRAME_MS, video(number, gop)) for number in range(round(seconds * 25))]
    sound = [(number * AUDIO_MS - audio_lead_ms, audio(number)) for number in range(round(seconds * 50))]
    return [packet for _, packet in sorted([*frames, *sound], key=lambda pair: pair[0])]


def flv_file(packets: Iterable[Packet], tracks: Sequence[TrackInfo] = (VIDEO_TRACK, AUDIO_TRACK)) -> bytes:
    """Return the bytes of a file with these packets in this order."""
    muxer = FlvMuxer(list(tracks))
    head = muxer.header()
    for packet in packets:
        muxer.write(packet)
    return head + muxer.take_output()


def by_track(packets: Iterable[Packet]) -> dict[int, list[Packet]]:
    """Return the packets of each track, in order."""
    found: dict[int, list[Packet]] = {}
    for packet in packets:
        found.setdefault(packet.track, []).append(packet)
    return found
