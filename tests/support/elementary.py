"""Elementary streams made by hand, bit for bit, for tests that need what no encoder here makes; and a driver of demuxers."""

from __future__ import annotations

from dataclasses import dataclass

from mist.core.bits import BitWriter
from mist.core.demuxer import Demuxer, PacketList
from mist.core.nal import escape
from mist.core.packet import Packet
from mist.core.text_tracks import TextMuxer
from mist.formats.tracks import META, SUBTITLE, TrackInfo

START = b"\0\0\0\1"


def feed_pieces(demuxer: Demuxer, data: bytes, step: int) -> list[Packet]:
    """Demux data that arrives in pieces of so many bytes."""
    packets = PacketList()
    demuxer.attach(packets)
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        demuxer.feed(data[position : position + min(count, step)])
    return packets.take()


class PositionSink(TextMuxer):
    """A sink that notes the input position of each packet of one track."""

    def __init__(self, demuxer: Demuxer) -> None:
        super().__init__([TrackInfo(META, SUBTITLE)])
        self.demuxer = demuxer
        self.positions: list[int] = []

    def serialize(self, track: int, time_us: int, payload: bytes) -> bytes:
        """Note a packet."""
        self.positions.append(self.demuxer.position)
        return b""


def positions(demuxer: Demuxer, data: bytes) -> list[int]:
    """Demux data, and return the input position of each packet."""
    sink = PositionSink(demuxer)
    demuxer.attach(sink)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    return sink.positions


# -- audio frames


def _body(size: int, number: int) -> bytes:
    """Return payload that differs from frame to frame and holds no synchronisation word."""
    return bytes((number * 7 + place) % 97 + 16 for place in range(size))


def mpeg_frame(number: int = 0, head: str = "fffb9064", size: int = 417) -> bytes:
    """Return an MPEG audio frame: layer III, 128 kbit/s, 44.1 kHz, stereo."""
    return bytes.fromhex(head) + _body(size - 4, number)


def adts_frame(payload: bytes, *, index: int = 3, channels: int = 2, crc: bool = False, blocks: int = 1) -> bytes:
    """Return an ADTS frame of AAC-LC; its payload is what follows the header of 7 bytes."""
    size = 7 + len(payload)
    bits = BitWriter()
    bits.u(0xFFF0 | (not crc), 16)
    bits.u(1, 2)
    bits.u(index, 4)
    bits.u(0, 1)
    bits.u(channels, 3)
    bits.u(0, 4)
    bits.u(size, 13)
    bits.u(0x7FF, 11)
    bits.u(blocks - 1, 2)
    return bits.getvalue() + payload


def adts_blocks(payloads: list[bytes]) -> bytes:
    """Return one ADTS frame with several AAC frames, each followed by a CRC, and the table of their places."""
    places, body = [], b""
    for payload in payloads:
        places.append(len(body))
        body += payload + b"\xcc\xcc"
    table = b"".join(place.to_bytes(2, "big") for place in places[1:])
    return adts_frame(table + b"\xcc\xcc" + body, crc=True, blocks=len(payloads))


def ac3_frame(number: int = 0) -> bytes:
    """Return an AC-3 frame: 32 kbit/s, 48 kHz, stereo, 128 bytes."""
    return bytes.fromhex("0b77 0000 00 40 40") + _body(121, number)


