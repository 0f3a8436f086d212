"""Transport streams put together by hand, packet by packet, for what no muxer writes."""

from __future__ import annotations

from collections.abc import Iterable

from mist.core.crc import crc32_mpeg2

PACKET = 188
PMT_PID = 0x1000
WRAP = 1 << 33


def section(table_id: int, number: int, body: bytes, version: int = 0, part: int = 0, last: int = 0) -> bytes:
    """Return a section with the long header and its CRC."""
    head = bytes((table_id, 0xB0 | len(body) + 9 >> 8, len(body) + 9 & 255)) + number.to_bytes(2, "big")
    content = head + bytes((0xC1 | version << 1, part, last)) + body
    return content + crc32_mpeg2(content).to_bytes(4, "big")


def pat(programs: dict[int, int], version: int = 0, part: int = 0, last: int = 0) -> bytes:
    """Return a PAT. programs: PID of the PMT by number."""
    body = b"".join(number.to_bytes(2, "big") + (0xE000 | pid).to_bytes(2, "big") for number, pid in programs.items())
    return section(0, 1, body, version, part, last)


def pmt(streams: Iterable[tuple[int, int, bytes]], number: int = 1, version: int = 0, program: bytes = b"") -> bytes:
    """Return a PMT. streams: (stream type, PID, descriptors). program: descriptors of the program."""
    body = b"\xff\xff" + (0xF000 | len(program)).to_bytes(2, "big") + program
    for kind, pid, descriptors in streams:
        body += bytes((kind,)) + (0xE000 | pid).to_bytes(2, "big")
        body += (0xF000 | len(descriptors)).to_bytes(2, "big") + descriptors
    return section(2, number, body, version)


def descriptor(tag: int, body: bytes) -> bytes:
    return bytes((tag, len(body))) + body


def stamp(prefix: int, ticks: int) -> bytes:
    ticks %= WRAP
    return bytes(
        (
            prefix << 4 | ticks >> 29 & 14 | 1,
            ticks >> 22 & 255,
            ticks >> 14 & 254 | 1,
            ticks >> 7 & 255,
            ticks << 1 & 254 | 1,
        )
    )


def pes(
    payload: bytes,
    pts: int | None = None,
    dts: int | None = None,
    *,
    stream_id: int = 0xE0,
    bounded: bool = False,
    aligned: bool = True,
    stuffing: int = 0,
) -> bytes:
    """Return a PES packet. pts, dts: 90 kHz ticks, wrapped here."""
    stamps = b"" if pts is None else stamp(2, pts) if dts is None else stamp(3, pts) + stamp(1, dts)
    flags = 0 if pts is None else 0x80 if dts is None else 0xC0
    stamps += b"\xff" * stuffing
    length = len(payload) + 3 + len(stamps) if bounded else 0
    head = b"\0\0\1" + bytes((stream_id,)) + length.to_bytes(2, "big")
    return head + bytes((0x84 if aligned else 0x80, flags, len(stamps))) + stamps + payload


class StreamBuilder:
    """Packs sections and PES packets into transport packets, with continuity counters. stride: 188, 192 or 204."""

    def __init__(self, stride: int = PACKET) -> None:
        self.packets: list[bytes] = []
        self.counters: dict[int, int] = {}
        self.stride = stride

    def add(self, pid: int, data: bytes) -> StreamBuilder:
        """Add a PES packet."""
        for at in range(0, len(data), 184):
            self.packet(pid, data[at : at + 184], 0 if at else 0x40)
        return self

    def add_section(self, pid: int, content: bytes) -> StreamBuilder:
        data = b"\0" + content
        for at in range(0, len(data), 184):
            self.packet(pid, data[at : at + 184].ljust(184, b"\xff"), 0 if at else 0x40)
        return self

    def packet(self, pid: int, body: bytes, start: int = 0, flags: int = 0) -> None:
        """Add one packet; what the body lacks becomes an adaptation field."""
        counter = self.counters.get(pid, 0)
        self.counters[pid] = counter + 1 & 15
        field = b""
        if len(body) < 184 or flags:
            field = bytes((183 - len(body),)) + bytes((flags,)).ljust(183 - len(body), b"\xff") * (len(body) < 183)
        control = (0x30 if field else 0x10) | counter
        self.packets.append(bytes((0x47, start | pid >> 8, pid & 255, control)) + field + body)

    def tables(
        self, streams: Iterable[tuple[int, int, bytes]], version: int = 0, program: bytes = b""
    ) -> StreamBuilder:
        """Add a PAT with program 1 and its PMT."""
        self.add_section(0, pat({1: PMT_PID}))
        return self.add_section(PMT_PID, pmt(streams, version=version, program=program))

    @property
    def data(self) -> bytes:
        head = bytes(4) if self.stride == 192 else b""
        return b"".join((head + packet).ljust(self.stride, b"\0") for packet in self.packets)
