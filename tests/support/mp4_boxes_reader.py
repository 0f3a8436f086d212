"""A small reader of MP4 boxes for tests, written apart from the code that it checks."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONTAINERS = {"moov", "trak", "mdia", "minf", "stbl", "dinf", "mvex", "moof", "traf", "edts"}


@dataclass(frozen=True)
class Box:
    """A box: its path from the top such as "moof/traf/tfdt", and what it holds."""

    path: str
    body: bytes


def boxes(data: bytes, parent: str = "") -> Iterator[Box]:
    """Yield all boxes, containers before what is in them. Raises ValueError where sizes do not fit."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError(f"{len(data) - at} bytes left over in {parent or 'the file'}")
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            raise ValueError(f"{kind!r} of {size} bytes at {at} of {len(data)} in {parent or 'the file'}")
        path = f"{parent}{kind.decode('latin-1')}"
        yield Box(path, data[at + 8 : at + size])
        if path.rpartition("/")[2] in CONTAINERS:
            yield from boxes(data[at + 8 : at + size], path + "/")
        at += size


@dataclass(frozen=True)
class Fragment:
    """One fragment of one sample. duration: None where trex tells. sync: None where trex tells."""

    sequence: int
    track_id: int
    dts: int
    duration: int | None
    offset: int
    sync: bool | None
    payload: bytes
    overhead: int


def fragments(data: bytes) -> list[Fragment]:
    """Return the fragments of data that holds nothing else. Raises ValueError for anything that is not one of ours."""
    found = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        mdat = int.from_bytes(data[at + size : at + size + 4], "big")
        found.append(_fragment(data[at : at + size], data[at + size : at + size + mdat]))
        at += size + mdat
    return found


def _fragment(moof: bytes, mdat: bytes) -> Fragment:
    inside = {box.path: box.body for box in boxes(moof + mdat)}
    order = ["moof", "moof/mfhd", "moof/traf", "moof/traf/tfhd", "moof/traf/tfdt", "moof/traf/trun", "mdat"]
    if list(inside) != order:
        raise ValueError(f"a fragment of {list(inside)}")
    flags, track_id = struct.unpack(">II", inside["moof/traf/tfhd"])
    if flags != 0x020000:
        raise ValueError(f"tfhd flags {flags:x}")
    tfdt = inside["moof/traf/tfdt"]
    dts = int.from_bytes(tfdt[4:], "big")
    if tfdt[0] != (len(tfdt) == 12):
        raise ValueError("tfdt of the wrong version")
    trun = inside["moof/traf/trun"]
    version_flags, count, data_offset, *rest = struct.unpack(f">{len(trun) // 4}I", trun)
    if version_flags >> 24 != 1 or count != 1 or data_offset != len(moof) + 8:
        raise ValueError(f"trun {version_flags:x} of {count}, data at {data_offset} of {len(moof)}")
    sync = rest.pop(0) == 0x0200_0000 if version_flags & 4 else None
    duration = rest.pop(0) if version_flags & 0x100 else None
    size = rest.pop(0)
    raw_offset = rest.pop(0) if version_flags & 0x800 else 0
    if rest or size != len(mdat) - 8:
        raise ValueError(f"a sample of {size} bytes in mdat of {len(mdat)}")
    offset = raw_offset - (1 << 32) if raw_offset >> 31 else raw_offset
    sequence = int.from_bytes(inside["moof/mfhd"][4:], "big")
    return Fragment(sequence, track_id, dts, duration, offset, sync, mdat[8:], len(moof) + 8)
