"""MP4 files put together box by box for tests, with tables as odd as a test wants them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

AVCC = bytes.fromhex("0164000cffe1001a6764000cacd941419f9f011000000300100000030320f142996001000468ef8fcbfdf8f800")
ASC = bytes.fromhex("1190")


def box(kind: str, *parts: bytes, wide: bool = False) -> bytes:
    """Return a box; wide: with a size of 64 bits."""
    size = sum(map(len, parts))
    if wide:
        return struct.pack(">I4sQ", 1, kind.encode("latin-1"), size + 16) + b"".join(parts)
    return struct.pack(">I4s", size + 8, kind.encode("latin-1")) + b"".join(parts)


def full(kind: str, *parts: bytes, version: int = 0, flags: int = 0, wide: bool = False) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts, wide=wide)


def rows(kind: str, form: str, *values: tuple[int, ...], version: int = 0) -> bytes:
    """Return a full box of a count and rows."""
    return full(
        kind, struct.pack(">I", len(values)), *(struct.pack(">" + form, *one) for one in values), version=version
    )


def video_entry(kind: str = "avc1", *boxes: bytes, width: int = 320, height: int = 180) -> bytes:
    head = struct.pack(">6xH16xHHIII", 1, width, height, 72 << 16, 72 << 16, 0) + struct.pack(">H32xHh", 1, 24, -1)
    return box(kind, head, *(boxes or (box("avcC", AVCC),)))


def audio_entry(kind: str = "mp4a", *boxes: bytes, rate_hz: int = 48_000, channels: int = 2, bits: int = 16) -> bytes:
    head = struct.pack(">6xH8xHH4xI", 1, channels, bits, rate_hz << 16)
    return box(kind, head, *(boxes or (esds(0x40, ASC),) if kind == "mp4a" else boxes))


def esds(object_type: int, setup: bytes = b"") -> bytes:
    inner = bytes((5, len(setup))) + setup if setup else b""
    decoder = bytes((4, 13 + len(inner), object_type, 0x15, 0, 0, 0)) + struct.pack(">II", 128_000, 96_000) + inner
    return full("esds", bytes((3, 3 + len(decoder), 0, 1, 0)) + decoder)


@dataclass
class Track:
    """A track with all its tables.

    payloads: of its samples. deltas: rows of stts. offsets: rows of ctts. chunks: samples in each chunk; chunk_entries: sample
    entry of each chunk. extra: boxes put into stbl instead of those of the same type ("" leaves one out).
    """

    payloads: Sequence[bytes]
    entries: Sequence[bytes] = field(default_factory=lambda: [video_entry()])
    handler: str = "vide"
    timescale: int = 12_800
    number: int = 1
    deltas: Sequence[tuple[int, int]] = ()
    offsets: Sequence[tuple[int, int]] = ()
    offsets_version: int = 0
    sync: Sequence[int] | None = None
    chunks: Sequence[int] = ()
    chunk_entries: Sequence[int] = ()
    edits: Sequence[tuple[int, int, int]] = ()
    language: int = 0x55C4
    wide: bool = False
    size_bits: int = 32
    header_version: int = 0
    extra: dict[str, bytes] = field(default_factory=dict)

    def chunk_list(self) -> list[list[bytes]]:
        """Return the payloads of each chunk."""
        sizes, left, found = list(self.chunks) or [len(self.payloads)], list(self.payloads), []
        while left:
            count = sizes.pop(0) if sizes else 1
            found.append(left[:count])
            left = left[count:]
        return found

    def table(self, places: Sequence[int]) -> bytes:
        count = len(self.payloads)
        chunks = self.chunk_list()
        entries = list(self.chunk_entries) or [1] * len(chunks)
        made = {
            "stsd": full("stsd", struct.pack(">I", len(self.entries)), *self.entries),
            "stts": rows("stts", "II", *(self.deltas or [(count, 512)])),
            "ctts": rows("ctts", "Ii", *self.offsets, version=self.offsets_version) if self.offsets else b"",
            "stsc": rows("stsc", "III", *((n + 1, len(one), entries[n]) for n, one in enumerate(chunks))),
            "stsz": self.sizes(),
            "stco": rows("co64" if self.wide else "stco", "Q" if self.wide else "I", *((one,) for one in places)),
            "stss": rows("stss", "I", *((one,) for one in self.sync)) if self.sync is not None else b"",
        }
        return box("stbl", *{**made, **self.extra}.values())

    def sizes(self) -> bytes:
        sizes = [len(one) for one in self.payloads]
        if self.size_bits == 32:
            return full("stsz", struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes))
        if self.size_bits == 0:
            return full("stsz", struct.pack(">II", sizes[0], len(sizes)))
        if self.size_bits == 4:
            padded = [*sizes, 0]
            data = bytes(a << 4 | b for a, b in zip(padded[::2], padded[1::2], strict=False))
        else:
            data = struct.pack(f">{len(sizes)}{'B' if self.size_bits == 8 else 'H'}", *sizes)
        return full("stz2", struct.pack(">II", self.size_bits, len(sizes)), data)

    def trak(self, places: Sequence[int]) -> bytes:
        v = self.header_version
        times = "QQ" if v else "II"
        header = struct.pack(f">{times}II{'Q' if v else 'I'}", 0, 0, self.number, 0, 0) + bytes(60)
        media = struct.pack(f">{times}I{'Q' if v else 'I'}HH", 0, 0, self.timescale, 0, self.language, 0)
        edits = box("edts", rows("elst", "QqI" if v else "IiI", *self.edits, version=v)) if self.edits else b""
        return box(
            "trak",
            full("tkhd", header, version=v, flags=3),
            edits,
            box(
                "mdia",
                full("mdhd", media, version=v),
                full("hdlr", bytes(4), self.handler.encode(), bytes(12), b"\0"),
                box("minf", self.table(places)),
            ),
        )


def movie(*inside: bytes, timescale: int = 1000, wide: bool = False) -> bytes:
    return box("moov", full("mvhd", struct.pack(">IIII", 0, 0, timescale, 0), bytes(80)), *inside, wide=wide)


def plain(
    *tracks: Track, moov_first: bool = True, wide: bool = False, timescale: int = 1000, extra: bytes = b""
) -> bytes:
    """Return a file whose chunks are interleaved: the first of each track, the second of each track …"""
    start = box("ftyp", b"isom", bytes(4), b"isom")
    order: list[tuple[int, bytes]] = []
    lists = [track.chunk_list() for track in tracks]
    for number in range(max(map(len, lists))):
        order += [(place, b"".join(one[number])) for place, one in enumerate(lists) if number < len(one)]
    media = box("mdat", *(data for _, data in order), wide=wide)

    def moov(base: int) -> bytes:
        places: list[list[int]] = [[] for _ in tracks]
        at = base + (16 if wide else 8)
        for place, data in order:
            places[place].append(at)
            at += len(data)
        traks = [track.trak(one) for track, one in zip(tracks, places, strict=True)]
        return movie(*traks, extra, timescale=timescale, wide=wide)

    if not moov_first:
        return start + media + moov(len(start))
    return start + moov(len(start) + len(moov(0))) + media


# --- fragments ------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A traf with one trun. first_flags, flags, durations, offsets: left out if None.

    base: "moof", "explicit" (the same), "media" (where its own media begins) or "" for none.
    """

    payloads: Sequence[bytes]
    number: int = 1
    dts: int | None = 0
    durations: Sequence[int] | None = None
    offsets: Sequence[int] | None = None
    flags: Sequence[int] | None = None
    first_flags: int | None = None
    default_duration: int | None = None
    base: str = "moof"
    extra: bytes = b""
    split: int = 0


