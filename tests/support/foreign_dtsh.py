"""Indexes as another program writes them beside files, byte by byte from the layout; nothing of mist's own writer is in it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

END = b"\0\0\xee"


def value(item: object) -> bytes:
    """Return a typed value: integer, string, or object."""
    if isinstance(item, int):
        return b"\x01" + struct.pack(">q", item)
    if isinstance(item, bytes):
        return b"\x02" + struct.pack(">I", len(item)) + item
    assert isinstance(item, Mapping)
    return b"\xe0" + b"".join(struct.pack(">H", len(name)) + name + value(one) for name, one in item.items()) + END


def part(version: int, size: int, duration_ms: int, offset_ms: int) -> bytes:
    """Return the record of a packet: 3, 3 and 3 bytes, before version 3 of the layout 3, 2 and 4."""
    widths = (3, 3, 3) if version >= 3 else (3, 2, 4)
    fields = (size, duration_ms, offset_ms & (1 << 8 * widths[2]) - 1)
    return b"".join(field.to_bytes(width, "big") for field, width in zip(fields, widths, strict=True))


@dataclass(frozen=True, slots=True)
class Film:
    """A track of pictures of 40 ms. keys: positions and numbers of packets of the keys; one key is one fragment."""

    keys: Sequence[tuple[int, int]]
    packet_bytes: int = 1000
    init: bytes = b"\x01\x64\x00\x0c\xff\xe1\x00\x00\x00"

    def track(self, version: int) -> dict[bytes, object]:
        """Return the members of the track's object, in the order in which they are written."""
        fragments, keys, sizes, parts, before = b"", b"", b"", b"", 0
        for number, (position, count) in enumerate(self.keys):
            last = number == len(self.keys) - 1
            duration = 0 if last else 40 * count
            fragments += struct.pack(">IBII", duration, 1, number + 1, count * self.packet_bytes)
            keys += (
                struct.pack(">Q", position)
                + duration.to_bytes(3, "big")
                + struct.pack(">IHQ", number, count, 40 * before)
            )
            sizes += struct.pack(">I", count * (self.packet_bytes + 35))
            parts += b"".join(part(version, self.packet_bytes, 40, -40 if one % 2 else 40) for one in range(count))
            before += count
        rates: dict[bytes, object] = {b"bps": 25_000, b"maxbps": 30_000} if version >= 4 else {b"bps": 30_000}
        return {
            b"fragments": fragments, b"keys": keys, b"keysizes": sizes, b"parts": parts, b"trackid": 1,
            b"firstms": 0, b"lastms": 40 * (before - 1), **rates, b"init": self.init, b"codec": b"H264",
            b"type": b"video", b"width": 128, b"height": 96, b"fpks": 25000, b"efpks": 25000,
        }  # fmt: skip


def dtsh(film: Film, version: int = 4, extra: Mapping[bytes, object] | None = None) -> bytes:
    """Return the content of an index file."""
    members = {
        b"vod": 1,
        b"version": version,
        **(extra or {}),
        b"tracks": {b"H264_128x96_25fps_1": film.track(version)},
    }
    body = value(members)
    return b"DTSC" + struct.pack(">I", len(body)) + body
