"""Small Matroska files, put together element by element."""

from __future__ import annotations

from collections.abc import Sequence

from mist.core.ebml import (
    UNKNOWN_SIZE,
    element,
    element_id,
    element_size,
    float_element,
    text_element,
    unsigned_element,
)
from mist.core.muxer import Muxer
from mist.core.packet import Packet
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo

VP8_TRACK = TrackInfo(VIDEO, "VP8", width=64, height=48, track_id=1)
MP3_TRACK = TrackInfo(AUDIO, "MP3", sample_rate_hz=48000, channels=2, track_id=2)
VP8_KEY = bytes.fromhex("100000 9d012a 40003000 00")  # 64 x 48
VP8_FRAME = b"\x11\x00\x00<vp8>"
MP3_FRAME = bytes.fromhex("fffb9464") + b"<mp3>"  # 128 kbit/s, 48 kHz: 1152 samples, 24 ms


def ebml_header(doc_type: str = "matroska") -> bytes:
    return element(0x1A45DFA3, text_element(0x4282, doc_type) + unsigned_element(0x4287, 4))


def info(scale_ns: int = 1_000_000, more: bytes = b"") -> bytes:
    return element(0x1549A966, unsigned_element(0x2AD7B1, scale_ns) + more)


def track(number: int, codec: str, kind: int, more: bytes = b"", private: bytes = b"", language: str = "und") -> bytes:
    """Return a TrackEntry. kind: 1 video, 2 audio, 17 subtitles."""
    content = unsigned_element(0xD7, number) + unsigned_element(0x83, kind) + text_element(0x86, codec)
    content += text_element(0x22B59C, language) if language else b""
    return element(0xAE, content + (element(0x63A2, private) if private else b"") + more)


def video(width: int = 64, height: int = 48) -> bytes:
    return element(0xE0, unsigned_element(0xB0, width) + unsigned_element(0xBA, height))


def audio(rate_hz: float = 48000, channels: int = 2, bits: int = 0) -> bytes:
    content = float_element(0xB5, rate_hz) + unsigned_element(0x9F, channels)
    return element(0xE1, content + (unsigned_element(0x6264, bits) if bits else b""))


def tracks(*entries: bytes) -> bytes:
    return element(0x1654AE6B, b"".join(entries))


def block(number: int, relative: int, payload: bytes, *, key: bool = True, lacing: int = 0) -> bytes:
    """Return a block's content. lacing: 0, 1 Xiph, 2 fixed, 3 EBML; payload is then count, sizes and frames."""
    return (
        bytes((0x80 | number,)) + relative.to_bytes(2, "big", signed=True) + bytes((key << 7 | lacing << 1,)) + payload
    )


def simple(number: int, relative: int, payload: bytes, *, key: bool = True, lacing: int = 0) -> bytes:
    return element(0xA3, block(number, relative, payload, key=key, lacing=lacing))


def group(content: bytes, *, duration: int | None = None, references: Sequence[int] = (), more: bytes = b"") -> bytes:
    """Return a BlockGroup around a block's content."""
    made = element(0xA1, content)
    if duration is not None:
        made += unsigned_element(0x9B, duration)
    for reference in references:
        made += element(0xFB, reference.to_bytes(2, "big", signed=True))
    return element(0xA0, made + more)


def cluster(time: int, *blocks: bytes, known: bool = True) -> bytes:
    content = unsigned_element(0xE7, time) + b"".join(blocks)
    return element_id(0x1F43B675) + (element_size(len(content)) if known else UNKNOWN_SIZE) + content


def segment(*parts: bytes, known: bool = True) -> bytes:
    content = b"".join(parts)
    return element_id(0x18538067) + (element_size(len(content)) if known else UNKNOWN_SIZE) + content


def plain_file(*clusters: bytes, known: bool = True, scale_ns: int = 1_000_000) -> bytes:
    """Return a file of VP8 as track 1 and MP3 as track 2."""
    entries = tracks(track(1, "V_VP8", 1, video()), track(2, "A_MPEG/L3", 2, audio()))
    return ebml_header() + segment(info(scale_ns), entries, *clusters, known=known)


def mux_file(engine: Muxer, packets: Sequence[Packet]) -> bytes:
    """Return the whole file that a muxer with `finish` and `patches` makes."""
    data = bytearray(engine.header(packets[0].dts_us if packets else 0))
    for packet in packets:
        engine.write(packet)
    data += engine.take_output()
    engine.finish()  # type: ignore[attr-defined]
    data += engine.take_output()
    for position, patch in engine.patches():  # type: ignore[attr-defined]
        data[position : position + len(patch)] = patch
    return bytes(data)