def fragment(*runs: Run, position: int = 0, sequence: int = 1, wide: bool = False) -> bytes:
    """Return moof and mdat. position: byte of the file where moof begins. wide: all boxes in moof have sizes of 64 bits."""
    made = _moof(runs, 0, position, sequence, wide)
    media = box("mdat", *(one for run in runs for one in run.payloads))
    return _moof(runs, len(made), position, sequence, wide) + media


def _moof(runs: Sequence[Run], size: int, position: int, sequence: int, wide: bool) -> bytes:
    at = size + 8
    trafs = []
    for run in runs:
        flags = {"moof": 0x020000, "explicit": 1, "media": 1, "": 0}[run.base]
        base = at if run.base == "media" else 0
        head = struct.pack(">Q", position + base) if flags == 1 else b""
        if run.default_duration is not None:
            flags |= 8
            head += struct.pack(">I", run.default_duration)
        parts = [full("tfhd", struct.pack(">I", run.number), head, flags=flags, wide=wide)]
        if run.dts is not None:
            parts.append(full("tfdt", struct.pack(">Q", run.dts), version=1, wide=wide))
        cut = run.split or len(run.payloads)
        for begin, end in ((0, cut), (cut, len(run.payloads))):
            if begin < end:
                parts.append(_trun(run, begin, end, at - base if begin == 0 else None, wide))
        at += sum(map(len, run.payloads))
        trafs.append(box("traf", *parts, run.extra, wide=wide))
    return box("moof", full("mfhd", struct.pack(">I", sequence), wide=wide), *trafs, wide=wide)


def _trun(run: Run, begin: int, end: int, offset: int | None, wide: bool) -> bytes:
    flags = 0x200
    head = b""
    if offset is not None:
        flags |= 1
        head += struct.pack(">i", offset)
    if run.first_flags is not None and begin == 0:
        flags |= 4
        head += struct.pack(">I", run.first_flags)
    flags |= 0x100 if run.durations else 0
    flags |= 0x400 if run.flags else 0
    flags |= 0x800 if run.offsets else 0
    body = b""
    for number in range(begin, end):
        if run.durations:
            body += struct.pack(">I", run.durations[number])
        body += struct.pack(">I", len(run.payloads[number]))
        if run.flags:
            body += struct.pack(">I", run.flags[number])
        if run.offsets:
            body += struct.pack(">i", run.offsets[number])
    return full("trun", struct.pack(">I", end - begin), head, body, version=1, flags=flags, wide=wide)


def trex(number: int, duration: int = 512, size: int = 0, flags: int = 0x0101_0000) -> bytes:
    return full("trex", struct.pack(">5I", number, 1, duration, size, flags))


def fragmented(*tracks: Track, defaults: Sequence[bytes] = ()) -> bytes:
    """Return ftyp and moov of a fragmented file; tracks have no samples."""
    extends = box("mvex", *(defaults or [trex(track.number) for track in tracks]))
    return box("ftyp", b"iso5", bytes(4), b"iso5") + movie(*(track.trak([]) for track in tracks), extends)