def eac3_frame(number: int = 0, *, kind: int = 0, substream: int = 0, size: int = 128, mode: int = 2) -> bytes:
    """Return an E-AC-3 frame of 6 blocks at 48 kHz. kind: 0 independent, 1 dependent."""
    bits = BitWriter()
    bits.u(0x0B77, 16)
    bits.u(kind, 2)
    bits.u(substream, 3)
    bits.u(size // 2 - 1, 11)
    bits.u(0, 2)
    bits.u(3, 2)
    bits.u(mode, 3)
    bits.u(0, 1)
    bits.u(16, 5)
    bits.u(0, 19)
    return bits.getvalue() + _body(size - 8, number)


def dts_frame(number: int = 0, *, size: int = 512, sync: int = 0x7FFE8001, low_frequency: int = 0) -> bytes:
    """Return a DTS core frame: 512 samples at 48 kHz, stereo."""
    bits = BitWriter()
    bits.u(sync, 32)
    bits.u(0b1_11111_0, 7)
    bits.u(15, 7)
    bits.u(size - 1, 14)
    bits.u(2, 6)
    bits.u(13, 4)
    bits.u(15, 5)
    bits.u(0, 10)
    bits.u(low_frequency, 2)
    bits.u(0, 8)
    bits.u(6, 3)
    return bits.getvalue() + _body(size - len(bits.getvalue()), number)


def dts_extension(number: int = 0, *, size: int = 200, long: bool = False) -> bytes:
    """Return a DTS extension substream."""
    bits = BitWriter()
    bits.u(0x64582025, 32)
    bits.u(0, 8)
    bits.u(0, 2)
    bits.u(long, 1)
    bits.u(15, 12 if long else 8)
    bits.u(size - 1, 20 if long else 16)
    return bits.getvalue() + _body(size - len(bits.getvalue()), number)


# -- H.264


@dataclass(frozen=True)
class H264Shape:
    """What the parameter sets say. order: picture order count type. reorder: None leaves it out."""

    order: int = 0
    reorder: int | None = None
    frames_only: bool = True
    order_in_frame: bool = False
    rate: tuple[int, int] | None = None
    width_blocks: int = 20

    def sps(self) -> bytes:
        """Return the sequence parameter set NAL unit."""
        bits = BitWriter()
        bits.u(0x67, 8)
        bits.u(77, 8)
        bits.u(0, 8)
        bits.u(30, 8)
        bits.ue(0)
        bits.ue(0)  # frame numbers of 4 bits
        bits.ue(self.order)
        if self.order == 0:
            bits.ue(2)  # order counts of 6 bits
        elif self.order == 1:
            bits.u(0, 1)
            bits.se(-2)
            bits.se(1)
            bits.ue(1)
            bits.se(4)
        bits.ue(4)
        bits.u(0, 1)
        bits.ue(self.width_blocks - 1)
        bits.ue(11)
        bits.u(self.frames_only, 1)
        if not self.frames_only:
            bits.u(0, 1)
        bits.u(1, 1)
        bits.u(0, 1)
        self._put_vui(bits)
        bits.u(1, 1)
        return escape(bits.getvalue())

    def _put_vui(self, bits: BitWriter) -> None:
        if self.rate is None and self.reorder is None:
            bits.u(0, 1)
            return
        bits.u(1, 1)
        bits.u(0, 4)
        bits.u(self.rate is not None, 1)
        if self.rate is not None:
            bits.u(self.rate[1], 32)
            bits.u(self.rate[0] * 2, 32)
            bits.u(1, 1)
        bits.u(0, 3)
        bits.u(self.reorder is not None, 1)
        if self.reorder is not None:
            bits.u(1, 1)
            for value in (0, 0, 10, 10, self.reorder, 4):
                bits.ue(value)

    def pps(self, number: int = 0) -> bytes:
        """Return a picture parameter set NAL unit."""
        bits = BitWriter()
        bits.u(0x68, 8)
        bits.ue(number)
        bits.ue(0)
        bits.u(0, 1)
        bits.u(self.order_in_frame, 1)
        bits.u(0b1, 1)
        bits.u(0x2A, 8)
        bits.u(1, 1)
        return bits.getvalue()

    def slice(
        self, frame: int, order: int = 0, *, idr: bool = False, reference: bool = True, first: int = 0, field: int = -1,
        kind: int = 5, idr_number: int = 0, delta: int = 0, size: int = 40,
    ) -> bytes:  # fmt: skip
        """Return a slice NAL unit. field: 0 top, 1 bottom, -1 a frame. delta: of the order, types 0 (bottom) and 1."""
        bits = BitWriter()
        bits.u((0x60 if reference else 0) | (5 if idr else 1), 8)
        bits.ue(first)
        bits.ue(7 if idr else kind)
        bits.ue(0)
        bits.u(frame & 15, 4)
        if not self.frames_only:
            bits.u(field >= 0, 1)
            if field >= 0:
                bits.u(field, 1)
        if idr:
            bits.ue(idr_number)
        if self.order == 0:
            bits.u(order & 63, 6)
            if self.order_in_frame and field < 0:
                bits.se(delta)
        elif self.order == 1:
            bits.se(delta)
            if self.order_in_frame and field < 0:
                bits.se(0)
        bits.u(1, 1)
        return escape(bits.getvalue() + _body(size, frame * 5 + order + first))


DELIMITER = b"\x09\xf0"
RECOVERY_SEI = b"\x06\x06\x01\x84\x80"


def annexb(*units: bytes, start: bytes = START) -> bytes:
    """Return NAL units as a byte stream."""
    return b"".join(start + unit for unit in units)


# -- MPEG video


def mpeg_sequence(width: int = 320, height: int = 176, rate: int = 3, *, low_delay: bool = False) -> bytes:
    """Return a sequence header with its extension. rate: frame_rate_code."""
    bits = BitWriter()
    bits.u(0x1B3, 32)
    bits.u(width, 12)
    bits.u(height, 12)
    bits.u(1, 4)
    bits.u(rate, 4)
    bits.u(1000, 18)
    bits.u(1, 1)
    bits.u(20, 10)
    bits.u(0, 3)
    bits.u(0x1B5, 32)
    bits.u(1, 4)
    bits.u(0x48, 8)
    bits.u(1, 1)
    bits.u(1, 2)
    bits.u(0, 16)
    bits.u(1, 1)
    bits.u(0, 8)
    bits.u(low_delay, 1)
    bits.u(0, 7)
    return bits.getvalue()


GROUP = bytes.fromhex("000001b8 00080040")


def mpeg_picture(reference: int, kind: int, *, structure: int = 3, size: int = 60) -> bytes:
    """Return a picture of two slices. kind: 1 I, 2 P, 3 B. structure: 1 top field, 2 bottom field, 3 frame."""
    bits = BitWriter()
    bits.u(0x100, 32)
    bits.u(reference, 10)
    bits.u(kind, 3)
    bits.u(0xFFFF, 16)
    bits.u(0, 3)
    bits.u(0x1B5, 32)
    bits.u(8, 4)
    bits.u(0xFFFF, 16)
    bits.u(0, 2)
    bits.u(structure, 2)
    bits.u(0, 16)
    head = bits.getvalue()
    return head + b"".join(bytes((0, 0, 1, row)) + _body(size, reference + row) for row in (1, 2))
